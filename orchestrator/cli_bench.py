"""`lipsync bench`: measure what is here."""

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from orchestrator.cli_options import DeviceOption, TritonOption, read_settings
from orchestrator.cores import available_cores
from orchestrator.embedded import open_triton
from orchestrator.errors import InvalidOption
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import CONTRACTS, OPTIONAL_CONTRACTS, ModelDescription, describe_model, output_of
from orchestrator.inference.golden import golden_inputs
from orchestrator.inference.loadtest import Load, LoadResult, run_load
from orchestrator.inference.metrics import read_metrics
from orchestrator.inference.selftest import role_placement, served_roles
from orchestrator.pipeline.samples import video_samples

SAMPLE_COUNT = 32
"""Different items in the requests, so that nothing measures a cache."""

ROLES = (*CONTRACTS, *OPTIONAL_CONTRACTS)

DEMO_CLIP = Path("demo/clip.mp4")

bench = typer.Typer(help="Measure what is here.", no_args_is_help=True)


@bench.callback()
def _group() -> None:
    """Measure what is here."""


@bench.command("models")
def bench_models(
    role: Annotated[str | None, typer.Argument(help=f"One of {', '.join(ROLES)}; default: each that is served.")] = None,
    concurrency: Annotated[str, typer.Option(metavar="N,N,...", help="Requests outstanding at a time.")] = "1,4,16",
    batch: Annotated[str, typer.Option(metavar="N,N,...", help="Items in a request.")] = "1,8,16",
    shared_memory: Annotated[bool, typer.Option("--shm", help="Tensors through system shared memory; Triton has to run on this host.")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to measure each combination, s.")] = 3.0,
    video: Annotated[Path | None, typer.Option(help="Video to take faces from; default: the demo's clip if there, else a portrait.")] = None,
    triton: TritonOption = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON on standard output.")] = False,
) -> None:
    """Call models directly and print throughput, latency, the batches Triton formed, and its queue and compute time."""
    concurrencies, batches = _numbers("--concurrency", concurrency), _numbers("--batch", batch)
    if role is not None and role not in ROLES:
        raise InvalidOption(f"There is no role {role!r}; give one of {', '.join(ROLES)}.")
    source = video or (DEMO_CLIP if DEMO_CLIP.is_file() else None)
    reports = []
    with open_triton(read_settings(triton, device)) as client:
        server = client.server_name()
        for name in [role] if role else served_roles(client):
            description = describe_model(client, name)
            samples = video_samples(client, description, source, SAMPLE_COUNT) if source else golden_inputs(description, SAMPLE_COUNT)
            results = [
                run_load(client, description, output_of(name), samples, Load(items, outstanding, shared_memory, seconds))
                for items in batches
                if items <= description.max_batch_size
                for outstanding in concurrencies
            ]
            skipped = [items for items in batches if items > description.max_batch_size]
            reports.append(_report(client, description, results, skipped))
            if not as_json:
                _print(reports[-1], results)
    if as_json:
        machine = {"cpu": platform.processor() or platform.machine(), "cores": available_cores(), "system": platform.platform()}
        print(json.dumps({"server": server, "machine": machine, "inputs": str(source or "portrait"), "models": reports}, indent=1))


def _report(client: TritonClient, description: ModelDescription, results: list[LoadResult], skipped: list[int]) -> dict[str, Any]:
    placement = role_placement(client, description.role, read_metrics(client.metrics_address))
    return {
        "role": description.role,
        "pack": description.parameters.get("pack"),
        "version": description.version,
        "device": placement.device,
        "execution_provider": placement.execution_provider,
        "instance_count": placement.instance_count,
        "max_batch_size": description.max_batch_size,
        "skipped_batches": skipped,
        "results": [asdict(result) for result in results],
    }


def _print(report: dict[str, Any], results: list[LoadResult]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{report['role']}: {report['pack'] or 'unknown pack'} version {report['version']}, {report['instance_count']} instance(s) on "
        f"{report['device']}, {report['execution_provider']}, max batch {report['max_batch_size']}",
        markup=False,
    )
    columns = ("batch", "in flight", "items/s", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "batch formed", "queue ms", "compute ms", "failed")
    table = Table(*columns, show_edge=False, pad_edge=False)
    for column in table.columns:
        column.justify = "right"
        column.no_wrap = True
    for result in results:
        latency = (f"{result.latency_ms[name]:.1f}" for name in ("p50", "p90", "p95", "p99"))
        served = (f"{result.mean_batch:.1f}", f"{result.queue_ms:.1f}", f"{result.compute_ms:.1f}", str(result.failed))
        table.add_row(str(result.batch), str(result.concurrency), f"{result.items_per_s:.1f}", *latency, *served)
    Console(highlight=False, width=max(console.width, 120)).print(table)
    for failure in {result.failure for result in results if result.failure}:
        console.print(f"failed: {failure}", markup=False)
    if report["skipped_batches"]:
        console.print(f"skipped batch {', '.join(map(str, report['skipped_batches']))}: above the model's max batch", markup=False)


def _numbers(option: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1 or max(values) > 1024:
        raise InvalidOption(f"{option} takes whole numbers from 1 to 1024 with commas between them, not {text!r}.")
    return values
