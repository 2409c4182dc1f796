"""When a source's frames are shown: time stamps made into one clock, and the rate the frames keep or come near to."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

MISSING_PTS = -(2**63)
"""Stands for a frame without time stamp (FFmpeg's AV_NOPTS_VALUE)."""

STANDARD_RATES = tuple(
    Fraction(rate)
    for rate in ("12", "24000/1001", "24", "25", "30000/1001", "30", "48000/1001", "48", "50", "60000/1001", "60", "100", "120000/1001", "120")
)
"""Frame rates that cameras and editors use, Hz."""

MAX_FRAME_RATE = Fraction(240)
"""Above this a rate is one of ticks, not of frames, Hz."""

_DIGITS_HZ = Fraction(6, 1000)
"""How far 29.97, 23.98 or 59.94 are from what they stand for at most, Hz."""

_REDUCED = Fraction(1, 2_000_000)
"""How far, as a share, a header's rate is at most from the standard one it stands for: FFmpeg brings those of Matroska to numerators up to 30 000,
which makes 19001/317 of 59.94 Hz. A header that says 29.97 to the letter is twice as far from 30000/1001, and means what it says."""

SNAP = Fraction(1, 100)
"""How far, as a share, a measured rate may be from a standard one to be taken for it."""

ROUNDING_S = Fraction(1, 1000)
"""How far a frame of a constant rate may be from its place: Matroska and FLV round to milliseconds, and files made from them keep that, s."""

JUMP_BACK_S = Fraction(1)
"""A time stamp this far before the last one begins a new clock: two recordings were joined, s."""

JUMP_AHEAD_S = Fraction(10)
"""In MPEG streams a gap longer than this is a new clock, no pause, s (FFmpeg's dts_delta_threshold)."""

NO_PAUSE_S = Fraction(86_400)
"""In any file such a gap is damage, s."""

_TWINS = 3
"""So many frames in a row without a stamp of their own are counted on; fewer share the time that their stamp left them."""

_PARTS = 64
"""Parts of a tick that are told apart, for frames between two stamps."""


@dataclass(frozen=True, slots=True)
class SourceTimes:
    """When each of a source's frames begins to be shown, from its first one."""

    ticks: NDArray[np.int64]
    """(N,) from 0, never falling."""
    tick_s: Fraction
    frame_rate: Fraction
    """The rate of the greater part of the frames, Hz."""
    is_constant: bool
    """Whether every frame is where that rate puts it, but for rounding."""
    unstamped_count: int = 0
    """Frames without a time of their own in the file."""

    def __len__(self) -> int:
        return len(self.ticks)

    @property
    def duration_s(self) -> Fraction:
        """How long the frames last: the last one as long as most."""
        if self.is_constant:
            return len(self) / self.frame_rate
        return int(self.ticks[-1]) * self.tick_s + 1 / self.frame_rate

    def nearest(self, time_s: Fraction) -> int:
        """Return the frame that begins nearest to a time; behind the end of the last one, the number of frames."""
        if self.is_constant:
            return min(round(time_s * self.frame_rate), len(self))
        edges = np.append(self.ticks, round(self.duration_s / self.tick_s))
        return int(np.abs(edges - round(time_s / self.tick_s)).argmin())

    def shortest_and_longest_s(self) -> tuple[float, float]:
        """Return how long frames are shown, apart from the last one."""
        lengths = np.diff(self.ticks)
        return float(int(lengths.min()) * self.tick_s), float(int(lengths.max()) * self.tick_s)


class FrameClock:
    """Makes time stamps as they come from a decoder into times that never fall.

    A frame without stamp follows the one before by the rate's interval. One with a stamp that is not later than that before comes half-way to
    the next. A stamp far behind begins a new clock.
    """

    def __init__(self, frame_rate: Fraction, time_base: Fraction, may_jump: bool) -> None:
        """Begin.

        Args:
            frame_rate: the header's rate, Hz.
            time_base: of the stamps, s.
            may_jump: whether a long gap is a new clock, as in MPEG streams.
        """
        self.tick_s = time_base / _PARTS
        self._interval = max(1, round(1 / frame_rate / self.tick_s))
        self._back = round(JUMP_BACK_S / self.tick_s)
        self._ahead = round((JUMP_AHEAD_S if may_jump else NO_PAUSE_S) / self.tick_s)
        self._offset: int | None = None
        self._last = -1
        self._next = 0
        self._twins = 0

    def ticks(self, pts: int) -> int:
        """Return when a frame begins to be shown, ticks of `tick_s` from the first frame."""
        stamp = None if pts == MISSING_PTS else pts * _PARTS
        if self._last < 0:
            time = 0
            self._offset = stamp
        elif stamp is None:
            time = self._next
        elif self._offset is None:
            time, self._offset = self._next, stamp - self._next
        else:
            time = stamp - self._offset
            if time < self._last - self._back or time > self._last + self._ahead:
                time, self._offset = self._next, stamp - self._next
            elif time <= self._last:
                self._twins += 1
                if self._twins < _TWINS:
                    self._last += max(1, (self._next - self._last) // 2)
                    return self._last
                self._last, self._next = self._next, self._next + self._interval
                return self._last
        self._twins = 0
        self._last, self._next = time, time + self._interval
        return time


def source_times(pts: NDArray[np.int64], frame_rate: Fraction, time_base: Fraction, may_jump: bool) -> SourceTimes:
    """Return the times of frames in order of presentation.

    Args:
        pts: (N,) time stamps, ticks of `time_base`; `MISSING_PTS` where there is none.
        frame_rate: the header's rate, Hz.
        time_base: s.
        may_jump: see `FrameClock`.
    """
    clock = FrameClock(frame_rate, time_base, may_jump)
    if len(pts) > 1 and pts.min() == pts.max():  # they say nothing: frames are counted
        pts = np.full(len(pts), MISSING_PTS)
    unstamped_count = int(((pts == MISSING_PTS) | (np.diff(pts, prepend=pts[:1] - 1) == 0)).sum())
    ticks = _clean(pts, clock, may_jump)
    if ticks is None:
        ticks = np.array([clock.ticks(int(stamp)) for stamp in pts], np.int64)
    tolerance = float(max(ROUNDING_S, time_base) / clock.tick_s) * 1.01
    for rate in _candidates(ticks, clock.tick_s, frame_rate):
        places = np.arange(len(ticks)) * float(1 / rate / clock.tick_s)
        if not len(ticks) or np.abs(ticks - places).max() <= tolerance:
            return SourceTimes(ticks, clock.tick_s, rate, True, unstamped_count)
    return SourceTimes(ticks, clock.tick_s, _usual_rate(ticks, clock.tick_s, frame_rate), False, unstamped_count)


def standard_rate(rate: Fraction) -> Fraction:
    """Return the standard rate that a measured one is meant to be, or the measured one in smaller numbers."""
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) <= SNAP * nearest else rate.limit_denominator(1001)


def header_rate(rate: Fraction) -> Fraction:
    """Return the standard rate that FFmpeg's fraction of a header stands for, or else the fraction itself."""
    return next((standard for standard in STANDARD_RATES if abs(rate / standard - 1) <= _REDUCED), rate)


def exact_rate(rate: Fraction) -> Fraction:
    """Return the standard rate that a number such as 29.97 or 23.976 stands for, or else the number itself."""
    return next((standard for standard in STANDARD_RATES if standard.denominator > 1 and abs(standard - rate) <= _DIGITS_HZ), rate)


def exact_s(time_s: float) -> Fraction:
    """Return the time that a decimal number of seconds stands for, to the microsecond."""
    return Fraction(time_s).limit_denominator(1_000_000)


def _clean(pts: NDArray[np.int64], clock: FrameClock, may_jump: bool) -> NDArray[np.int64] | None:
    """Return the ticks of stamps that need no repair, None where they do."""
    if len(pts) and pts.min() == MISSING_PTS:
        return None
    steps = np.diff(pts)
    if (steps <= 0).any() or (steps > float((JUMP_AHEAD_S if may_jump else NO_PAUSE_S) / clock.tick_s) / _PARTS).any():
        return None
    return (pts - pts[:1]) * _PARTS


def _candidates(ticks: NDArray[np.int64], tick_s: Fraction, frame_rate: Fraction) -> Iterable[Fraction]:
    yield frame_rate
    if len(ticks) > 1 and ticks[-1]:
        mean = (len(ticks) - 1) / (int(ticks[-1]) * tick_s)
        yield from (rate for rate in (standard_rate(mean), mean.limit_denominator(100), mean) if 0 < rate <= MAX_FRAME_RATE * (1 + SNAP))


def _usual_rate(ticks: NDArray[np.int64], tick_s: Fraction, frame_rate: Fraction) -> Fraction:
    """Return the rate of the frames shown about as long as the middle one of all, standard where it is near; the header's if none lasts."""
    lengths = np.diff(ticks)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return frame_rate
    middle = np.sort(lengths)[len(lengths) // 2]
    usual = lengths[np.abs(lengths - middle) <= max(middle / 20, float(ROUNDING_S / tick_s))]
    mean_s = Fraction(int(usual.sum()), len(usual)) * tick_s
    return max(Fraction(1), min(STANDARD_RATES[-1], standard_rate(1 / mean_s)))
