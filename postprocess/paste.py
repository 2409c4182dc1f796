"""Paste-back: the generated mouth goes into the frame's own YUV planes, touching no sample that need not change."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from postprocess.grain import grain_of, match_grain
from preprocess.align import as_3x3, invert_affine, warp
from preprocess.hdr import SdrCurve
from preprocess.yuv import FaceCrop, Plane, YuvImage

REPLACED_AT = 24.0
"""Difference between generated and original pixel (0..255) at which the frame's own fine detail is fully replaced."""

DETAIL_BLUR = 0.012
"""Radius over which that difference is pooled, in 0..1 of the crop."""

_LEAST_REPLACED = 1 / 64
"""Share below which a pixel is not replaced at all."""


@dataclass(frozen=True, slots=True)
class MouthChange:
    """What a model changed of a crop: the part of it that holds every change, and nothing beyond what pooling them reaches."""

    left: int
    """Column of the crop in which the part begins, px."""
    top: int
    """Its row, px."""
    difference: NDArray[np.float32]
    """(h, w, 3) RGB, generated less original, times the mask."""
    mask: NDArray[np.float32]
    """(h, w), 1 keeps the generated pixel."""

    @property
    def part(self) -> tuple[slice, slice]:
        """Where the part is in the crop's arrays."""
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def mouth_change(face_crop: FaceCrop, mouth_patch: NDArray[np.uint8] | NDArray[np.float32], mask: NDArray[np.float32]) -> MouthChange | None:
    """Return what the lip model changed inside the mask, None where it changed nothing.

    Args:
        face_crop: the crop the model was given.
        mouth_patch: (S, S, 3) RGB, 0..255, what it made of it.
        mask: (S, S) float32, 1 keeps the generated pixel.
    """
    if mouth_patch.shape != face_crop.image.shape:
        raise ValueError(f"expected a mouth patch of shape {face_crop.image.shape}, got {mouth_patch.shape}")
    size_px = len(mask)
    left, top, right, bottom = (edge + 1 for edge in rectangle_around(mask[1:-1, 1:-1]))
    if left == right:
        return None
    if mouth_patch.dtype == np.uint8:
        part = np.s_[top:bottom, left:right]
        inside = left, top, right, bottom
        left, top, right, bottom = rectangle_around(largest_channel(cv2.absdiff(mouth_patch[part], face_crop.image[part])))
        if left == right:
            return None
        reach = 2 + math.ceil(4 * DETAIL_BLUR * size_px)
        left, right = max(inside[0], inside[0] + left - reach), min(inside[2], inside[0] + right + reach)
        top, bottom = max(inside[1], inside[1] + top - reach), min(inside[3], inside[1] + bottom + reach)
    part = np.s_[top:bottom, left:right]
    share = np.ascontiguousarray(mask[part])
    unmasked = cv2.subtract(mouth_patch[part], face_crop.image[part], dtype=cv2.CV_32F)
    difference = np.asarray(cv2.multiply(unmasked, cv2.merge([share, share, share])), np.float32)
    low, high = cv2.minMaxLoc(difference.reshape(len(difference), -1))[:2]
    return MouthChange(left, top, difference, share) if max(-low, high) >= 0.5 else None


def rectangle_around(values: NDArray[Any]) -> tuple[int, int, int, int]:
    """Return the smallest x1, y1, x2, y2 around what of (h, w) values is above 0; all 0 for nothing."""
    x, y, width, height = cv2.boundingRect(np.asarray(values > 0).view(np.uint8))
    return x, y, x + width, y + height


def largest_channel(picture: NDArray[Any]) -> NDArray[Any]:
    """Return the (h, w) largest of the three channels of each pixel, (h, w, 3)."""
    first, second, third = channels_of(picture)
    return np.asarray(cv2.max(cv2.max(first, second), third), picture.dtype)


def channels_of(picture: NDArray[Any]) -> list[NDArray[Any]]:
    """Return copies of the first three channels of (h, w, c) values, each (h, w): `cv2.split` takes twice the time."""
    return [np.asarray(cv2.extractChannel(picture, channel), picture.dtype) for channel in range(3)]


def paste_back(frame: YuvImage, face_crop: FaceCrop, change: MouthChange, grain_seed: int | None = None) -> None:
    """Add a mouth's change to the frame, in place.

    Where the model changed a lot, the frame's fine detail (what the crop could not carry) gives way to the generated pixel; where it
    changed little, the detail stays and only the change is added. So a crop smaller than the face does not blur the skin around the
    mouth, and samples the model left alone keep their value to the bit, as do those outside the mask.

    Args:
        frame: writable planes.
        face_crop: the crop that was changed.
        change: from `mouth_change`.
        grain_seed: of the noise that makes up for a grainy source's where the edit smooths it away, see `match_grain`; None makes up nothing.
    """
    size_px, part = len(face_crop.image), change.part
    strongest = largest_channel(cv2.absdiff(change.difference, np.zeros(1)))
    pooled = cv2.GaussianBlur(cv2.dilate(strongest, np.ones((3, 3), np.uint8)), (0, 0), DETAIL_BLUR * size_px)
    replaced = np.minimum(pooled * np.float32(1 / REPLACED_AT), np.float32(1.0))
    replaced *= change.mask  # pooling has carried it beyond the mask's edge
    replaced = np.asarray(cv2.threshold(replaced, _LEAST_REPLACED, 0.0, cv2.THRESH_TOZERO)[1], np.float32)
    signal = _signal_change(face_crop.image[part], change.difference, frame.colour.curve)
    y, u, v = channels_of(cv2.transform(signal, frame.colour.rgb_to_yuv * frame.unit))
    crop_y, crop_u, crop_v = channels_of(face_crop.yuv[part])
    height, width = replaced.shape
    from_part = as_3x3(invert_affine(face_crop.frame_to_crop)) @ np.array([[1.0, 0, change.left], [0, 1, change.top], [0, 0, 1]])
    corners = np.array([[-1, -1, 1], [width, -1, 1], [-1, height, 1], [width, height, 1]])
    luma, chroma = frame.planes[0], frame.planes[1:]
    grain = None
    if place := _place(corners, frame.luma_to_plane(0) @ from_part, luma.shape):
        added, weight, crop_sample = place.warped(y, replaced, crop_y.astype(np.float32))
        region = luma[place.region]
        faded = cv2.multiply(weight, cv2.subtract(region, crop_sample, dtype=cv2.CV_32F))
        grain = None if grain_seed is None else grain_of(region, frame.unit)
        _add(region, cv2.subtract(added, faded), frame.bits)
        if grain is not None and grain_seed is not None:
            match_grain(grain, region, (weight > 0) | (np.abs(added) >= 0.5), frame.unit, (grain_seed, 0))
    if place := _place(corners, frame.luma_to_plane(1) @ from_part, chroma[0].shape):
        # Chroma has little detail of its own, so what replaces it may be resampled together with its weight: both planes in one go.
        new_u, new_v = (cv2.add(added, cv2.multiply(replaced, own, dtype=cv2.CV_32F)) for added, own in ((u, crop_u), (v, crop_v)))
        *new, weight = place.warped(new_u, new_v, replaced)
        for number, (plane, added) in enumerate(zip(chroma, new, strict=True), 1):
            region = plane[place.region]
            chroma_grain = None if grain is None else grain_of(region, frame.unit, grain)
            _add(region, cv2.subtract(added, cv2.multiply(weight, region, dtype=cv2.CV_32F)), frame.bits)
            if chroma_grain is not None and grain_seed is not None:
                match_grain(chroma_grain, region, weight > 0, frame.unit, (grain_seed, number))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part of the crop is in a plane."""

    region: tuple[slice, slice]
    to_region: NDArray[np.float64]
    """(2, 3), px of the part to px of the region."""

    def warped(self, *in_part: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Return three (h, w) float32 arrays of the part resampled to the region, 0 outside the part."""
        rows, columns = self.region
        # A fourth channel that nobody reads: OpenCV resamples four in half the time of three.
        merged = np.asarray(cv2.merge([*in_part, in_part[-1]]), np.float32)
        return channels_of(warp(merged, self.to_region, (columns.stop - columns.start, rows.stop - rows.start), cv2.BORDER_CONSTANT))


def _place(corners: NDArray[np.float64], to_plane: NDArray[np.float64], shape_hw: tuple[int, ...]) -> _Place | None:
    """Find the place of a part with (4, 3) homogeneous corners in a plane; None if it is outside."""
    points = corners @ to_plane[:2].T
    x1, y1 = np.maximum(0, np.floor(points.min(0))).astype(int).tolist()
    x2, y2 = np.minimum(shape_hw[::-1], np.ceil(points.max(0)) + 1).astype(int).tolist()
    return _Place(np.s_[y1:y2, x1:x2], to_plane[:2] - [[0, 0, x1], [0, 0, y1]]) if x1 < x2 and y1 < y2 else None


def _add(region: Plane, change: NDArray[Any], bits: int) -> None:
    """Add (h, w) float32 to samples, in place, inside their range."""
    if bits == 8:
        np.copyto(region, np.asarray(cv2.add(region, change, dtype=cv2.CV_8U)))
    else:
        np.copyto(region, np.minimum(np.asarray(cv2.add(region, change, dtype=cv2.CV_16U)), (1 << bits) - 1))


def _signal_change(image: NDArray[np.uint8], difference: NDArray[np.float32], curve: SdrCurve | None) -> NDArray[np.float32]:
    """Return a change of an SDR picture as one of the stream's own signal, (h, w, 3) RGB."""
    if curve is None:
        return difference
    return np.asarray(curve.from_sdr(image + difference) - curve.from_sdr(image), np.float32)
