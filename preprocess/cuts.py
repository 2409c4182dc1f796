"""Cuts between shots, from how much small pictures of neighbouring frames differ."""

from collections import deque
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

THUMBNAIL_PX = 24
"""Side of the pictures that are compared."""

REACH = 4
"""A picture is compared with the one before a possible cut as long as it lies less than this many frames behind it: a flash is shorter."""

MIN_CHANGE = 0.03
"""Change that can be a cut. Measured on talking people: 0.006 at most from frame to frame with a moving camera, 0.5 and more across a cut."""

_TYPICAL_FACTOR = 4.0
"""How many times larger than the changes around it a cut's is, so that a camera that is thrown around makes none."""

_LASTING_SHARE = 0.5
"""Share of the change that is still there as long as `REACH` reaches; a flash leaves nothing."""

_FRAMES_BEFORE = 5
_MIN_DEVIATION = 4.0


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a picture (h, w, 3), uint8, as a vector of mean 0 and deviation 1, so that brightness and contrast make no difference."""
    small = cv2.resize(image, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(small.std()), _MIN_DEVIATION), np.float32)


def change(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return how much two thumbnails differ: 0 where they are the same, 1 where they have nothing in common."""
    return float(np.square(one - other).mean()) / 2


class ChangeMeter:
    """Measures, frame by frame, how much pictures differ."""

    def __init__(self) -> None:
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=REACH + 1)
        self._rows: deque[NDArray[np.float32]] = deque()

    def push(self, thumb: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Take the next frame's `thumbnail`; yield the changes of the frame `REACH - 1` before it, once there is one.

        Changes are (REACH,) float32: from the frame before the one they are for, to that one and those behind it; not a number where one of
        the two does not exist.
        """
        self._recent.append(thumb)
        self._rows.append(np.full(REACH, np.nan, np.float32))
        for steps in range(1, min(REACH, len(self._recent) - 1) + 1):
            self._rows[-steps][steps - 1] = change(self._recent[-1 - steps], thumb)
        if len(self._rows) == REACH:
            yield self._rows.popleft()

    def finish(self) -> Iterator[NDArray[np.float32]]:
        """Yield the changes of the last frames."""
        while self._rows:
            yield self._rows.popleft()


def first_changes(changes: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the (count, REACH) changes of a video's first frames as if it had no others."""
    first = changes[:count].copy()
    behind_end = np.arange(len(first))[:, None] + np.arange(REACH) >= count
    first[behind_end] = np.nan
    return first


class CutFinder:
    """Says, `REACH - 1` frames behind, with which frames a new shot begins."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=_FRAMES_BEFORE)
        self._waiting: deque[NDArray[np.float32]] = deque()

    def push(self, changes: NDArray[np.float32]) -> Iterator[bool]:
        """Take the next frame's changes; yield whether there is a cut before the frame `REACH - 1` before it, once there is one."""
        self._waiting.append(changes)
        if len(self._waiting) == REACH:
            yield self._decide()

    def finish(self) -> Iterator[bool]:
        """Yield what is to be said of the last frames."""
        while self._waiting:
            yield self._decide()

    def _decide(self) -> bool:
        changes = self._waiting.popleft()
        change = float(changes[0])
        around = [*self._before, *(float(later[0]) for later in self._waiting)]
        typical = float(np.median(around)) if around else 0.0
        if not np.isnan(change):
            self._before.append(change)
        return change > max(MIN_CHANGE, _TYPICAL_FACTOR * typical) and float(np.nanmin(changes)) > _LASTING_SHARE * change
