"""`lipsync doctor`: is everything there, does it work, and where does it run?"""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.local.gpu import gpu_expected
from deploy.local.home import open_home
from orchestrator.cli_options import DeviceOption, TritonOption, read_settings
from orchestrator.embedded import embedded_device, open_triton, usable_gpus, wanted_device
from orchestrator.errors import GpuUnavailable, RenderError
from orchestrator.inference.selftest import RoleStatus, SelfTest, self_test
from orchestrator.media.encoders import nvenc_problem
from orchestrator.media.formats import CODECS
from orchestrator.media.nvdec import chosen_decoder, nvdec_problem
from orchestrator.models.install import is_outdated
from orchestrator.models.repository import installed_roles, missing_roles, served_version
from orchestrator.settings import Settings

PIPED_COLUMNS = 200
"""Width of the table where no terminal says its own."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def doctor_command(
    triton: TritonOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON on standard output.")] = False,
) -> None:
    """Check GPU, Triton and every model. Shows where each runs and how fast; the exit status is 1 if something is wrong."""
    settings = read_settings(triton, device)
    checks = [*check_host(settings), check_nvenc(), check_nvdec(settings)]
    found: SelfTest | None = None
    if all(check.ok for check in checks):
        check, found = check_models(settings)
        checks.append(check)
    checks.insert(0, check_data(settings))  # which keeps no model from being tested
    ok = all(check.ok for check in checks)
    if as_json:
        print(json.dumps({"ok": ok, "checks": [asdict(check) for check in checks], "triton": asdict(found) if found else None}, indent=1))
    else:
        _print(checks, found)
    raise typer.Exit(0 if ok else 1)


def check_host(settings: Settings) -> list[Check]:
    """Look at what the embedded Triton needs; with a Triton elsewhere there is nothing to look at here."""
    if settings.triton:
        return [Check("host", True, f"models run on the Triton at {settings.triton}; it is asked for {settings.device}")]
    home = open_home(settings.triton_home)
    missing = missing_roles(settings.model_repository)
    return [
        _check_gpu(settings),
        Check("embedded Triton", True, str(home.root))
        if home
        else Check("embedded Triton", False, f"there is none in {settings.triton_home}; run `make setup`"),
        Check("model repository", True, f"{settings.model_repository}{outdated_models(settings.model_repository)}")
        if not missing
        else Check("model repository", False, f"{settings.model_repository} lacks {' and '.join(missing)}; run `lipsync models install`"),
    ]


def check_data(settings: Settings) -> Check:
    """Look whether jobs and results can be written; the folder is made when something is."""
    folder = settings.data
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check("data folder", False, f"{folder} cannot be written; check {there} and its owner, or set LIPSYNC_DATA to another folder")
    free_bytes, floor_bytes = shutil.disk_usage(there).free, settings.free_space_floor_bytes
    if free_bytes < floor_bytes:
        return Check("data folder", False, f"{folder} has {free_bytes / 1e9:.1f} GB of space left, less than {floor_bytes / 1e9:.1f}; free some")
    return Check("data folder", True, f"{folder}, {free_bytes / 1e9:.1f} GB of space left")


def outdated_models(repository: Path) -> str:
    """Name the models that this program made and would make differently by now; they work as they did."""
    served = [version for role in installed_roles(repository) if (version := served_version(repository, role)) is not None]
    outdated = [version for version in served if is_outdated(version, repository)]
    if not outdated:
        return ""
    packs = " ".join(version.pack for version in outdated)
    names = " and ".join(map(str, outdated))
    return f"; outdated, made by another version of this program: {names}; `lipsync models install --missing {packs}` makes them anew"


def check_nvenc() -> Check:
    """Try NVENC; a machine that has none is as good, since nothing needs it."""
    found = {encoder.name: nvenc_problem(encoder) for codec in CODECS.values() if (encoder := codec.nvenc) is not None}
    works = [name for name, problem in found.items() if problem is None]
    lacking = "; ".join(f"{name}: {problem}" for name, problem in found.items() if problem is not None)
    return Check("NVENC", True, " and ".join(part for part in (works and f"{', '.join(works)} encode", lacking and f"not there ({lacking})") if part))


def check_nvdec(settings: Settings) -> Check:
    """Try NVDEC, and say what decodes; a machine that has none is as good where nobody asked for it."""
    problem = nvdec_problem()
    found = "decodes" if problem is None else f"not there ({problem})"
    try:
        return Check("NVDEC", True, f"{found}; videos are decoded by {chosen_decoder(settings)}")
    except GpuUnavailable as exc:
        return Check("NVDEC", False, str(exc))


def check_models(settings: Settings) -> tuple[Check, SelfTest | None]:
    """Start or reach Triton and test every role."""
    began = time.perf_counter()
    try:
        with open_triton(settings) as client:
            found = self_test(client, wanted_device(settings))
            duration_s = time.perf_counter() - began
    except RenderError as exc:
        return Check("models", False, f"{exc.code}: {exc}"), None
    return Check("models", True, f"{', '.join(found.roles)} passed on {found.server}, {duration_s:.1f} s"), found


def _check_gpu(settings: Settings) -> Check:
    sign, device = gpu_expected(), embedded_device(settings)
    if settings.device == "cpu":
        return Check("GPU", True, "the CPU is asked for" + (f", though {sign} shows a GPU" if sign else ""))
    if device == "cpu":
        return Check("GPU", True, "nothing shows an NVIDIA GPU: models run on the CPU")
    home = open_home(settings.triton_home)
    if home is None:
        return Check("GPU", False, f"{sign or device}: not checked, there is no embedded Triton; run `make setup DEVICE={device}`")
    try:
        gpus = usable_gpus(settings, home)
    except GpuUnavailable as exc:
        return Check("GPU", False, str(exc))
    chosen = " as `lipsync tune` chose" if settings.device == "auto" else ""
    means = f", with TensorRT{chosen}" if device == "tensorrt" else ""
    return Check("GPU", True, ", ".join(gpu.described for gpu in gpus) + means)


_ROWS: tuple[tuple[str, Callable[[RoleStatus], Any]], ...] = (
    ("pack", lambda role: role.pack or "unknown"),
    ("licence", lambda role: role.licence or "unknown"),
    ("version", lambda role: role.version),
    ("device", lambda role: f"{role.device} ({', '.join(role.instance_kinds)})"),
    ("execution provider", lambda role: role.execution_provider),
    ("  known how", lambda role: role.provider_source),
    (
        "  operators",
        lambda role: ", ".join(f"{count} {name.removesuffix('ExecutionProvider')}" for name, count in role.operators.items()) or "unknown",
    ),
    ("instances", lambda role: role.instance_count),
    ("max batch", lambda role: role.max_batch_size),
    ("ms an item, batch 1", lambda role: f"{role.ms_per_item_batch_1:.2f}"),
    ("ms an item, largest request", lambda role: f"{role.ms_per_item_batch_max:.2f} (batch {role.test_batch_size})"),
    ("batches by Triton's count", lambda role: role.execution_count),
    ("notes", lambda role: "; ".join(role.notes) or "none"),
)


def _print(checks: list[Check], found: SelfTest | None) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for check in checks:
        console.print(f"{'[green]ok[/]  ' if check.ok else '[red]FAIL[/]'} {check.name}: ", end="")
        console.print(check.detail, markup=False)
    if found is None:
        return
    table = Table(title=None, show_edge=False, pad_edge=False)
    table.add_column("")
    for role in found.roles:
        table.add_column(role, overflow="fold")
    for label, value in _ROWS:
        table.add_row(label, *(str(value(role)) for role in found.roles.values()))
    # Into a file or a pipe, as wide as its words: rich would fold them into 80 columns.
    Console(highlight=False, width=None if console.is_terminal else PIPED_COLUMNS).print(table, markup=False)
    for gpu, share in found.gpu_utilisation.items():
        console.print(f"{gpu}: utilisation up to {share:.0%} during the test", markup=False)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
