"""When jobs start that wait, as far as can be told from those at work and from how long the last ones took."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from statistics import fmean


@dataclass(frozen=True, slots=True)
class AtWork:
    """A job that is rendered now."""

    elapsed_s: float
    left_s: float | None
    """None while there is nothing to go by, which is at its beginning."""


def expected_s(took_s: Sequence[float], at_work: Sequence[AtWork]) -> float | None:
    """Return how long a job takes: as the last ones did; before the first has ended, as those at work will have. None where nothing is known."""
    known = took_s or [job.elapsed_s + job.left_s for job in at_work if job.left_s is not None]
    return fmean(known) if known else None


def start_times(count: int, at_work: Sequence[AtWork], most_at_work: int, each_s: float | None) -> list[float]:
    """Return in how many seconds the first jobs of a queue start, `count` at most; fewer, or none, where it is not known.

    Args:
        count: how many are asked for.
        at_work: jobs whose end makes room. Where several hosts share the queue, those of all.
        most_at_work: jobs that are rendered at a time here.
        each_s: how long a job takes, see `expected_s`.
    """
    places = [0.0] * (most_at_work - len(at_work))
    for job in at_work:
        left_s = each_s if job.left_s is None else job.left_s
        if left_s is None:
            return []
        places.append(left_s)
    heapify(places)
    if each_s is None:
        return places[: min(count, 1)]
    starts: list[float] = []
    while len(starts) < count:
        starts.append(places[0])
        heapreplace(places, places[0] + each_s)
    return starts
