"""Masks in the crop: where a generated mouth may replace the frame, with soft edges."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray


@cache
def paste_mask(size_px: int, region: tuple[float, float, float, float], feather: float = 0.06) -> NDArray[np.float32]:
    """Return the (S, S) float32 mask of a paste region: 1 keeps the generated pixel, 0 the frame's.

    Args:
        size_px: side of the crop.
        region: x1, y1, x2, y2 in 0..1 of the crop; the mask is 0 on and outside it.
        feather: width of the ramp from 0 to 1 inside the region's edge, in 0..1 of the crop.

    The edge is a cosine ramp, so neither the mask nor its slope has a step.
    """
    x1, y1, x2, y2 = region
    if not (0.0 <= x1 < x2 <= 1.0 and 0.0 <= y1 < y2 <= 1.0):
        raise ValueError(f"expected a region x1 < x2, y1 < y2 in 0..1, got {region}")
    centre = (np.arange(size_px) + 0.5) / size_px

    def profile(low: float, high: float) -> NDArray[np.float64]:
        inside = np.clip(np.minimum(centre - low, high - centre) / feather, 0.0, 1.0)
        return 0.5 - 0.5 * np.cos(np.pi * inside)

    mask: NDArray[np.float32] = np.outer(profile(y1, y2), profile(x1, x2)).astype(np.float32)
    mask.flags.writeable = False
    return mask


_OUTLINE_FEATHER = 0.04
"""Width of the soft edge, in 0..1 of the crop."""

_ROOM = 1.12
"""How much larger than the outline the mask is: a jaw that opens goes beyond its own line."""


def outline_mask(mask: NDArray[np.float32], outline: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a mask that also ends, softly, where the lower face ends.

    Args:
        mask: (S, S) float32, from `paste_mask`.
        outline: (M, 2) px of the crop; its convex hull is the lower face.
    """
    size_px = len(mask)
    hull = cv2.convexHull(np.asarray(outline, np.float32))[:, 0]
    centre = hull.mean(0)
    room = centre + (hull - centre) * _ROOM
    shift = 4  # fillConvexPoly's fixed point: sixteenths of a pixel
    inside = np.zeros((size_px, size_px), np.float32)
    cv2.fillConvexPoly(inside, np.round(room * 2**shift).astype(np.int32), (1.0,), cv2.LINE_AA, shift)
    soft = cv2.GaussianBlur(inside, (0, 0), _OUTLINE_FEATHER * size_px / 2)
    return np.asarray(mask * soft, np.float32)


_OCCLUSION_FEATHER = 0.012
"""Width of the soft edge of what lies before a face, in 0..1 of the crop."""


def visible_mask(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a (S, S) mask of what is face, 0..1, with a soft edge that ends where something else begins: nothing new bleeds over a finger."""
    soft = cv2.GaussianBlur(np.asarray(mask, np.float32), (0, 0), _OCCLUSION_FEATHER * len(mask))
    return np.asarray(np.clip(soft * 2.0 - 1.0, 0.0, 1.0), np.float32)
