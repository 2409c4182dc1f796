"""Whether a face can be edited: large enough, and seen from the front."""

from enum import IntEnum
from math import atan2, cos, degrees, hypot, radians

import numpy as np
from numpy.typing import NDArray

MIN_EYE_DISTANCE_PX = 8.0
"""Distance between the eyes, seen from the front, below which a face is too small to edit."""

MAX_YAW_DEG = 50.0
"""Turn of the head to a side above which a face is left alone: half of the mouth is out of sight, and five points no longer say where it is."""

_BACK_SIZE = 1.2
"""A face that was too small is edited again when it is this many times larger than it has to be; so it does not flicker at the limit."""

_BACK_YAW = 0.84
"""A face that was seen from the side is edited again when it is turned by this share of the limit."""

_NOSE_DEPTH = 1.15
"""How far the tip of the nose lies before the plane of the eyes, in half distances between them. Source: MediaPipe's canonical face model."""

_MIN_DISTANCE_PX = 1e-6


class Presence(IntEnum):
    """What is known of a speaker's face in a frame."""

    EDITABLE = 0
    NO_FACE = 1
    TOO_SMALL = 2
    PROFILE = 3
    NOT_THE_SPEAKER = 4
    """Faces are seen, and none is his."""


def yaw_deg(landmarks5: NDArray[np.float32]) -> float:
    """Return how far a head is turned to a side, 0 from the front to 90 for a profile, estimated from its (5, 2) points.

    The tip of the nose moves along the line of the eyes as the head turns; nodding and tilting leave that alone.
    """
    return _yaw_deg(*_eyes(landmarks5))


def eye_distance_px(landmarks5: NDArray[np.float32]) -> float:
    """Return the distance between the eyes of (5, 2) points, px, as it would be seen from the front."""
    distance, across = _eyes(landmarks5)
    return distance / max(cos(radians(_yaw_deg(distance, across))), 0.2)


def _eyes(landmarks5: NDArray[np.float32]) -> tuple[float, float]:
    """Return the distance between the eyes, and how far along it the nose is from its middle, px."""
    (left_x, left_y), (right_x, right_y), (nose_x, nose_y) = landmarks5[:3].tolist()
    axis_x, axis_y = right_x - left_x, right_y - left_y
    distance = hypot(axis_x, axis_y)
    along = (nose_x - (left_x + right_x) / 2) * axis_x + (nose_y - (left_y + right_y) / 2) * axis_y
    return distance, abs(along) / max(distance, _MIN_DISTANCE_PX)


def _yaw_deg(distance: float, across: float) -> float:
    return degrees(atan2(across, _NOSE_DEPTH * distance / 2)) if distance > _MIN_DISTANCE_PX else 90.0


class PresenceGate:
    """Says frame by frame whether a face is edited. What was left alone has to be clear of the limit before it is edited again."""

    def __init__(self) -> None:
        self._before = Presence.NO_FACE

    def next(self, landmarks5: NDArray[np.float32] | None) -> Presence:
        """Return what is known of the next frame's face, (5, 2) px, None where there is none."""
        if landmarks5 is None:
            self._before = Presence.NO_FACE
        else:
            least = MIN_EYE_DISTANCE_PX * (_BACK_SIZE if self._before == Presence.TOO_SMALL else 1.0)
            most = MAX_YAW_DEG * (_BACK_YAW if self._before == Presence.PROFILE else 1.0)
            if eye_distance_px(landmarks5) < least:
                self._before = Presence.TOO_SMALL
            elif yaw_deg(landmarks5) > most:
                self._before = Presence.PROFILE
            else:
                self._before = Presence.EDITABLE
        return self._before
