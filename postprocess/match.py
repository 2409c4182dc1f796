"""Matching a generated patch to the face it goes into: its colour to the surrounding skin, its sharpness to the source's."""

import cv2
import numpy as np
from numpy.typing import NDArray

from postprocess.paste import rectangle_around

MAX_OFFSET = 16.0
"""Most that a patch's colour is moved, levels of 0..255: a generator's tint is below; what is above is another picture."""

FINE_DETAIL = 0.012
"""Radius below which detail is fine, in 0..1 of the crop: 3 px of 256."""

SHARP_ABOVE, BLURRED_BELOW = 0.9, 0.65
"""A patch's fine detail in the ring, relative to the source's, at which it counts as sharp, and below which as wholly blurred."""

CHANGED_AT = 20.0
"""Smoothed difference, levels, at which a pixel is new and no longer the source's skin."""

MAX_SHARPENING = 2.0
"""Most that a blurred patch's own fine detail is amplified."""

MAX_ADDED = 6.0
"""Most that this adds to a sample or takes from it, levels: the edge of a dark mouth must not get a bright rim."""

_RING = (0.05, 0.95)
"""Share of the mask's height between which its soft edge is the ring: the patch is seen there beside the source, and should equal it."""


def matched_patch(image: NDArray[np.uint8], patch: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return a patch with its tint and its blur taken out.

    On the ring, where the mask goes from 1 to 0, a generator has nothing to change. What it changes there all the same, in the median, is its
    tint and goes from the whole patch; where it has less fine detail there than the source, the source's own stays wherever the patch shows
    the source's skin, and the detail of what is new is amplified. A patch that equals the source on half of the ring or more, as mouth-warp's
    does, comes back as it is, to the bit. Each frame is matched for itself, so it does not matter where a render began.

    Args:
        image: (S, S, 3) uint8 RGB, the crop the patch was made from.
        patch: (S, S, 3) uint8 RGB, what a model made of it.
        mask: (S, S) float32, where the patch is used.
    """
    left, top, right, bottom = rectangle_around(mask)
    if left == right:
        return patch
    part = np.s_[top:bottom, left:right]
    share = mask[part]
    outer, inner = (edge * cv2.minMaxLoc(share)[1] for edge in _RING)
    in_ring = cv2.inRange(share, outer, inner)
    is_same = cv2.inRange(cv2.absdiff(patch[part], image[part]), (0, 0, 0), (0, 0, 0))
    if 2 * cv2.countNonZero(cv2.bitwise_and(is_same, in_ring)) >= cv2.countNonZero(in_ring):
        return patch
    ring = in_ring > 0
    source = image[part].astype(np.float32)
    difference = patch[part].astype(np.float32) - source
    beside = difference[ring]
    difference -= np.clip(np.median(beside, axis=0), -MAX_OFFSET, MAX_OFFSET)
    sigma = max(0.8, FINE_DETAIL * len(mask))
    coarse = np.asarray(cv2.GaussianBlur(difference, (0, 0), sigma), np.float32)
    fine = difference - coarse
    fine_source = source - cv2.GaussianBlur(source, (0, 0), sigma)
    fine_patch = fine_source + fine
    sharpness = float(np.sqrt((fine_patch[ring] ** 2).mean() / max(float((fine_source[ring] ** 2).mean()), 1e-6)))
    blurred = float(np.clip((SHARP_ABOVE - sharpness) / (SHARP_ABOVE - BLURRED_BELOW), 0.0, 1.0))
    if blurred:
        new = np.minimum(cv2.GaussianBlur(np.abs(coarse).max(axis=2), (0, 0), sigma) / np.float32(CHANGED_AT), 1.0)[:, :, None] ** 2
        amount = min(MAX_SHARPENING, 1.0 / max(sharpness, 1e-3)) - 1.0
        sharpened = np.clip(np.float32(amount) * fine_patch, -MAX_ADDED, MAX_ADDED)
        difference += np.float32(blurred) * (new * sharpened - (1.0 - new) * fine)
    matched = patch.astype(np.float32)
    matched[part] = source + difference
    return matched
