"""The model repository on disk: one folder a role, complete or not there."""

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

from orchestrator.errors import StorageError
from orchestrator.models.packs import PACKS, Pack


def install_pack(pack: Pack, repository: Path) -> Path:
    """Build a pack's model into the repository and return its folder.

    The folder is put together aside and renamed into place, so a Triton that starts meanwhile sees the old model or the new one.

    Raises:
        StorageError: the repository cannot be written, or the model's source cannot be fetched.
    """
    model, config = pack.build()
    try:
        repository.mkdir(parents=True, exist_ok=True)
        aside = Path(mkdtemp(prefix=f".{pack.role}.", dir=repository))
        try:
            aside.chmod(0o755)
            (aside / "1").mkdir()
            (aside / "1" / "model.onnx").write_bytes(model.SerializeToString())
            (aside / "configs").mkdir()
            for path, text in config.files(pack=pack.name, licence=pack.licence, model=aside / "1" / "model.onnx").items():
                (aside / path).write_text(text)
            (aside / "PACK").write_text(f"{pack.name}\n")
            return _put_in_place(aside, repository / pack.role)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as exc:
        raise StorageError(f"The model repository {repository} cannot be written ({exc.strerror}); check the folder's owner and free space.") from exc


def installed_pack(repository: Path, role: str) -> str | None:
    """Return the name of the pack that fills a role, None if none does."""
    marker = repository / role / "PACK"
    return marker.read_text().strip() if marker.is_file() else None


def missing_roles(repository: Path) -> list[str]:
    """Return the roles of the default packs that no model fills."""
    return [pack.role for pack in PACKS.values() if installed_pack(repository, pack.role) is None]


def _put_in_place(aside: Path, place: Path) -> Path:
    if place.exists():
        old = place.with_name(f".{place.name}.{os.getpid()}.old")
        place.rename(old)
        aside.rename(place)
        shutil.rmtree(old)
    else:
        aside.rename(place)
    return place
