"""When jobs start that wait, as far as can be told from those at work, from how long the last ones took, and from how long each will be."""

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
    frame_count: int | None = None
    """Frames of its output; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Took:
    """How long a job took."""

    seconds: float
    frame_count: int | None
    """Frames of its output; None where that is not known."""


class Pace:
    """How long jobs take here."""

    def __init__(self, ended: Sequence[Took], at_work: Sequence[AtWork]) -> None:
        """Go by the last jobs; before the first has ended, by those at work."""
        known = ended or [Took(job.elapsed_s + job.left_s, job.frame_count) for job in at_work if job.left_s is not None]
        counted = [(took.seconds, took.frame_count) for took in known if took.frame_count]
        frame_count = sum(count for _, count in counted)
        self._frame_s = sum(seconds for seconds, _ in counted) / frame_count if frame_count else None
        self._job_s = fmean(took.seconds for took in known) if known else None

    def seconds(self, frame_count: int | None) -> float | None:
        """Return how long a job of so many frames takes; where their number is not known, as long as jobs took so far. None: nothing is known."""
        return self._job_s if frame_count is None or self._frame_s is None else frame_count * self._frame_s


def start_times(waiting: Sequence[int | None], at_work: Sequence[AtWork], most_at_work: int, pace: Pace) -> list[float]:
    """Return in how many seconds the jobs of a queue start; of the first ones only, or of none, where it is not known.

    Args:
        waiting: frames of each job, first in line first; None where that is not known.
        at_work: jobs whose end makes room. Where several hosts share the queue, those of all.
        most_at_work: jobs that are rendered at a time here.
        pace: how long jobs take.
    """
    places = [0.0] * (most_at_work - len(at_work))
    for job in at_work:
        left_s = pace.seconds(job.frame_count) if job.left_s is None else job.left_s
        if left_s is None:
            return []
        places.append(left_s)
    heapify(places)
    starts: list[float] = []
    for frame_count in waiting:
        starts.append(places[0])
        seconds = pace.seconds(frame_count)
        if seconds is None:
            break
        heapreplace(places, places[0] + seconds)
    return starts
