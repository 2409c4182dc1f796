"""(e) Several jobs over one: total throughput as the service runs them and all at once, how equal jobs share it, and Triton's batches."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.cores import available_cores
from orchestrator.inference.usage import model_use
from orchestrator.jobs.capacity import renders_by_cores
from orchestrator.pipeline.options import RenderOptions
from tests.bench.media import FRAME_RATE
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench

LIMIT = (
    "Jobs that come together, as many at a time as the service renders on so many cores. One job already fills the cores, so N can only keep its "
    "throughput and fill the gaps at its beginning and end; on a GPU larger batches raise it until the encoders fill the cores."
)
AT_ONCE_LIMIT = "As above, but with every job running from the start: what is lost is what their encoders take from each other's caches."
FAIRNESS_LIMIT = "All jobs at once; 1 would be jobs that end at the same moment."


@dataclass(frozen=True, slots=True)
class _Run:
    frames_per_s: float
    """Of all jobs together."""
    slowest_over_fastest: float
    mean_batch: float


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure each number of jobs; the first is the base."""
    effort = bench.effort
    size, duration_s = effort.sizes[-1], max(1, effort.clip_s // 2)
    bench.render(bench.client, bench.media.video(size, duration_s), bench.media.speech(duration_s), RenderOptions(preset="ultrafast"))
    base, *counts = effort.jobs
    most, at_a_time = effort.jobs[-1], renders_by_cores(available_cores())
    runs: dict[str, list[_Run]] = {}
    for _ in range(effort.rounds):
        for count in effort.jobs:
            runs.setdefault(f"{count}-jobs", []).append(_run(bench, size, duration_s, count, at_a_time))
        runs.setdefault(f"{most}-at-once", []).append(_run(bench, size, duration_s, most, most))
    alone = runs[f"{base}-jobs"]
    for name in (*(f"{count}-jobs" for count in counts), f"{most}-at-once"):
        detail = {
            "frames_per_s": [round(run.frames_per_s, 1) for run in runs[name]],
            "frames_per_s_of_one": [round(run.frames_per_s, 1) for run in alone],
            "mean_batch": round(sum(run.mean_batch for run in runs[name]) / effort.rounds, 2),
            "mean_batch_of_one": round(sum(run.mean_batch for run in alone) / effort.rounds, 2),
        }
        rounds = tuple(many.frames_per_s / one.frames_per_s for many, one in zip(runs[name], alone, strict=True))
        if name == f"{most}-at-once":
            yield Figure(f"e/{size}/{name}", rounds, "higher", None, AT_ONCE_LIMIT, detail)
        else:
            yield Figure(f"e/{size}/{name}", rounds, "higher", 1.0, LIMIT, {"at_a_time": at_a_time, **detail})
    fairness = tuple(run.slowest_over_fastest for run in runs[f"{most}-at-once"])
    yield Figure(f"e/{size}/{most}-at-once-slowest-over-fastest", fairness, "lower", None, FAIRNESS_LIMIT)


def _run(bench: Workbench, size: str, duration_s: int, count: int, at_a_time: int) -> _Run:
    """Render equal jobs that come at the same time."""
    video, speech = bench.media.video(size, duration_s), bench.media.speech(duration_s)
    before = model_use(bench.client, "lip_sync")
    began = time.perf_counter()

    def job(index: int) -> float:
        bench.render(bench.client, video, speech, RenderOptions(preset="ultrafast"), f"job-{index}")
        return time.perf_counter() - began

    with ThreadPoolExecutor(at_a_time) as pool:
        each_s = list(pool.map(job, range(count)))
    return _Run(
        frames_per_s=count * duration_s * FRAME_RATE / max(each_s),
        slowest_over_fastest=max(each_s) / min(each_s),
        mean_batch=model_use(bench.client, "lip_sync").since(before).mean_batch,
    )
