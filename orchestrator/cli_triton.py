"""`lipsync triton`: the embedded Triton alone, in the foreground, for direct model calls."""

import signal
import sys
import time
from contextlib import suppress
from http.client import HTTPException
from types import FrameType
from typing import Annotated

import typer

from deploy.local.server import LocalTriton
from orchestrator.cli_options import DeviceOption, read_settings
from orchestrator.embedded import Serving, SupervisedTriton
from orchestrator.settings import Settings

DRAIN_S = 10.0
"""How long requests in flight get to finish when the program is told to end, s."""

MAX_FAILED_STARTS = 6
"""After so many restarts that failed, over a minute, Triton does not come up any more."""

POLL_S = 0.1
"""How often to look whether the program is told to end, s."""


def triton_command(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="gRPC port, 0 for a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port, 0 for a free one.")] = 8000,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Metrics port, 0 for a free one.")] = 8002,
    device: DeviceOption = None,
) -> None:
    """Run the embedded Triton in the foreground, for direct model calls. It is started again when it dies or hangs."""
    serve_triton(read_settings(device=device, is_service=True), Serving(host, grpc_port, http_port, metrics_port, DRAIN_S))


def serve_triton(settings: Settings, serving: Serving) -> None:
    """Run Triton until SIGINT or SIGTERM, its log on standard error; call it from the main thread.

    Raises:
        InferenceUnavailable: it does not start, or, having died, did not come up again.
        GpuUnavailable: a GPU is expected and cannot be used.
        ContractMismatch: the model repository lacks a role.
    """
    is_serving = is_asked_to_stop = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked_to_stop
        for either in (signal.SIGINT, signal.SIGTERM):
            signal.signal(either, signal.SIG_IGN)  # from here on everything is bounded
        is_asked_to_stop = True
        if not is_serving:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        print("Triton is loading its models ...", file=sys.stderr, flush=True)
        triton = SupervisedTriton(settings, serving, max_failed_starts=MAX_FAILED_STARTS, on_start=_show, on_log=_pass_on)
        try:
            is_serving = True
            while not is_asked_to_stop and triton.failure is None:
                time.sleep(POLL_S)
        finally:
            triton.close()
        if triton.failure is not None and not is_asked_to_stop:
            raise triton.failure
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(server: LocalTriton) -> None:
    print(f"gRPC     {server.grpc_address}\nHTTP     {server.http_address}\nmetrics  {server.metrics_address}/metrics")
    with suppress(OSError, HTTPException):  # it has died already, and is started again
        print(f"models   {', '.join(server.model_names()) or 'none'}", flush=True)


def _pass_on(log: str) -> None:
    print(log, end="", file=sys.stderr, flush=True)
