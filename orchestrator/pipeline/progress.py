"""How far a render is: the stage, its frames, its speed, and what is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["read", "analyse", "render"]


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


OnProgress = Callable[[Progress], None]
"""Called on the render's own thread, a few times a second at most. What it raises ends the render: that is how a render is cancelled."""

MIN_INTERVAL_S = 0.1
"""Time between two calls while frames go by, s."""


class StageClock:
    """Reports one stage's progress and measures it."""

    def __init__(self, stage: Stage, total: int, on_progress: OnProgress | None) -> None:
        self._stage: Stage = stage
        self._total = total
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._reported = 0.0
        self._report(0)

    def advance(self, done: int) -> None:
        """Say how many frames are finished."""
        if time.monotonic() - self._reported >= MIN_INTERVAL_S or done == self._total:
            self._report(done)

    @property
    def elapsed_s(self) -> float:
        """Time since the stage began, s."""
        return time.monotonic() - self._started

    def _report(self, done: int) -> None:
        self._reported = time.monotonic()
        if self._on_progress is None:
            return
        elapsed_s = self.elapsed_s
        speed = done / elapsed_s if elapsed_s > 0 else 0.0
        eta_s = (self._total - done) / speed if speed and self._total else None
        self._on_progress(Progress(self._stage, done, self._total, speed, eta_s))
