"""Paste-back: the generated mouth goes into the frame's own YUV planes, touching no sample that need not change."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from postprocess.grain import Grain, grain_of, match_grain
from preprocess.align import invert_affine, warp
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
        left, top, right, bottom = rectangle_around(cv2.absdiff(mouth_patch[part], face_crop.image[part]))
        if left == right:
            return None
        reach = 2 + _pool_radius(size_px)
        left, right = max(inside[0], inside[0] + left - reach), min(inside[2], inside[0] + right + reach)
        top, bottom = max(inside[1], inside[1] + top - reach), min(inside[3], inside[1] + bottom + reach)
    part = np.s_[top:bottom, left:right]
    share = np.ascontiguousarray(mask[part])
    unmasked = cv2.subtract(mouth_patch[part], face_crop.image[part], dtype=cv2.CV_32F)
    difference = np.asarray(cv2.multiply(unmasked, cv2.merge([share, share, share])), np.float32)
    low, high = cv2.minMaxLoc(difference.reshape(len(difference), -1))[:2]
    return MouthChange(left, top, difference, share) if max(-low, high) >= 0.5 else None


def rectangle_around(values: NDArray[Any]) -> tuple[int, int, int, int]:
    """Return the smallest x1, y1, x2, y2 around what of (h, w) or (h, w, c) values is not 0; all 0 for nothing."""
    in_bytes = values.reshape(len(values), -1).view(np.uint8)
    column = in_bytes.shape[1] // values.shape[1]
    x, y, width, height = cv2.boundingRect(in_bytes)
    return x // column, y, -(-(x + width) // column), y + height


def _pool_radius(size_px: int) -> int:
    """Return how far pooling a difference reaches, px: three standard deviations."""
    return math.ceil(3 * DETAIL_BLUR * size_px)


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
    first, second, third = channels_of(np.abs(change.difference))
    strongest = cv2.dilate(cv2.max(cv2.max(first, second), third), np.ones((3, 3), np.uint8))
    pooled = cv2.GaussianBlur(strongest, [2 * _pool_radius(size_px) + 1] * 2, DETAIL_BLUR * size_px)
    replaced = np.minimum(pooled * np.float32(1 / REPLACED_AT), np.float32(1.0))
    replaced *= change.mask  # pooling has carried it beyond the mask's edge
    replaced = np.asarray(cv2.threshold(replaced, _LEAST_REPLACED, 0.0, cv2.THRESH_TOZERO)[1], np.float32)
    signal = _signal_change(face_crop.image[part], change.difference, frame.colour.curve)
    changes = channels_of(cv2.transform(signal, frame.colour.rgb_to_yuv * frame.unit))
    # What is to be seen, resampled together with its weight: the change, and the crop's own samples as far as they replace the frame's.
    shown_y, shown_u, shown_v = (
        np.asarray(cv2.add(own_change, cv2.multiply(replaced, own, dtype=cv2.CV_32F)), np.float32)
        for own_change, own in zip(changes, channels_of(face_crop.yuv[part]), strict=True)
    )
    to_part = face_crop.frame_to_crop - [[0, 0, change.left], [0, 0, change.top]]
    grain = None
    if place := _place(replaced.shape, to_part @ frame.plane_to_luma(0), frame.planes[0].shape):
        region = frame.planes[0][place.region]
        grain = None if grain_seed is None else grain_of(region, frame.unit)
        _blend(frame, region, place.warped(shown_y), place.warped(replaced), grain, (grain_seed or 0, 0))
    if place := _place(replaced.shape, to_part @ frame.plane_to_luma(1), frame.planes[1].shape):
        # A fourth channel that nobody reads: OpenCV resamples four in half the time of three.
        *both, weight = channels_of(place.warped(np.asarray(cv2.merge([shown_u, shown_v, replaced, replaced]), np.float32)))
        for number, (plane, shown) in enumerate(zip(frame.planes[1:], both, strict=True), 1):
            region = plane[place.region]
            chroma_grain = None if grain is None else grain_of(region, frame.unit, grain)
            _blend(frame, region, shown, weight, chroma_grain, (grain_seed or 0, number))


def _blend(
    frame: YuvImage, region: Plane, shown: NDArray[np.float32], weight: NDArray[np.float32], grain: Grain | None, seed: tuple[int, int]
) -> None:
    """Let (h, w) float32 `shown` replace samples of the frame, as far as the weight says, in place and inside their range."""
    change = cv2.subtract(shown, cv2.multiply(weight, region, dtype=cv2.CV_32F))
    if frame.bits == 8:
        np.copyto(region, np.asarray(cv2.add(region, change, dtype=cv2.CV_8U)))
    else:
        np.copyto(region, np.minimum(np.asarray(cv2.add(region, change, dtype=cv2.CV_16U)), (1 << frame.bits) - 1))
    if grain is not None:
        match_grain(grain, region, (weight > 0) | (np.abs(change) >= 0.5), frame.unit, seed)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a part of the crop is in a plane."""

    region: tuple[slice, slice]
    to_region: NDArray[np.float64]
    """(2, 3), px of the part to px of the region."""

    def warped(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values of the part, (h, w) or (h, w, c), resampled to the region, 0 outside the part."""
        rows, columns = self.region
        return warp(values, self.to_region, (columns.stop - columns.start, rows.stop - rows.start), cv2.BORDER_CONSTANT)


def _place(part_hw: tuple[int, ...], to_part: NDArray[np.float64], plane_hw: tuple[int, ...]) -> _Place | None:
    """Find the place of a part of the crop in a plane, whose px a (2, 3) affine takes to those of the part; None if it is outside."""
    to_plane = invert_affine(to_part)
    around = [(x, y) for x in (-1, part_hw[1]) for y in (-1, part_hw[0])]
    (x1, x2), (y1, y2) = (
        (max(0, math.floor(min(places))), min(size, math.ceil(max(places)) + 1))
        for places, size in zip(([a * x + b * y + c for x, y in around] for a, b, c in to_plane.tolist()), plane_hw[::-1], strict=True)
    )
    return _Place(np.s_[y1:y2, x1:x2], to_plane - [[0, 0, x1], [0, 0, y1]]) if x1 < x2 and y1 < y2 else None


def _signal_change(image: NDArray[np.uint8], difference: NDArray[np.float32], curve: SdrCurve | None) -> NDArray[np.float32]:
    """Return a change of an SDR picture as one of the stream's own signal, (h, w, 3) RGB."""
    if curve is None:
        return difference
    return np.asarray(curve.from_sdr(image + difference) - curve.from_sdr(image), np.float32)
