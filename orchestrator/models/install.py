"""Installing a pack: read the file, recognise it, wrap it, prove it, and only then let Triton see it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import onnx

from orchestrator.errors import InvalidOption, UnsuitableModel
from orchestrator.models.config import CONFIG_FILES, ModelConfig, Tensor
from orchestrator.models.network import read_network
from orchestrator.models.options import PackOptions
from orchestrator.models.packs import PACKS, Fit, Pack, find_pack
from orchestrator.models.proof import Proof, prove
from orchestrator.models.repository import Version, new_version, read_versions, served_version, use_version
from orchestrator.models.runner import OnnxRunner
from orchestrator.models.soundness import refusing_malformed
from orchestrator.models.sources import local_file, package_member
from orchestrator.models.wrapping import Wrapping, wrap

MODEL_FILE = "model.onnx"
"""Name of the model in a version's folder."""


@dataclass(frozen=True, slots=True)
class _Built:
    """One model of a pack, proven, not yet in the repository."""

    role: str
    configurations: Mapping[str, str]
    card: Mapping[str, Any]
    model: Path | None
    """None for an ensemble, which has no file."""


def install_pack(
    pack: Pack,
    repository: Path,
    triton_home: Path,
    source: str | None = None,
    digest: str | None = None,
    options: PackOptions | None = None,
) -> list[Version]:
    """Install a pack's models as new versions of their roles, served from the next start of Triton on.

    Nothing is put into the repository before everything is proven.

    Args:
        pack: what to install.
        repository: the model repository.
        triton_home: where ONNX Runtime for the proof is.
        source: path or URL of the published file, for packs that need one; a folder for packs of several files.
        digest: sha256 the file must have.
        options: what the file does not tell.

    Returns:
        The versions that are now served, the pack's own role last.

    Raises:
        InvalidOption: a file is missing or not wanted, or an option does not suit the file.
        InputError: the file is broken, hostile, too large, or not what the pack is for.
        StorageError: the repository cannot be written, the source cannot be fetched, or there is no ONNX Runtime.
    """
    if pack.needs_file and source is None:
        wanted = f"FOLDER with {', '.join(pack.members)}" if pack.members else "FILE or URL"
        raise InvalidOption(f"The pack {pack.name} needs --from {wanted} ({pack.source}).")
    if pack.draw is not None and source is not None:
        raise InvalidOption(f"The pack {pack.name} is made by this project and takes no file; leave out --from.")
    if pack.members and digest is not None:
        raise InvalidOption(f"The pack {pack.name} has several files; leave out --sha256.")
    options = options or PackOptions()
    with OnnxRunner(triton_home) as runner:
        if pack.draw is not None:
            model, config = pack.draw()
            built = [_prove(pack, config, model, None, None, {}, runner)]
        elif pack.members:
            built = _build_members(pack, Path(str(source)), options, runner)
        else:
            assert pack.fit is not None
            with _file_of(pack, source) as file:
                expected = digest or (next(iter(pack.known_files)) if source is None else None)
                built = [_build(pack, pack.fit, file, expected, source or " ".join(pack.package or ()), options, runner)]
        return _put_all(pack, repository, built)


def _build_members(pack: Pack, folder: Path, options: PackOptions, runner: OnnxRunner) -> list[_Built]:
    if not folder.is_dir():
        raise InvalidOption(f"The pack {pack.name} has several files: give --from a FOLDER with {', '.join(pack.members)}.")
    built = [_build(pack, fit, folder / name, None, str(folder / name), options, runner) for name, fit in pack.members.items()]
    if pack.ensemble is not None:
        config = pack.ensemble.config
        card = {**_facts(pack, config), "batching": "items together", "model_sha256": _digest_of([str(one.card["model_sha256"]) for one in built])}
        text = pack.ensemble.to_pbtxt(_with_origin(config, pack, card))
        built.append(_Built(config.role, dict.fromkeys(CONFIG_FILES.values(), text), card, None))
    return sorted(built, key=lambda one: one.role == pack.role)


def _build(pack: Pack, fit: Fit, file: Path, digest: str | None, source: str, options: PackOptions, runner: OnnxRunner) -> _Built:
    """Read, recognise, wrap and prove one file."""
    network = read_network(file, digest)
    with refusing_malformed(network.file):
        wrapping = fit(network, options)
        wrapped = wrap(wrapping)
    facts = {
        "file": network.file,
        "sha256": network.sha256,
        "known_as": pack.known_files.get(network.sha256),
        "network": network.describe(),
        "options": {name: value for name, value in asdict(options).items() if value is not None},
        "from": source,
    }
    return _prove(pack, wrapping.config, wrapped.model, wrapping, wrapped.obstacle, facts, runner)


def _prove(
    pack: Pack,
    config: ModelConfig,
    model: onnx.ModelProto,
    wrapping: Wrapping | None,
    obstacle: str | None,
    facts: Mapping[str, Any],
    runner: OnnxRunner,
) -> _Built:
    path = runner.folder / f"{config.role}.onnx"
    path.write_bytes(model.SerializeToString())
    proof = prove(path, config, wrapping, runner)
    card = {
        **_facts(pack, config),
        "model_sha256": _digest(path),
        "opset": model.opset_import[0].version,
        "batching": "items together" if obstacle is None else f"item by item ({obstacle})",
        "proof": asdict(proof),
        **facts,
    }
    return _Built(config.role, config.files(pack=pack.name, licence=pack.licence, model=path), card, path)


def _put_all(pack: Pack, repository: Path, built: Sequence[_Built]) -> list[Version]:
    """Put a pack's models in place, its own role last, with the versions of the others on its card."""
    versions: list[Version] = []
    for one in built:
        members = {version.role: version.number for version in versions}
        card = {**one.card, "members": members} if members and one.role == pack.role else one.card
        versions.append(_put(repository, replace(one, card=card)))
    return versions


def is_outdated(version: Version, repository: Path) -> bool:
    """Tell whether a version that is served is what this program made itself, without a file or options of anybody, and might make otherwise today.

    A version that was gone back to on purpose, with today's behind it, is not outdated.
    """
    pack = PACKS.get(version.pack)
    if pack is None or pack.needs_file or version.card.get("options"):
        return False
    candidates = [other for other in read_versions(repository, version.role) if other.number >= version.number] if version.is_chosen else [version]
    return all(other.card.get("built_by") != builder_digest() for other in candidates)


@cache
def builder_digest() -> str:
    """Return a digest of the code that builds models and their configurations, and of the weights that it puts into them."""
    digest = sha256()
    for source in sorted(path for path in Path(__file__).parent.iterdir() if path.is_file()):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def use_installed(repository: Path, version: Version) -> list[Version]:
    """Serve an installed version, and with it the versions of the pack's other models that belong to it.

    Raises:
        InvalidOption: one of them is gone.
        StorageError: the repository cannot be written.
    """
    wanted = {**version.card.get("members", {}), version.role: version.number}
    for role, number in wanted.items():
        use_version(repository, role, number, is_chosen=True)
    return [served for role in wanted if (served := served_version(repository, role)) is not None]


def _put(repository: Path, built: _Built) -> Version:
    """Make a model the served version of its role: a new one, or an old one that is the same, whichever version of the program made it."""
    card = {**built.card, "configurations_sha256": _digest_of([text for _, text in sorted(built.configurations.items())])}
    same = ("pack", "model_sha256", "configurations_sha256", "sha256", "members")
    alike = [version for version in read_versions(repository, built.role) if all(version.card.get(name) == card.get(name) for name in same)]
    if alike:
        use_version(repository, built.role, alike[-1].number, facts={"built_by": card["built_by"]})
    else:
        with new_version(repository, built.role) as staged:
            if built.model is not None:
                shutil.copyfile(built.model, staged.folder / MODEL_FILE)
            staged.serve(built.configurations, card)
    version = served_version(repository, built.role)
    assert version is not None
    return version


def _with_origin(config: ModelConfig, pack: Pack, card: Mapping[str, Any]) -> ModelConfig:
    """Return a configuration that says what the model is to who asks Triton for it: another file has another configuration."""
    origin = {"pack": pack.name, "licence": pack.licence, "model_sha256": str(card["model_sha256"])}
    return replace(config, parameters={**config.parameters, **origin})


def verify_version(version: Version, triton_home: Path) -> Proof | None:
    """Prove an installed version again: its file is the one that was installed, and its batches are real; with its network at hand, all.

    Returns:
        The proof; None for an ensemble, which has nothing to prove but its members.

    Raises:
        UnsuitableModel: it is not, or they are not.
        InvalidOption: it was installed before models were proven.
        StorageError: there is no ONNX Runtime.
    """
    card, path = version.card, version.folder / MODEL_FILE
    if "members" in card and "proof" not in card:
        return None
    if "model_sha256" not in card:
        raise InvalidOption(f"{version.role} {version} was installed before models were proven; install it again.")
    if not path.is_file() or _digest(path) != card["model_sha256"]:
        raise UnsuitableModel(f"{path} is not the file that was installed; install {version.pack} again, or use another version.")
    with OnnxRunner(triton_home) as runner:
        original = Path(card.get("from") or "")
        pack = find_pack(version.pack)
        fit = pack.members.get(str(card.get("file")), pack.fit)
        if fit is not None and original.is_file() and _digest(original) == card.get("sha256"):
            wrapping = fit(read_network(original), PackOptions(**card.get("options", {})))
            return prove(path, wrapping.config, wrapping, runner)
        return prove(path, _config_of(card), None, runner)


@contextmanager
def _file_of(pack: Pack, source: str | None) -> Iterator[Path]:
    if source is not None:
        with local_file(source) as file:
            yield file
    else:
        assert pack.package is not None
        with package_member(*pack.package) as file:
            yield file


def _facts(pack: Pack, config: ModelConfig) -> dict[str, Any]:
    """Return what a card says about any model."""
    return {
        "pack": pack.name,
        "role": config.role,
        "summary": pack.summary,
        "licence": pack.licence,
        "source": pack.source,
        "reads": pack.reads,
        "installed": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [asdict(tensor) for tensor in config.inputs],
        "outputs": [asdict(tensor) for tensor in config.outputs],
        "parameters": dict(config.parameters),
        "max_batch_size": config.max_batch_size,
        "built_by": builder_digest(),
    }


def _config_of(card: Mapping[str, Any]) -> ModelConfig:
    inputs, outputs = (
        tuple(
            Tensor(tensor["name"], tensor["data_type"], tuple(tensor["dims"]), tuple(tuple(shape) for shape in tensor.get("shapes", ())))
            for tensor in card[kind]
        )
        for kind in ("inputs", "outputs")
    )
    return ModelConfig(str(card["role"]), inputs, outputs, int(card["max_batch_size"]), 0, card["parameters"])


def _digest_of(digests: Sequence[str]) -> str:
    return sha256(" ".join(digests).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
