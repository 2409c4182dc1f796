"""(e) Several jobs at a time over one: total throughput, how equal jobs share it, and the batches that Triton makes of their requests."""

import threading
import time
from collections.abc import Iterator

from orchestrator.inference.usage import model_use
from orchestrator.pipeline.options import RenderOptions
from tests.bench.media import FRAME_RATE
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench

LIMIT = "One job already fills the cores, so N can only keep its throughput; on a GPU larger batches raise it until the encoders fill the cores."
FAIRNESS_LIMIT = "1 would be jobs that end at the same moment."


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure each number of jobs; the first is the base."""
    effort = bench.effort
    size, duration_s = effort.sizes[-1], max(1, effort.clip_s // 2)
    bench.render(bench.client, bench.media.video(size, duration_s), bench.media.speech(duration_s), RenderOptions(preset="ultrafast"))
    speeds: dict[int, list[float]] = {count: [] for count in effort.jobs}
    fairness: dict[int, list[float]] = {count: [] for count in effort.jobs}
    batches: dict[int, list[float]] = {count: [] for count in effort.jobs}
    for _ in range(effort.rounds):
        for count in effort.jobs:
            before = model_use(bench.client, "lip_sync")
            elapsed_s, each_s = _run(bench, size, duration_s, count)
            speeds[count].append(count * duration_s * FRAME_RATE / elapsed_s)
            fairness[count].append(max(each_s) / min(each_s))
            batches[count].append(model_use(bench.client, "lip_sync").since(before).mean_batch)
    base = effort.jobs[0]
    for count in effort.jobs[1:]:
        detail = {
            "frames_per_s": [round(speed, 1) for speed in speeds[count]],
            "frames_per_s_of_one": [round(speed, 1) for speed in speeds[base]],
            "mean_batch": round(sum(batches[count]) / len(batches[count]), 2),
            "mean_batch_of_one": round(sum(batches[base]) / len(batches[base]), 2),
        }
        rounds = tuple(many / one for many, one in zip(speeds[count], speeds[base], strict=True))
        yield Figure(f"e/{size}/{count}-jobs", rounds, "higher", 1.0, LIMIT, detail)
    most = effort.jobs[-1]
    yield Figure(f"e/{size}/{most}-jobs-slowest-over-fastest", tuple(fairness[most]), "lower", None, FAIRNESS_LIMIT)


def _run(bench: Workbench, size: str, duration_s: int, count: int) -> tuple[float, list[float]]:
    """Run equal jobs at the same time; returns the time until all were done and each one's own, s."""
    each_s: list[float] = []
    video, speech = bench.media.video(size, duration_s), bench.media.speech(duration_s)
    began = time.perf_counter()

    def job(index: int) -> None:
        bench.render(bench.client, video, speech, RenderOptions(preset="ultrafast"), f"job-{index}")
        each_s.append(time.perf_counter() - began)

    threads = [threading.Thread(target=job, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(each_s) < count:
        raise RuntimeError(f"only {len(each_s)} of {count} jobs were completed")
    return time.perf_counter() - began, each_s
