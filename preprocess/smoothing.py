"""Tracks with their short gaps closed and their points smoothed, handed out as soon as they can no longer change."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_GAP_S = 0.4
"""Longest time without a detection that is bridged by interpolation (a hand, a blur), s. What is longer passes through unedited."""

SMOOTHING_S = 0.08
"""Standard deviation of the Gaussian over time that takes out the detector's jitter, s. It looks both ways, so nothing lags."""


def max_gap_frames(frame_rate: float) -> int:
    """Return `MAX_GAP_S` in frames, at least one."""
    return max(1, round(MAX_GAP_S * frame_rate))


@dataclass(frozen=True, slots=True)
class SeenFace:
    """A face of a frame."""

    track: int
    box_xyxy: NDArray[np.float64]
    """(4,), px of the coded frame, not smoothed."""
    score: float
    points: NDArray[np.float32]
    """(5 + M, 2), five landmarks and the lower face's outline, px of the coded frame, smoothed."""

    @property
    def area(self) -> float:
        """Of the box, px², at least 1."""
        width, height = self.box_xyxy[2:] - self.box_xyxy[:2]
        return float(max(width * height, 1.0))


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """The faces of a frame, by track number."""

    index: int
    starts_shot: bool
    """Whether it follows a cut, or is the first frame."""
    faces: dict[int, SeenFace]


class TrackSmoother:
    """Turns linked detections into smoothed faces, as soon as what comes cannot change them. Nothing reaches over a cut."""

    def __init__(self, frame_rate: float) -> None:
        self._max_gap = max_gap_frames(frame_rate)
        self._sigma = SMOOTHING_S * frame_rate
        self._reach = int(np.ceil(3 * self._sigma))
        self.usual_look_ahead = self._reach + 1
        """Frames that are known behind one before its faces are final, where nobody is out of sight."""
        self.look_ahead = self.usual_look_ahead + self._max_gap
        """As many at most."""
        self._tracks: dict[int, _Span] = {}
        self._given = self._known = 0
        self._starts_shot = True

    def push(self, rows: NDArray[np.float32], numbers: list[int]) -> Iterator[SeenFrame]:
        """Take the next frame's (n, 15 + 2 M) detections and the track of each; yield the frames that are final now."""
        for row, number in zip(rows, numbers, strict=True):
            if number in self._tracks:
                self._tracks[number].append(self._known, row)
            else:
                self._tracks[number] = _Span(self._known, row)
        self._known += 1
        while self._given < self._known and self._is_settled(self._given):
            yield self._give()

    def cut(self, starts_shot: bool = True) -> Iterator[SeenFrame]:
        """End every track: yield the frames that are left. Then comes a new shot, or only a jump in the same one."""
        while self._given < self._known:
            yield self._give()
        self._tracks = {}
        self._starts_shot = self._starts_shot or starts_shot

    def _is_settled(self, frame: int) -> bool:
        """Tell whether a frame's faces are known for good: each track of it reaches far enough behind it, or has ended."""
        return all(span.first > frame or span.last > frame + self._reach or self._known - span.last > self._max_gap for span in self._tracks.values())

    def _give(self) -> SeenFrame:
        frame = self._given
        faces = {
            number: span.face(number, frame, self._reach, self._sigma) for number, span in self._tracks.items() if span.first <= frame <= span.last
        }  # fmt: skip
        for number in [number for number, span in self._tracks.items() if span.last <= frame and self._known - span.last > self._max_gap]:
            del self._tracks[number]
        for span in self._tracks.values():
            span.forget(frame - self._reach - 2)
        seen = SeenFrame(frame, self._starts_shot, faces)
        self._given, self._starts_shot = frame + 1, False
        return seen


class _Span:
    """One track from its first detection to its last one so far, without gaps."""

    def __init__(self, frame: int, row: NDArray[np.float32]) -> None:
        self.first = self.last = frame
        self._kept_from = frame
        self._rows: list[NDArray[np.float64]] = [row.astype(np.float64)]
        self._medians = [self._rows[0]]
        """The rows, each but the ends the median of itself and its neighbours: a single wild frame leaves no trace."""

    def append(self, frame: int, row: NDArray[np.float32]) -> None:
        """Add a detection; what lies between it and the one before is interpolated."""
        before, after = self._rows[-1], row.astype(np.float64)
        steps = frame - self.last
        for step in range(1, steps + 1):
            self._rows.append(before + (after - before) * (step / steps) if step < steps else after)
            self._medians.append(self._rows[-1])
            if len(self._rows) >= 3:
                one, two, three = self._rows[-3:]
                self._medians[-2] = np.maximum(np.minimum(one, two), np.minimum(np.maximum(one, two), three))
        self.last = frame

    def forget(self, frame: int) -> None:
        """Let go of what lies before a frame."""
        if (count := frame - self._kept_from) > 0:
            del self._rows[:count], self._medians[:count]
            self._kept_from = frame

    def face(self, number: int, frame: int, reach: int, sigma: float) -> SeenFace:
        """Return the face of a frame, its points smoothed with a Gaussian; the ends are reflected about their own value, so they stay in place."""
        row, points = self._rows[frame - self._kept_from], self._medians[frame - self._kept_from][5:]
        reach = min(reach, self.last - self.first)
        if reach >= 1:
            window = np.array([self._reflected(at) for at in range(frame - reach, frame + reach + 1)])
            points = (_gaussian(reach, sigma) * window).sum(axis=0)
        return SeenFace(number, row[:4], float(row[4]), points.astype(np.float32).reshape(-1, 2))

    def _reflected(self, frame: int) -> NDArray[np.float64]:
        if self.first <= frame <= self.last:
            return self._medians[frame - self._kept_from][5:]
        end = min(max(frame, self.first), self.last)
        inside = self._medians[2 * end - frame - self._kept_from][5:]
        return 2 * self._medians[end - self._kept_from][5:] - inside


@cache
def _gaussian(reach: int, sigma: float) -> NDArray[np.float64]:
    """Return the (2 * reach + 1, 1) weights of a Gaussian, their sum 1."""
    return np.asarray(cv2.getGaussianKernel(2 * reach + 1, sigma, cv2.CV_64F), np.float64)
