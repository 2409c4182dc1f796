"""Detections linked from frame to frame: which face of this picture is which face of the last one."""

from dataclasses import dataclass

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
        if not self._open or not len(rows):
            return []
        shifts = np.stack([track.velocity * (self._frame - track.frame) for track in self._open])
        last = np.stack([track.row for track in self._open])
        predicted = last[:, :4] + np.tile(shifts, 2)
        expected_overlap = box_overlap(predicted, rows[:, :4])
        overlap = np.maximum(expected_overlap, box_overlap(last[:, :4], rows[:, :4]))
        areas, new_areas = box_areas(last), box_areas(rows)
        step = np.abs(np.log(new_areas[None] / areas[:, None]))
        points = (last[:, 5:15].reshape(-1, 1, 5, 2) + shifts[:, None, None]) - rows[None, :, 5:15].reshape(1, -1, 5, 2)
        apart = np.linalg.norm(points, axis=3).mean(2) / np.sqrt(areas)[:, None]
        cost = (1 - expected_overlap) + 0.5 * step + apart
        cost[(overlap < MIN_OVERLAP) | (step > np.log(MAX_AREA_STEP))] = np.inf
        matches: list[tuple[_OpenTrack, int]] = []
        while cost.size and np.isfinite(best := cost.min()):
            i, j = (int(axis[0]) for axis in np.nonzero(cost == best))
            matches.append((self._open[i], j))
            cost[i], cost[:, j] = np.inf, np.inf
        return matches


def box_overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (n, m) intersection over union of (n, 4) and (m, 4) boxes xyxy."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = np.prod(a[:, 2:4] - a[:, :2], axis=1), np.prod(b[:, 2:4] - b[:, :2], axis=1)
    return np.asarray(common / np.maximum(area_a[:, None] + area_b[None] - common, 1e-6), np.float32)


def box_areas(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the (n,) areas of boxes xyxy that begin n rows, px², at least 1."""
    boxes = np.asarray(rows, np.float64)
    return np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1.0)


def _centre(row: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((row[:2] + row[2:4]) / 2, np.float32)
