"""How far a render is: the stage, its frames, its speed, and what is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["read", "analyse", "render", "finish"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a render."""

    stage: Stage
    done: int
    """Frames of this stage that are finished."""
    total: int
    """Frames of this stage; 0 where that is not known yet."""
    frames_per_s: float
    eta_s: float | None
    """Time left in this stage, s; None while there is nothing to go by."""
    faces_found: int | None = None
    """Source frames that show the speaker's face; None until the analysis is done."""
    passed_through: int = 0
    """Finished output frames that are the source's own."""
    segment_count: int = 0
    """Segments of the output that are complete on disk."""


OnProgress = Callable[[Progress], None]
"""Called on the render's own thread, a few times a second at most. What it raises ends the render."""

MIN_INTERVAL_S = 0.1
"""Time between two calls while frames go by, s."""

MIN_MEASURED_S = 0.01
"""Time below which frames are no speed: they came out of a cache, s."""


class StageClock:
    """Reports one stage's progress and measures it."""

    def __init__(
        self, stage: Stage, total: int, on_progress: OnProgress | None, *, first: int = 0, faces_found: Callable[[], int | None] = lambda: None
    ) -> None:
        """Begin a stage of `total` frames, of which `first` were finished by an earlier attempt; `faces_found` tells what is known by then."""
        self._stage: Stage = stage
        self._total = total
        self._first = first
        self._faces_found = faces_found
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._reported = 0.0
        self._paced: tuple[int, float] | None = None
        self._passed_through = 0
        self._segment_count = 0
        self._report(first)

    def advance(self, done: int, *, passed_through: int = 0, segment_count: int = 0) -> None:
        """Say how many frames are finished."""
        self._passed_through, self._segment_count = passed_through, segment_count
        if time.monotonic() - self._reported >= MIN_INTERVAL_S or done == self._total:
            self._report(done)

    def finish(self, total: int) -> None:
        """Say that the stage is done, with as many frames as it turned out to have."""
        self._total = total
        self._report(total)

    @property
    def elapsed_s(self) -> float:
        """Time since the stage began, s."""
        return time.monotonic() - self._started

    def _report(self, done: int) -> None:
        self._reported = time.monotonic()
        if self._on_progress is None:
            return
        elapsed_s = self.elapsed_s
        speed = (done - self._first) / elapsed_s if done > self._first and elapsed_s >= MIN_MEASURED_S else 0.0
        self._on_progress(
            Progress(self._stage, done, self._total, speed, self._eta_s(done), self._faces_found(), self._passed_through, self._segment_count)
        )

    def _eta_s(self, done: int) -> float | None:
        """Return the time left by the pace since the first frames came: before that decoder, models and encoder fill, which happens once."""
        if self._paced is None and done > self._first:
            self._paced = done, self._reported
        if not self._total or self._paced is None:
            return None
        if done == self._total:
            return 0.0
        frames, paced_s = done - self._paced[0], self._reported - self._paced[1]
        return (self._total - done) * paced_s / frames if frames and paced_s else None
