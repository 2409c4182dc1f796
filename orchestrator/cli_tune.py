"""`lipsync tune`: measure what fits this host, and write it down."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli_options import DeviceOption, read_settings
from orchestrator.tuning import ModelTrial, RenderTrial, Tuning, apply, tune


def tune_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and show, and write nothing.")] = False,
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="How long each configuration of the lip model is called, s.")] = 3.0,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured and chosen as JSON on standard output.")] = False,
) -> None:
    """Measure on this host, with a Triton of its own, and choose: the lip model's instances and queue delay, and how many renders run at a time.

    Run it with nothing else on the machine, and again after another lip model was installed.
    """
    settings = read_settings(None, device)
    tuning = tune(settings, seconds, _show)
    if as_json:
        print(json.dumps(asdict(tuning), indent=1))
    else:
        _print(tuning)
    if dry_run:
        return
    for path in apply(settings, tuning):
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"written: {path}", markup=False)


def _show(trial: ModelTrial | RenderTrial) -> None:
    what = f"{trial.instance_count} instances, {trial.queue_delay_us} us" if isinstance(trial, ModelTrial) else f"{trial.count} renders at a time"
    Console(stderr=True, highlight=False).print(f"{what}: {trial.frames_per_s:.1f} frames/s", markup=False)


def _print(tuning: Tuning) -> None:
    console = Console(highlight=False)
    if tuning.model_trials:
        table = Table("instances", "queue delay us", "frames/s", "batch formed", "", show_edge=False, title=f"lip_sync on {tuning.device}")
        for trial in tuning.model_trials:
            mark = "chosen" if trial == tuning.model else ""
            table.add_row(str(trial.instance_count), str(trial.queue_delay_us), f"{trial.frames_per_s:.1f}", f"{trial.mean_batch:.1f}", mark)
        console.print(table)
    else:
        console.print("The lip model is an ensemble: its members keep their configurations.")
    table = Table("renders at a time", "frames/s in all", show_edge=False, title=f"720p on {tuning.cores} cores")
    for render in tuning.render_trials:
        table.add_row(str(render.count), f"{render.frames_per_s:.1f}")
    console.print(table)
    console.print(f"chosen: {tuning.concurrent_renders} renders at a time")
