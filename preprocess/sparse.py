"""Faces on every frame from detections on some: where a face rests or moves evenly, the frames between two detections are interpolated."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat

import numpy as np
from numpy.typing import NDArray

from preprocess.linking import box_area

STEP_S = 0.16
"""Time between two detections where nothing happens, s."""

WINDOW_STEPS, OPENING_STEPS = 7, 3
"""Steps that are worked on together; a window begins and ends with a detection. A video's first windows are shorter, since somebody waits for its
first frames; later ones are longer, since they need fewer detections: measured at 1080p, a new video takes 6 % less time."""

OPENING_WINDOWS = 4
"""How many of a video's windows are short."""

STILL_SHARE = 0.04
"""Furthest that a face's points may be apart in two detections, in sides of its box, for what lies between to be interpolated right away."""

TOLERANCE_SHARE = 0.02
"""Furthest that a detection half way may lie beside the straight line between its neighbours', in sides of the face's box, for the rest to be
interpolated. Measured on three talking people, smoothed, against detection on every frame: 0.6 of 256 px of the crop in the mean, 2.3 at most."""

CALM_CHANGE = 0.015
"""Change from frame to frame (see `ChangeMeter`) above which a frame is never interpolated: a cut, a flash, a camera that is thrown around."""

Rows = NDArray[np.float32]


def step_frames(frame_rate: float) -> int:
    """Return `STEP_S` in frames, at least one."""
    return max(1, round(STEP_S * frame_rate))


def max_window_frames(frame_rate: float) -> int:
    """Return how many frames a window has at most."""
    return WINDOW_STEPS * step_frames(frame_rate) + 1


def window_lengths(frame_rate: float) -> Iterator[int]:
    """Yield how many frames each window of a video has, without end."""
    yield from repeat(_opening_window_frames(frame_rate), OPENING_WINDOWS)
    yield from repeat(max_window_frames(frame_rate))


def in_whole_windows(frame_count: int, frame_rate: float) -> int:
    """Return how many frames the windows have that it takes for so many frames."""
    short, long = _opening_window_frames(frame_rate), max_window_frames(frame_rate)
    opening = min(OPENING_WINDOWS, -(-frame_count // short)) * short
    return opening + max(0, -(-(frame_count - opening) // long)) * long


def _opening_window_frames(frame_rate: float) -> int:
    return OPENING_STEPS * step_frames(frame_rate) + 1


class SparseWindow:
    """Says on which frames of a window faces have to be looked for, in rounds, until the rest can be interpolated.

    What it asks for depends on the window alone, not on how it is answered: in any number of requests.
    """

    def __init__(self, changes: Sequence[float], step: int) -> None:
        """Begin with a window.

        Args:
            changes: for each frame how much it differs from the one before it, see `ChangeMeter`; that of the first one is not looked at.
            step: see `step_frames`.
        """
        self._changes = np.asarray(changes, np.float64)
        self._rows: list[Rows | None] = [None] * len(changes)
        self.wanted: list[int] = sorted({*range(0, len(changes), step), len(changes) - 1})
        """Frames to look for faces on next; none when every frame has its faces."""
        self._halves: list[tuple[int, int, int]] | None = None
        """Begin, middle and end of the stretches whose middles are wanted; None in the first round."""

    def put(self, found: Sequence[Rows]) -> None:
        """Take the (n, 15 + 2 M) detections of the wanted frames."""
        for frame, rows in zip(self.wanted, found, strict=True):
            self._rows[frame] = rows
        if self._halves is None:
            unsure = list(pairwise(self.wanted))
        else:
            unsure = [part for half in self._halves if not self._is_even(*half) for part in pairwise(half)]
        self._halves = [(first, (first + last) // 2, last) for first, last in unsure if last - first > 1 and not self._fill(first, last, STILL_SHARE)]
        self.wanted = [middle for _, middle, _ in self._halves]

    def rows(self) -> list[Rows]:
        """Return the faces of every frame, when none is wanted any more."""
        return [rows for rows in self._rows if rows is not None]

    def _is_even(self, first: int, middle: int, last: int) -> bool:
        """Fill both halves of a stretch if the face in its middle is where it was expected to be."""
        between = self._between(first, last, np.inf)
        if between is None:
            return False
        found = self._at(middle)
        pairs = matched(between((middle - first) / (last - first)), found, TOLERANCE_SHARE)
        if pairs is None:
            return False
        return self._fill(first, middle, np.inf) and self._fill(middle, last, np.inf)

    def _fill(self, first: int, last: int, limit: float) -> bool:
        """Interpolate what lies between two frames if their faces are as close as `limit` says; returns whether they are."""
        between = self._between(first, last, limit)
        if between is None:
            return False
        for frame in range(first + 1, last):
            self._rows[frame] = between((frame - first) / (last - first))
        return True

    def _between(self, first: int, last: int, limit: float) -> "_Line | None":
        if (self._changes[first + 1 : last + 1] > CALM_CHANGE).any():
            return None
        pairs = matched(self._at(first), self._at(last), limit)
        return None if pairs is None else _Line(self._at(first), self._at(last)[pairs])

    def _at(self, frame: int) -> Rows:
        rows = self._rows[frame]
        assert rows is not None
        return rows


class _Line:
    """Rows that move from one place to another."""

    def __init__(self, first: Rows, last: Rows) -> None:
        self._first, self._movement = first, last - first

    def __call__(self, share: float) -> Rows:
        return np.asarray(self._first + np.float32(share) * self._movement, np.float32)


def matched(one: Rows, other: Rows, limit: float) -> list[int] | None:
    """Return for each face of `one` which of `other` it is; None if their numbers differ, or a face's points are too far apart.

    Args:
        one: (n, 15 + 2 M) detections.
        other: as `one`.
        limit: how far apart the points of the same face may be, in sides of its box.
    """
    if len(one) != len(other):
        return None
    points = one[:, 5:15].reshape(len(one), 1, 5, 2) - other[:, 5:15].reshape(1, len(other), 5, 2)
    apart = np.linalg.norm(points, axis=3).max(2, initial=0.0) / np.sqrt([[box_area(row)] for row in one.tolist()])
    partner = [-1] * len(one)
    for _ in range(len(one)):
        i, j = divmod(int(apart.argmin()), len(other))
        if not apart[i, j] <= limit or not np.isfinite(apart[i, j]):
            return None
        partner[i] = j
        apart[i], apart[:, j] = np.inf, np.inf
    return partner
