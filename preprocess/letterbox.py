"""Fitting pictures into the detector's, and its findings back into the frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.orientation import Orientation

SIDE_STEP_PX = 32
"""Sides of the detector's pictures are multiples of this, px: its network halves them five times."""

LEAST_SIDE_PX = 96
"""Shortest side of one, px."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an upright picture sits in the detector's: scaled to fit, at the top left, black below or to the right."""

    size_px: int
    """Longest side of the detector's picture."""
    canvas_wh: tuple[int, int]
    """Size of the detector's picture."""
    scaled_wh: tuple[int, int]
    """Size of the scaled picture in that."""
    upright_wh: tuple[int, int]
    """Size of the picture itself, upright."""
    orientation: Orientation
    """What made the coded frame upright."""

    @staticmethod
    def fit(coded_wh: tuple[int, int], orientation: Orientation, size_px: int, *, is_square: bool = True) -> "Letterbox":
        """Return how a coded frame, turned upright, fits a square of `size_px`, or the least of it that holds the frame."""
        width, height = orientation.shown_wh(coded_wh)
        scale = size_px / max(width, height)
        scaled_wh = max(1, round(width * scale)), max(1, round(height * scale))
        canvas_wh = (size_px, size_px) if is_square else (_side(scaled_wh[0], size_px), _side(scaled_wh[1], size_px))
        return Letterbox(size_px, canvas_wh, scaled_wh, (width, height), orientation)

    @property
    def scaled_coded_wh(self) -> tuple[int, int]:
        """Size to scale the coded frame to, before it is turned."""
        return self.orientation.shown_wh(self.scaled_wh)

    def place(self, scaled_coded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a scaled (h, w, 3) coded frame upright and place it in the detector's picture (H, W, 3)."""
        upright = self.orientation.shown(scaled_coded)
        canvas = np.zeros((self.canvas_wh[1], self.canvas_wh[0], 3), np.uint8)
        canvas[: upright.shape[0], : upright.shape[1]] = upright
        return canvas

    def points_to_frame(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring (..., 2) points in the detector's picture to px of the coded frame."""
        ratio = np.array([self.upright_wh[0] / self.scaled_wh[0], self.upright_wh[1] / self.scaled_wh[1]])
        return self.orientation.to_coded((points + 0.5) * ratio - 0.5, self.upright_wh)


def _side(scaled_px: int, size_px: int) -> int:
    return min(size_px, max(LEAST_SIDE_PX, -(-scaled_px // SIDE_STEP_PX) * SIDE_STEP_PX))
