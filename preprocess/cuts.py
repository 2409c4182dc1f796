"""Cuts between shots, from how much small pictures of neighbouring frames differ."""

from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from math import isnan
from statistics import median

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

MIN_JUMP = 0.004
"""Change that can be a jump cut: pictures that were left out of a shot, of the same person in the same place. Measured on the same people: three
quarters and more of such jumps are found, and those that are not move the face by 11 of 256 px of its crop at most."""

_JUMP_FACTOR = 12.0
"""As `_TYPICAL_FACTOR`, for a jump: within the shots measured no change came near it."""

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
    for frame in range(max(0, count - REACH), len(first)):
        first[frame] = changes_before_end(first[frame], count - frame)
    return first


def changes_before_end(changes: NDArray[np.float32], frames_left: int) -> NDArray[np.float32]:
    """Return the (REACH,) changes of a frame as if the video had only so many frames from it on."""
    return np.where(np.arange(REACH) < frames_left, changes, np.float32(np.nan))


class Seam(IntEnum):
    """What lies between a frame and the one before it."""

    NONE = 0
    JUMP = 1
    """Pictures were left out: the same people, but nothing moves on from where it was."""
    CUT = 2
    """A new shot begins."""


class CutFinder:
    """Says, `REACH - 1` frames behind, what lies before each frame."""

    def __init__(self) -> None:
        self._before: deque[float] = deque(maxlen=_FRAMES_BEFORE)
        self._recent: deque[NDArray[np.float32]] = deque(maxlen=REACH - 1)
        self._waiting: deque[NDArray[np.float32]] = deque()

    def push(self, changes: NDArray[np.float32]) -> Iterator[Seam]:
        """Take the next frame's changes; yield what lies before the frame `REACH - 1` before it, once there is one."""
        self._waiting.append(changes)
        if len(self._waiting) == REACH:
            yield self._decide()

    def finish(self) -> Iterator[Seam]:
        """Yield what is to be said of the last frames."""
        while self._waiting:
            yield self._decide()

    def _decide(self) -> Seam:
        changes = self._waiting.popleft()
        change = float(changes[0])
        behind = [float(later[0]) for later in self._waiting]
        typical = max(median(self._before or [0.0]), median(behind or [0.0]))
        # The frame against those before it, and those behind it against the one before it: a flash makes neither differ for long.
        back = [float(earlier[steps]) for steps, earlier in enumerate(reversed(self._recent), 1)]
        is_lasting = not isnan(change) and min(other for other in [*changes.tolist(), *back] if not isnan(other)) > _LASTING_SHARE * change
        self._recent.append(changes)
        if not isnan(change):
            self._before.append(change)
        if not is_lasting:
            return Seam.NONE
        if change > max(MIN_CHANGE, _TYPICAL_FACTOR * typical):
            return Seam.CUT
        return Seam.JUMP if change > max(MIN_JUMP, _JUMP_FACTOR * typical) else Seam.NONE
