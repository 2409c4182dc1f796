"""Fitting pictures into the detector's, and its findings back into the frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    rotation_deg: int
    """Counter-clockwise turn that made the coded frame upright: 0, 90, 180 or 270."""
    is_mirrored: bool = False
    """Whether left and right were exchanged behind the turn."""

    @staticmethod
    def fit(coded_wh: tuple[int, int], rotation_deg: int, size_px: int, *, is_mirrored: bool = False, is_square: bool = True) -> "Letterbox":
        """Return how a coded frame, turned upright, fits a square of `size_px`, or the least of it that holds the frame."""
        width, height = coded_wh if rotation_deg % 180 == 0 else (coded_wh[1], coded_wh[0])
        scale = size_px / max(width, height)
        scaled_wh = max(1, round(width * scale)), max(1, round(height * scale))
        canvas_wh = (size_px, size_px) if is_square else (_side(scaled_wh[0], size_px), _side(scaled_wh[1], size_px))
        return Letterbox(size_px, canvas_wh, scaled_wh, (width, height), rotation_deg, is_mirrored)

    @property
    def scaled_coded_wh(self) -> tuple[int, int]:
        """Size to scale the coded frame to, before it is turned."""
        return self.scaled_wh if self.rotation_deg % 180 == 0 else (self.scaled_wh[1], self.scaled_wh[0])

    def place(self, scaled_coded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a scaled (h, w, 3) coded frame upright and place it in the detector's picture (H, W, 3)."""
        upright = turned_upright(scaled_coded, self.rotation_deg, is_mirrored=self.is_mirrored)
        canvas = np.zeros((self.canvas_wh[1], self.canvas_wh[0], 3), np.uint8)
        canvas[: upright.shape[0], : upright.shape[1]] = upright
        return canvas

    def points_to_frame(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring (..., 2) points in the detector's picture to px of the coded frame."""
        ratio = np.array([self.upright_wh[0] / self.scaled_wh[0], self.upright_wh[1] / self.scaled_wh[1]])
        x, y = np.moveaxis((points + 0.5) * ratio - 0.5, -1, 0)
        width, height = self.upright_wh
        x = width - 1 - x if self.is_mirrored else x
        turned = {0: (x, y), 90: (height - 1 - y, x), 180: (width - 1 - x, height - 1 - y), 270: (y, width - 1 - x)}
        return np.stack(turned[self.rotation_deg], axis=-1).astype(np.float32)


def turned_upright(coded: NDArray[np.uint8], rotation_deg: int, *, is_mirrored: bool) -> NDArray[np.uint8]:
    """Return a (h, w, 3) coded frame as it is shown, a view."""
    turned = np.rot90(coded, rotation_deg // 90)
    return turned[:, ::-1] if is_mirrored else turned


def _side(scaled_px: int, size_px: int) -> int:
    return min(size_px, max(LEAST_SIDE_PX, -(-scaled_px // SIDE_STEP_PX) * SIDE_STEP_PX))
