"""`lipsync tune`: measure what fits this host, and write it down."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli_options import DeviceOption, TritonOption, read_settings
from orchestrator.tuning import ModelTrial, Trial, Tuning, apply, check_places, tune


def tune_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and show, and write nothing.")] = False,
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="How long each configuration of the lip model is called, twice, s.")] = 2.0,
    triton: TritonOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured and chosen as JSON on standard output.")] = False,
) -> None:
    """Measure on this host, and choose: the lip model's batching, TensorRT, the encoder's threads, and how many renders run at a time.

    Run it with nothing else on the machine, and again after another lip model was installed. With a Triton that runs by itself, its models stay as
    they are.
    """
    settings = read_settings(triton, device)
    if not dry_run:
        check_places(settings)
    tuning = tune(settings, seconds, _show)
    if as_json:
        print(json.dumps({**asdict(tuning), "chosen": tuning.chosen.model_dump()}, indent=1))
    else:
        _print(tuning)
    if dry_run:
        return
    for path in apply(settings, tuning):
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"written: {path}", markup=False)


def _show(trial: Trial) -> None:
    if isinstance(trial, ModelTrial):
        what = f"{trial.device}, {trial.batching}"
    else:
        what = f"{trial.encoder_threads} encoder threads, {trial.count} renders at a time, decoding by {trial.decoder}"
    Console(stderr=True, highlight=False).print(f"{what}: {trial.frames_per_s:.1f} frames/s", markup=False)


def _size(trial: ModelTrial) -> str:
    return str(trial.batching.preferred_size or "any size")


def _print(tuning: Tuning) -> None:
    console = Console(highlight=False)
    if tuning.model_trials:
        table = Table("on", "instances", "batches of", "queue delay us", "frames/s", "batch formed", "", show_edge=False, title="lip_sync")
        for trial in tuning.model_trials:
            batching, mark = trial.batching, "chosen" if trial == tuning.model else ""
            figures = [f"{trial.frames_per_s:.1f}", f"{trial.mean_batch:.1f}"]
            table.add_row(trial.device, str(batching.instance_count), _size(trial), str(batching.queue_delay_us), *figures, mark)
        console.print(table)
    else:
        console.print("The lip model keeps its configuration: it is an ensemble, or Triton runs by itself.")
    chosen = tuning.chosen
    table = Table("encoder threads", "renders at a time", "decoding", "frames/s in all", show_edge=False, title=f"720p on {chosen.cores} cores")
    for render in tuning.render_trials:
        table.add_row(str(render.encoder_threads), str(render.count), render.decoder, f"{render.frames_per_s:.1f}")
    console.print(table)
    console.print(
        f"chosen: {chosen.concurrent_renders} renders at a time, with {chosen.encoder_threads} encoder threads each, decoding by {chosen.decoder}"
    )
