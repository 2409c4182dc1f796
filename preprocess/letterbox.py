"""Fitting pictures into the detector's square, and its findings back into the frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an upright picture sits in a square: scaled to fit, at the top left, black below or to the right."""

    size_px: int
    """Side of the square."""
    scaled_wh: tuple[int, int]
    """Size of the scaled picture in it."""
    upright_wh: tuple[int, int]
    """Size of the picture itself, upright."""
    rotation_deg: int
    """Counter-clockwise turn that made the coded frame upright: 0, 90, 180 or 270."""

    @staticmethod
    def fit(coded_wh: tuple[int, int], rotation_deg: int, size_px: int) -> "Letterbox":
        """Return how a coded frame, turned upright, fits a square of `size_px`."""
        width, height = coded_wh if rotation_deg % 180 == 0 else (coded_wh[1], coded_wh[0])
        scale = size_px / max(width, height)
        scaled_wh = max(1, round(width * scale)), max(1, round(height * scale))
        return Letterbox(size_px, scaled_wh, (width, height), rotation_deg)

    @property
    def scaled_coded_wh(self) -> tuple[int, int]:
        """Size to scale the coded frame to, before it is turned."""
        return self.scaled_wh if self.rotation_deg % 180 == 0 else (self.scaled_wh[1], self.scaled_wh[0])

    def place(self, scaled_coded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a scaled (h, w, 3) coded frame upright and place it in the (S, S, 3) square."""
        upright = np.rot90(scaled_coded, self.rotation_deg // 90)
        square = np.zeros((self.size_px, self.size_px, 3), np.uint8)
        square[: upright.shape[0], : upright.shape[1]] = upright
        return square

    def points_to_frame(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring (..., 2) points in the square to px of the coded frame."""
        ratio = np.array([self.upright_wh[0] / self.scaled_wh[0], self.upright_wh[1] / self.scaled_wh[1]])
        x, y = np.moveaxis((points + 0.5) * ratio - 0.5, -1, 0)
        width, height = self.upright_wh
        turned = {0: (x, y), 90: (height - 1 - y, x), 180: (width - 1 - x, height - 1 - y), 270: (y, width - 1 - x)}
        return np.stack(turned[self.rotation_deg], axis=-1).astype(np.float32)
