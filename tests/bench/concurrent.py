"""(e) Several jobs over one: total throughput as the service runs them and all at once, how equal jobs share it, and Triton's batches."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.cores import available_cores
from orchestrator.inference.usage import model_use
from orchestrator.jobs.capacity import renders_by_cores
from orchestrator.media.encoding import Encoding
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
    at_a_time, most = renders_by_cores(available_cores(), Encoding().resolved_thread_count), effort.jobs[-1]
    loads = {f"{count}-jobs": (count, at_a_time) for count in effort.jobs}
    at_once = f"{most}-at-once"
    loads[at_once] = most, most
    runs: dict[str, list[_Run]] = {name: [] for name in loads}
    for _ in range(effort.rounds):
        for name, load in loads.items():
            runs[name].append(_run(bench, size, duration_s, *load))
    base, *others = loads
    for name in others:
        detail = {
            "at_a_time": loads[name][1],
            "frames_per_s": [round(run.frames_per_s, 1) for run in runs[name]],
            "frames_per_s_of_one": [round(run.frames_per_s, 1) for run in runs[base]],
            "mean_batch": round(sum(run.mean_batch for run in runs[name]) / effort.rounds, 2),
            "mean_batch_of_one": round(sum(run.mean_batch for run in runs[base]) / effort.rounds, 2),
        }
        rounds = tuple(many.frames_per_s / one.frames_per_s for many, one in zip(runs[name], runs[base], strict=True))
        target, limit = (None, AT_ONCE_LIMIT) if name == at_once else (1.0, LIMIT)
        yield Figure(f"e/{size}/{name}", rounds, "higher", target, limit, detail)
    yield Figure(f"e/{size}/{at_once}-slowest-over-fastest", tuple(run.slowest_over_fastest for run in runs[at_once]), "lower", None, FAIRNESS_LIMIT)


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
