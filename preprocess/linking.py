"""Detections linked from frame to frame: which face of this picture is which face of the last one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, log, sqrt

import numpy as np
from numpy.typing import NDArray

MIN_OVERLAP = 0.2
"""Intersection over union with where a face was, or is expected, that makes a detection the same face."""

MAX_AREA_STEP = 4.0
"""How many times larger or smaller a face may become between two detections."""

_VELOCITY_WEIGHT = 0.5
"""How much of a face's velocity is the latest movement; the rest is what it was before."""


@dataclass(slots=True)
class _OpenTrack:
    number: int
    frame: int
    row: NDArray[np.float32]
    velocity: NDArray[np.float32]
    """(2,), px a frame, of the box's centre."""


class Linker:
    """Gives every detection the number of its track, frame by frame, by what was seen so far alone.

    A detection goes to the track whose predicted place, size and five points it is nearest to. A track ends when it has not been seen for more
    than `max_gap` frames.
    """

    def __init__(self, max_gap: int) -> None:
        self._max_gap = max_gap
        self._open: list[_OpenTrack] = []
        self._frame = -1
        self._next_number = 0

    def link(self, rows: NDArray[np.float32]) -> list[int]:
        """Return the track number of each of the next frame's (n, 15 + 2 M) detections."""
        self._frame += 1
        self._open = [track for track in self._open if self._frame - track.frame <= self._max_gap]
        numbers = [-1] * len(rows)
        for track, index in self._matches(rows):
            numbers[index] = track.number
            movement = (_centre(rows[index]) - _centre(track.row)) / (self._frame - track.frame)
            track.velocity = _VELOCITY_WEIGHT * movement + (1 - _VELOCITY_WEIGHT) * track.velocity
            track.frame, track.row = self._frame, rows[index]
        for index in (index for index, number in enumerate(numbers) if number < 0):
            numbers[index] = self._next_number
            self._open.append(_OpenTrack(self._next_number, self._frame, rows[index], np.zeros(2, np.float32)))
            self._next_number += 1
        return numbers

    def cut(self) -> None:
        """End every track: the next frame shows another shot."""
        self._open = []

    def _matches(self, rows: NDArray[np.float32]) -> list[tuple[_OpenTrack, int]]:
        """Return which open track goes on in which of the (n, 15 + 2 M) detections, the surest first."""
        # There are few faces, so plain numbers take a fifth of the time of arrays.
        seen = rows[:, :15].tolist()
        costs = [(cost, i, j) for i, track in enumerate(self._open) for j, row in enumerate(seen) if (cost := self._cost(track, row)) is not None]
        matches: dict[int, int] = {}
        for _, i, j in sorted(costs):
            if i not in matches and j not in matches.values():
                matches[i] = j
        return [(self._open[i], j) for i, j in matches.items()]

    def _cost(self, track: _OpenTrack, row: list[float]) -> float | None:
        """Return how far a detection is from where a track is expected; None if it is another face."""
        last: list[float] = track.row[:15].tolist()
        shift_x, shift_y = (track.velocity * (self._frame - track.frame)).tolist()
        left, top, right, bottom = last[:4]
        expected_overlap = box_overlap((left + shift_x, top + shift_y, right + shift_x, bottom + shift_y), row)
        area = box_area(last)
        step = abs(log(box_area(row) / area))
        if max(expected_overlap, box_overlap(last, row)) < MIN_OVERLAP or step > log(MAX_AREA_STEP):
            return None
        points = zip(last[5::2], last[6::2], row[5::2], row[6::2], strict=True)
        apart = sum(hypot(x + shift_x - new_x, y + shift_y - new_y) for x, y, new_x, new_y in points) / 5
        return (1 - expected_overlap) + 0.5 * step + apart / sqrt(area)


def box_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes xyxy."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def box_area(box: Sequence[float]) -> float:
    """Return the area of a box xyxy, px², at least 1."""
    return max((box[2] - box[0]) * (box[3] - box[1]), 1.0)


def _centre(row: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((row[:2] + row[2:4]) / 2, np.float32)
