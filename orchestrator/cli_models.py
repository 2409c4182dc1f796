"""`lipsync models list | install | verify | card | use | remove`: the models in the repository."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from orchestrator.cli_options import read_settings
from orchestrator.errors import InvalidOption
from orchestrator.models.config import CONFIG_FILES, max_batch_size_of
from orchestrator.models.install import install_pack, is_outdated, use_installed, verify_version
from orchestrator.models.options import PackOptions
from orchestrator.models.packs import DEFAULT_PACKS, PACKS, find_pack
from orchestrator.models.repository import Version, find_version, installed_roles, read_versions, remove_role, served_version
from orchestrator.settings import Settings

models = typer.Typer(help="Models in the repository.", no_args_is_help=True)


@models.callback()
def _group() -> None:
    """Models in the repository."""
    read_settings()  # which warns


@models.command("install")
def models_install(
    packs: Annotated[list[str] | None, typer.Argument(help="Packs to install; default: one for every role a render needs.")] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FILE|URL", help="The published ONNX file, or the folder of several."),
    ] = None,
    digest: Annotated[str | None, typer.Option("--sha256", help="Digest the file must have.")] = None,
    size_px: Annotated[int | None, typer.Option("--size", help="Side of the square input, px, for networks that take any.")] = None,
    colour: Annotated[str | None, typer.Option(help="rgb or bgr: order of a lip network's channels, where it is not the usual one.")] = None,
    weight: Annotated[float | None, typer.Option(help="Strength of networks that have one, 0 to 1.")] = None,
    missing_only: Annotated[
        bool, typer.Option("--missing", help="Leave roles alone that have a model, unless this program would build it differently by now.")
    ] = False,
) -> None:
    """Build models into the repository, each proven before Triton can see it."""
    settings = Settings()
    chosen = [find_pack(name) for name in packs or DEFAULT_PACKS]
    if len(chosen) != 1 and (source is not None or digest is not None):
        raise InvalidOption("A file belongs to one pack; name exactly one with --from or --sha256.")
    for pack in chosen:
        before = served_version(settings.model_repository, pack.role)
        if missing_only and before is not None and not (before.pack == pack.name and is_outdated(before, settings.model_repository)):
            continue
        options = PackOptions(size_px=size_px, colour=colour, weight=weight)
        for version in install_pack(pack, settings.model_repository, settings.triton_home, source, digest, options):
            proof = version.card.get("proof")
            print(f"{version.role}: {version}, {'an ensemble' if proof is None else 'proven in batches of ' + ', '.join(map(str, proof['batches']))}")
            for note in _notes(version.card):
                print(f"  {note}")
        if missing_only and before is not None:
            if version.number == before.number:
                print(f"  Unchanged: this version of the program makes {before} as it is.")
            else:
                print(f"  Made anew: {before} is of another version of this program; `lipsync models use {before}` goes back to it.")


@models.command("list")
def models_list() -> None:
    """List the packs, and the versions installed; * is served."""
    repository = Settings().model_repository
    for pack in PACKS.values():
        file = "--from FOLDER" if pack.members else "--from FILE" if pack.needs_file else ""
        print(f"{pack.name:13}{pack.role:16}{file:15}{pack.summary}; licence: {pack.licence}")
    for role in installed_roles(repository):
        print(f"\n{role}")
        for version in read_versions(repository, role):
            mark = "*" if version.is_served else " "
            print(f"{mark} {version!s:18}{version.card.get('installed', ''):27}{version.card.get('file', '')}")
            if version.is_served and is_outdated(version, repository):
                print(f"  Outdated: made by another version of this program; `lipsync models install --missing {version.pack}` makes it anew.")


@models.command("verify")
def models_verify(role: Annotated[str | None, typer.Argument(help="Role to verify; default: all.")] = None) -> None:
    """Prove the models that are served again."""
    settings = Settings()
    for name in [role] if role else installed_roles(settings.model_repository):
        version = _served(name)
        proof = verify_version(version, settings.triton_home)
        if proof is None:
            print(f"{name}: {version} is an ensemble of {', '.join(version.card['members'])}")
            continue
        against = "" if proof.reference_difference is None else f", against its network {proof.reference_difference:.2g}"
        print(f"{name}: {version} is sound (items of a batch apart {proof.batch_difference:.2g}{against}; {proof.runtime})")


@models.command("card")
def models_card(
    role: Annotated[str, typer.Argument(help="Role, or PACK/VERSION.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a model is: shapes, ranges, template, licence, source, digest, proof."""
    version = _served(role) if role in installed_roles(Settings().model_repository) else find_version(Settings().model_repository, role)
    if as_json:
        print(json.dumps(dict(version.card), indent=1, ensure_ascii=False))
        return
    width = max(map(len, version.card))
    for name, value in version.card.items():
        if shown := _text(value):
            print(f"{name:{width}}  {shown}{_on_cpu(version) if name == 'max_batch_size' else ''}")


@models.command("use")
def models_use(name: Annotated[str, typer.Argument(metavar="PACK[/VERSION]", help="An installed model, as `models list` shows it.")]) -> None:
    """Serve another installed version, from the next start of Triton on: the way back in one command."""
    repository = Settings().model_repository
    for version in use_installed(repository, find_version(repository, name)):
        print(f"{version.role}: {version}")


@models.command("remove")
def models_remove(role: Annotated[str, typer.Argument(help="An optional role, as `models list` shows it.")]) -> None:
    """Take an optional role's model out of the repository, with all its versions."""
    remove_role(Settings().model_repository, role)
    print(f"{role}: removed")


def _on_cpu(version: Version) -> str:
    """Return what a CPU takes where that is another batch than the card's, which is a GPU's."""
    file = version.folder / CONFIG_FILES["cpu"]
    size = max_batch_size_of(file.read_text()) if file.is_file() else None
    return "" if size in (None, version.card["max_batch_size"]) else f" (on a CPU {size})"


def _served(role: str) -> Version:
    version = served_version(Settings().model_repository, role)
    if version is None:
        raise InvalidOption(f"No model fills {role!r} in {Settings().model_repository}; `lipsync models list` shows what there is.")
    return version


def _notes(card: Mapping[str, Any]) -> list[str]:
    """Return what an operator should know about a model that was just installed."""
    notes = []
    if card["batching"] != "items together":
        notes.append(f"Its batches run {card['batching']}.")
    if card["parameters"].get("landmarks") == "none":
        notes.append("It finds no landmarks: install a face_landmarks model (pfld98 or facemesh468) too, or renders are refused.")
    if card.get("file") and not card.get("known_as"):
        notes.append(f"The file is not one this project knows by its digest; its licence is yours to check (published: {card['licence']}).")
    return notes


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown}" for key, item in value.items() if (shown := _text(item)))
    if isinstance(value, list):
        return (
            ", ".join(_text(item) for item in value) if all(isinstance(item, (str, int, float)) for item in value) else "; ".join(map(_text, value))
        )
    return "" if value is None else str(value)
