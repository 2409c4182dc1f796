"""The output's clock: when each of its frames begins, counted at a constant rate or given one by one."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class OutputClock:
    """When the frames of an output are shown. Encoders count frames; this is what their numbers mean."""

    frame_rate: Fraction
    """Constant, or where `starts` says otherwise the rate of most frames, Hz."""
    time_base: Fraction
    """Length of a tick, s."""
    starts: NDArray[np.int64] | None = None
    """(N + 1,) ticks at which the frames begin and the last one ends, rising from 0; None counts them, one a tick."""

    @staticmethod
    def constant(frame_rate: Fraction) -> "OutputClock":
        """Return the clock of a constant rate."""
        return OutputClock(frame_rate, 1 / frame_rate)

    def tick(self, frame: int) -> int:
        """Return when a frame begins, ticks. Frames before the first and behind the last keep the rate's distance."""
        if self.starts is None:
            return frame
        step = max(1, round(1 / self.frame_rate / self.time_base))
        last = len(self.starts) - 1
        return int(self.starts[min(max(frame, 0), last)]) + step * (min(frame, 0) + max(frame - last, 0))

    def nearest(self, time_s: Fraction) -> int:
        """Return the frame that begins nearest to a time."""
        ticks = time_s / self.time_base
        if self.starts is None:
            return round(ticks)
        after = int(np.searchsorted(self.starts, ceil(ticks)))
        return max(0, after - 1 if 2 * ticks < self.tick(after - 1) + self.tick(after) else after)

    def lag_ticks(self, delay_frames: int) -> int:
        """Return by how much a frame's decoding time comes before the showing time of the frame with the same number, ticks.

        The same for all frames, so that segments meet, and enough for none to be shown before it is decoded.
        """
        if self.starts is None or not delay_frames:
            return delay_frames
        return max(self.tick(delay_frames), int((self.starts[delay_frames:] - self.starts[:-delay_frames]).max(initial=0)))

    def time_s(self, frame: int) -> Fraction:
        """Return when a frame begins, exactly, s."""
        return self.tick(frame) * self.time_base
