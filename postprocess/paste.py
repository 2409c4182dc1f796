"""Paste-back: the generated mouth goes into the frame's own YUV planes, touching no sample that need not change."""

import cv2
import numpy as np
from numpy.typing import NDArray

from postprocess.grain import match_grain
from preprocess.align import invert_affine, warp
from preprocess.hdr import SdrCurve
from preprocess.yuv import FaceCrop, YuvImage

REPLACED_AT = 24.0
"""Difference between generated and original pixel (0..255) at which the frame's own fine detail is fully replaced."""

DETAIL_BLUR = 0.012
"""Radius over which that difference is pooled, in 0..1 of the crop."""


def mouth_difference(
    face_crop: FaceCrop, mouth_patch: NDArray[np.uint8] | NDArray[np.float32], mask: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Return what the lip model changed inside the mask: (S, S, 3) float32 RGB, or None where it changed nothing.

    Args:
        face_crop: the crop the model was given.
        mouth_patch: (S, S, 3) RGB, 0..255, what it made of it.
        mask: (S, S) float32, 1 keeps the generated pixel.
    """
    if mouth_patch.shape != face_crop.image.shape:
        raise ValueError(f"expected a mouth patch of shape {face_crop.image.shape}, got {mouth_patch.shape}")
    unmasked = cv2.subtract(mouth_patch, face_crop.image, dtype=cv2.CV_32F)
    difference = np.asarray(cv2.multiply(unmasked, cv2.merge([mask, mask, mask])), np.float32)
    low, high = cv2.minMaxLoc(difference.reshape(len(difference), -1))[:2]
    return difference if max(-low, high) >= 0.5 else None


def paste_back(
    frame: YuvImage, face_crop: FaceCrop, difference: NDArray[np.float32], mask: NDArray[np.float32], grain_seed: int | None = None
) -> None:
    """Add a mouth's difference to the frame, in place.

    Where the model changed a lot, the frame's fine detail (what the crop could not carry) gives way to the generated pixel; where it
    changed little, the detail stays and only the change is added. So a crop smaller than the face does not blur the skin around the
    mouth, and samples the model left alone keep their value to the bit.

    Args:
        frame: writable planes.
        face_crop: the crop `difference` belongs to.
        difference: (S, S, 3) float32 RGB, from `mouth_difference`.
        mask: (S, S) float32, the one `difference` was made with; samples outside it keep their value to the bit.
        grain_seed: of the noise that makes up for a grainy source's where the edit smooths it away, see `match_grain`; None makes up nothing.
    """
    size_px = difference.shape[0]
    red, green, blue = cv2.split(cv2.absdiff(difference, np.zeros(1)))
    strongest = np.asarray(cv2.max(cv2.max(red, green), blue), np.float32)
    pooled = np.asarray(cv2.GaussianBlur(cv2.dilate(strongest, np.ones((3, 3), np.uint8)), (0, 0), DETAIL_BLUR * size_px), np.float32)
    replaced = np.minimum(pooled * np.float32(1 / REPLACED_AT), np.float32(1.0))
    replaced *= mask  # pooling has carried it beyond the mask's edge
    replaced[replaced < 1 / 64] = 0.0
    replaced[[0, -1]] = replaced[:, [0, -1]] = 0.0
    active = (strongest >= 1 / 64) | (replaced > 0)
    rows, columns = np.flatnonzero(active.any(1)), np.flatnonzero(active.any(0))
    top, bottom = max(0, int(rows[0]) - 1), min(size_px, int(rows[-1]) + 2)
    left, right = max(0, int(columns[0]) - 1), min(size_px, int(columns[-1]) + 2)
    part = np.s_[top:bottom, left:right]
    change_yuv = cv2.transform(_signal_change(face_crop.image[part], difference[part], frame.colour.curve), frame.colour.rgb_to_yuv) * frame.unit
    from_part = np.vstack([invert_affine(face_crop.frame_to_crop), [0.0, 0.0, 1.0]]) @ np.array([[1, 0, left], [0, 1, top], [0, 0, 1]])
    corners = np.array([[-1, -1, 1], [right - left, -1, 1], [-1, bottom - top, 1], [right - left, bottom - top, 1]])
    for index, plane in enumerate(frame.planes):
        to_plane = (frame.luma_to_plane(index) @ from_part)[:2]
        x1, y1, x2, y2 = _bounds(corners @ to_plane.T, plane.shape)
        if x1 >= x2 or y1 >= y2:
            continue
        to_region = to_plane - np.array([[0, 0, x1], [0, 0, y1]])
        size_wh = x2 - x1, y2 - y1
        original = face_crop.yuv[part][:, :, index].astype(np.float32)
        changes = np.asarray(cv2.merge([change_yuv[:, :, index], replaced[part], original]), np.float32)
        change, weight, crop_sample = cv2.split(warp(changes, to_region, size_wh, cv2.BORDER_CONSTANT))
        region = plane[y1:y2, x1:x2]
        before = region.copy() if index == 0 and grain_seed is not None else None
        faded = cv2.multiply(weight, cv2.subtract(region, crop_sample, dtype=cv2.CV_32F))
        if frame.bits == 8:
            np.copyto(region, np.asarray(cv2.add(region, cv2.subtract(change, faded), dtype=cv2.CV_8U)))
        else:
            edited = np.asarray(cv2.add(region, cv2.subtract(change, faded), dtype=cv2.CV_16U))
            np.copyto(region, np.minimum(edited, (1 << frame.bits) - 1))
        if before is not None and grain_seed is not None:
            match_grain(before, region, (weight > 0) | (np.abs(change) >= 0.5), frame.unit, grain_seed)


def _signal_change(image: NDArray[np.uint8], difference: NDArray[np.float32], curve: SdrCurve | None) -> NDArray[np.float32]:
    """Return a change of an SDR picture as one of the stream's own signal, (h, w, 3) RGB."""
    if curve is None:
        return difference
    return np.asarray(curve.from_sdr(image + difference) - curve.from_sdr(image), np.float32)


def _bounds(points: NDArray[np.float64], shape_hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    low = np.floor(points.min(0)).astype(int)
    high = np.ceil(points.max(0)).astype(int) + 1
    return max(0, int(low[0])), max(0, int(low[1])), min(shape_hw[1], int(high[0])), min(shape_hw[0], int(high[1]))
