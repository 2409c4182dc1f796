"""The model repository on disk: one folder a role, in it one numbered folder a version, of which exactly one is served.

A change is put together aside and exchanged for the role's folder in one step, so a Triton that starts meanwhile sees the old state or the
new one, whole, and whatever fails leaves the old one.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from orchestrator.errors import InvalidOption, StorageError
from orchestrator.files import storage_error

REQUIRED_ROLES = ("face_detector", "lip_sync")
"""Roles a render cannot do without."""

CARD = "card.json"
"""File in a version's folder that says what it is, where it came from and how it was proven."""

CHOSEN = "CHOSEN"
"""File in a role's folder while it serves a version that an operator went to by name."""

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@dataclass(frozen=True, slots=True)
class Version:
    """One installed version of a role's model."""

    role: str
    number: int
    pack: str
    card: Mapping[str, Any]
    folder: Path
    is_served: bool
    is_chosen: bool = False
    """Whether it is served because an operator asked for this version."""

    def __str__(self) -> str:
        return f"{self.pack}/{self.number}"


def read_versions(repository: Path, role: str) -> list[Version]:
    """Return a role's versions, oldest first; none where no model fills the role."""
    folder = repository / role
    served = _read_marker(folder)
    versions = []
    for number in _version_numbers(folder):
        card: dict[str, Any] = {}
        if (folder / str(number) / CARD).is_file():
            card = json.loads((folder / str(number) / CARD).read_text())
        pack = str(card.get("pack", served[0] if served and served[1] == number else "unknown"))
        is_served = served is not None and served[1] == number
        versions.append(Version(role, number, pack, card, folder / str(number), is_served, is_served and (folder / CHOSEN).exists()))
    return versions


def served_version(repository: Path, role: str) -> Version | None:
    """Return the version that Triton serves, None where no model fills the role."""
    return next((version for version in read_versions(repository, role) if version.is_served), None)


def installed_roles(repository: Path) -> list[str]:
    """Return the models in the repository, by name."""
    if not repository.is_dir():
        return []
    return sorted(folder.name for folder in repository.iterdir() if not folder.name.startswith(".") and _read_marker(folder) is not None)


def installed_pack(repository: Path, role: str) -> str | None:
    """Return the name of the pack that fills a role, None if none does."""
    marker = _read_marker(repository / role)
    return None if marker is None else marker[0]


def missing_roles(repository: Path) -> list[str]:
    """Return the required roles that no model fills."""
    return [role for role in REQUIRED_ROLES if installed_pack(repository, role) is None]


class StagedVersion:
    """A new version while it is put together, out of Triton's sight."""

    def __init__(self, role: str, number: int, aside: Path) -> None:
        self.role = role
        self.number = number
        self._aside = aside
        self.folder = aside / str(number)
        """Where the version's files go: the model, its configurations, its card."""

    def serve(self, configurations: Mapping[str, str], card: Mapping[str, Any]) -> None:
        """Finish the version and make it the one that is served.

        Args:
            configurations: text of each configuration file by its path below the role's folder.
            card: what `models card` shows.
        """
        _write_card(self.folder, {**card, "version": self.number})
        for path, text in configurations.items():
            kept = self.folder / path
            kept.parent.mkdir(exist_ok=True)
            kept.write_text(text)
        _serve(self._aside, self.number, str(card["pack"]))


@contextmanager
def new_version(repository: Path, role: str) -> Iterator[StagedVersion]:
    """Stage a new version of a role; it takes effect when the block ends, and leaves no trace when the block raises.

    Raises:
        StorageError: the repository cannot be written.
    """
    with _changed(repository, role) as aside:
        number = max(_version_numbers(aside), default=0) + 1
        (aside / str(number)).mkdir()
        yield StagedVersion(role, number, aside)


def use_version(repository: Path, role: str, number: int, *, is_chosen: bool = False, facts: Mapping[str, Any] | None = None) -> None:
    """Serve another version of a role that is installed.

    Args:
        repository: the model repository.
        role: whose model it is.
        number: the version's.
        is_chosen: an operator asked for this version; only where he did is it known as such.
        facts: what the version's card says from now on.

    Raises:
        InvalidOption: there is no such version.
        StorageError: the repository cannot be written.
    """
    version = next((version for version in read_versions(repository, role) if version.number == number), None)
    if version is None or not (version.folder / "config.pbtxt").is_file():
        raise InvalidOption(f"There is no version {number} of {role} in {repository}; `lipsync models list` shows what there is.")
    with _changed(repository, role) as aside:
        if facts is not None:
            _write_card(aside / str(number), {**version.card, **facts})
        _serve(aside, number, version.pack)
        if is_chosen:
            (aside / CHOSEN).touch()


def remove_role(repository: Path, role: str) -> None:
    """Take a role's model out of the repository, with all its versions.

    Raises:
        InvalidOption: there is none, or no render can do without it.
        StorageError: the repository cannot be written.
    """
    if role in REQUIRED_ROLES:
        raise InvalidOption(f"No render can do without {role}; install another pack for it instead.")
    if role not in installed_roles(repository):
        raise InvalidOption(f"There is no model {role!r} in {repository}; `lipsync models list` shows what there is.")
    try:
        with _locked(repository):
            aside = Path(mkdtemp(prefix=f".{repository.name}.{role}.", dir=_staging_folder(repository)))
            (repository / role).rename(aside)
        shutil.rmtree(aside)
    except OSError as exc:
        raise _unwritable(repository, exc) from exc


def find_version(repository: Path, name: str) -> Version:
    """Return the version that `PACK`, `PACK/VERSION` or `ROLE/VERSION` names; a pack alone means its latest.

    Of a pack of several models it is the one whose card names the others.

    Raises:
        InvalidOption: none is installed.
    """
    word, _, number = name.partition("/")
    versions = [version for role in installed_roles(repository) for version in read_versions(repository, role)]
    found = [version for version in versions if word in (version.pack, version.role) and number in ("", str(version.number))]
    if not found or (word in {version.role for version in found} and not number):
        installed = ", ".join(map(str, versions)) or "none"
        raise InvalidOption(f"There is no installed model {name!r}; give one of these as PACK/VERSION: {installed}.")
    return max(found, key=lambda version: ("members" in version.card, version.number))


@contextmanager
def _changed(repository: Path, role: str) -> Iterator[Path]:
    """Yield a copy of a role's folder (weights are linked, not copied) that takes its place when the block ends."""
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with _locked(repository):
            staging = _staging_folder(repository)
            for left_over in staging.glob(f".{repository.name}.{role}.*"):  # of a program that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            aside = Path(mkdtemp(prefix=f".{repository.name}.{role}.", dir=staging))
            try:
                aside.chmod(0o755)
                place = repository / role
                if place.exists():
                    _link_tree(place, aside)
                    _keep_configurations(aside)
                yield aside
                _put_in_place(aside, place)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except OSError as exc:
        raise _unwritable(repository, exc) from exc


@contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """Change a repository one program at a time."""
    with (repository / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unwritable(repository: Path, exc: OSError) -> StorageError:
    return storage_error(exc, f"The model repository {repository} cannot be written", "check the folder, its owner and the free space")


def _staging_folder(repository: Path) -> Path:
    """Return where to put changes together: beside the repository, because Triton takes every folder inside, hidden or not, for a model.

    Where that is another file system, such as around a mounted volume, it has to be inside, for the milliseconds it takes to link files.
    """
    parent = repository.absolute().parent
    return parent if os.access(parent, os.W_OK | os.X_OK) and parent.stat().st_dev == repository.stat().st_dev else repository


def _write_card(folder: Path, card: Mapping[str, Any]) -> None:
    (folder / CARD).unlink(missing_ok=True)  # it may be a link shared with the folder in use
    (folder / CARD).write_text(json.dumps(dict(card), indent=1, ensure_ascii=False) + "\n")


def _serve(folder: Path, number: int, pack: str) -> None:
    """Make a role's folder serve one of its versions."""
    kept = folder / str(number)
    shutil.rmtree(folder / "configs", ignore_errors=True)
    for path in ["config.pbtxt", *(f"configs/{file.name}" for file in sorted((kept / "configs").glob("*.pbtxt")))]:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).unlink(missing_ok=True)  # it may be a link shared with the folder in use
        text = (kept / path).read_text()
        (folder / path).write_text(f"{text.rstrip()}\nversion_policy {{ specific {{ versions: [ {number} ] }} }}\n")
    for marker in ("PACK", CHOSEN):
        (folder / marker).unlink(missing_ok=True)
    (folder / "PACK").write_text(f"{pack}/{number}\n")


def _keep_configurations(folder: Path) -> None:
    """Give a version that was installed before versions existed its own copy of the configurations."""
    marker = _read_marker(folder)
    if marker is None or (folder / str(marker[1]) / "config.pbtxt").exists():
        return
    for path in ("config.pbtxt", "configs/cpu.pbtxt"):
        kept = folder / str(marker[1]) / path
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / path, kept)


def _read_marker(folder: Path) -> tuple[str, int] | None:
    """Return the pack and version that a role's folder serves."""
    try:
        pack, _, number = (folder / "PACK").read_text().strip().partition("/")
        return pack, int(number or 1)
    except (OSError, ValueError):
        return None


def _version_numbers(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []


def _link_tree(source: Path, target: Path) -> None:
    def link(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError as exc:
            if exc.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
                raise
            shutil.copy2(old, new)

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


def _put_in_place(aside: Path, place: Path) -> None:
    """Exchange two folders in one step; where the file system cannot, there is a moment with neither."""
    if not place.exists():
        aside.rename(place)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2") and libc.renameat2(_AT_FDCWD, bytes(aside), _AT_FDCWD, bytes(place), _RENAME_EXCHANGE) == 0:
        return
    old = place.with_name(f"{aside.name}.old")
    place.rename(old)
    aside.rename(place)
    shutil.rmtree(old)
