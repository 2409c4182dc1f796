"""One piece of work in a process of its own, and what it cost that process, as JSON: `python -m tests.bench.once WHAT ARGUMENTS`.

Imports and connecting come before the clocks start; memory is the process's peak, imports included.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.heap import bound_heap
from orchestrator.inference.client import TritonClient
from orchestrator.media.encoding import Encoding
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.tracks import TrackCache
from tests.bench.floor import decode_encode

CACHE_BYTES = 1 << 30


def main() -> None:
    """Do what the command line says and print what it cost."""
    what, arguments = sys.argv[1], json.loads(sys.argv[2])
    bound_heap()
    work: dict[str, Callable[..., dict[str, Any]]] = {"render": _render, "floor": _floor, "script": _script}
    report = work[what](**arguments)
    print(json.dumps({**report, "peak_rss_mb": _peak_rss_mb()}))


def _render(address: str, video: str, speech: str, out: str, preset: str, tracks: str | None = None) -> dict[str, Any]:
    cache = TrackCache(Path(tracks), CACHE_BYTES) if tracks else None
    with TritonClient(address) as client:
        client.is_server_ready()
        measured = _measured(lambda: render(plan_render(Path(video), Path(speech), Path(out), RenderOptions(preset=preset)), client, tracks=cache))
    Path(out).unlink()
    return measured


def _floor(video: str, speech: str, out: str, preset: str, frame_count: int) -> dict[str, Any]:
    measured = _measured(lambda: decode_encode(Path(video), Path(speech), Path(out), Encoding(preset=preset), frame_count))
    Path(out).unlink()
    return measured


def _script(model: str, video: str, speech: str, boxes: str, out: str, preset: str) -> dict[str, Any]:
    from tests.bench.script import run_script  # in the other processes its ONNX Runtime would count as memory of the product

    measured = _measured(lambda: run_script(Path(model), Path(video), Path(speech), Path(boxes), Path(out), preset))
    Path(out).unlink()
    return measured


def _measured(work: Callable[[], object]) -> dict[str, Any]:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    work()
    return {"wall_s": time.perf_counter() - began_s, "cpu_s": time.process_time() - began_cpu_s}


def _peak_rss_mb() -> float:
    """Return the peak of this program; getrusage's would be the starting process's where that is larger."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
