"""(f) Time from a render's beginning until its first segment can be played, s: everything warm, the analysis cached or not."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench

LIMIT = "Decoding and encoding the first segment's frames, by the floor's speed; with a video that is new also finding the faces on them."
POLL_S = 0.005


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure both with the default preset at the largest size."""
    size = bench.effort.sizes[0]
    duration_s = max(2, bench.effort.clip_s // 2)
    video, speech = bench.media.video(size, duration_s), bench.media.speech(duration_s)
    bench.render(bench.client, video, speech, RenderOptions(preset="ultrafast"))
    for name, cached in (("cached", True), ("new-video", False)):
        times = tuple(_first_segment_s(bench, video, speech, cached) for _ in range(bench.effort.rounds))
        yield Figure(f"f/{size}/{name}-s", times, "lower", 1.5, LIMIT, {"clip_s": duration_s})


def _first_segment_s(bench: Workbench, video: Path, speech: Path, cached: bool) -> float:
    folder = bench.folder / "segments"
    first, seen, ended = folder / "00000.mp4", [0.0], threading.Event()
    began = time.perf_counter()

    def watch() -> None:
        while not first.exists() and not ended.wait(POLL_S):
            pass
        seen[0] = time.perf_counter() - began

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        plan = plan_render(video, speech, bench.folder / "f.mp4")
        render(plan, bench.client, tracks=bench.tracks if cached else None, segments=folder)
    finally:
        ended.set()
        watcher.join()
        shutil.rmtree(folder)
    return seen[0]
