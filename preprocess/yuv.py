"""YUV pictures as plane views: colour matrices, chroma geometry, and the aligned face crop cut straight out of the planes.

Everything between decoder and encoder stays YUV. Conversions are affine maps of three numbers, so any matrix, range and chroma
subsampling goes through the same code.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.align import warp
from preprocess.hdr import SdrCurve

Plane = NDArray[np.unsignedinteger[Any]]
"""Samples of 8 bits, or of 10 in 16."""


@dataclass(frozen=True, slots=True)
class ColourMatrix:
    """How YUV samples (0..255) of one stream relate to RGB (0..255)."""

    yuv_to_rgb: NDArray[np.float32]
    """(3, 4): RGB = M[:, :3] @ YUV + M[:, 3]."""
    rgb_to_yuv: NDArray[np.float32]
    """(3, 3), for differences of colours: the offset cancels."""
    curve: SdrCurve | None = None
    """How an HDR signal becomes one that models know; None for SDR."""


def colour_matrix(kr: float, kb: float, full_range: bool, curve: SdrCurve | None = None) -> ColourMatrix:
    """Return the conversion for luma weights `kr`, `kb` (ITU-R BT.601: .299, .114; BT.709: .2126, .0722; BT.2020: .2627, .0593)."""
    kg = 1.0 - kr - kb
    forward = np.array(
        [
            [kr, kg, kb],
            [-kr / (2 * (1 - kb)), -kg / (2 * (1 - kb)), 0.5],
            [0.5, -kg / (2 * (1 - kr)), -kb / (2 * (1 - kr))],
        ]
    )
    scale = np.array([1.0, 1.0, 1.0]) if full_range else np.array([219.0, 224.0, 224.0]) / 255.0
    offset = np.array([0.0 if full_range else 16.0, 128.0, 128.0])
    rgb_to_yuv = scale[:, None] * forward
    inverse = np.linalg.inv(rgb_to_yuv)
    yuv_to_rgb = np.hstack([inverse, (-inverse @ offset)[:, None]])
    return ColourMatrix(yuv_to_rgb.astype(np.float32), rgb_to_yuv.astype(np.float32), curve)


@dataclass(frozen=True, slots=True)
class YuvImage:
    """Views of one frame's planes, 8 or 10 bit, with 4:2:0, 4:2:2 or 4:4:4 chroma."""

    planes: tuple[Plane, Plane, Plane]
    """Y (h, w), U and V (ceil(h / sy), ceil(w / sx)), uint8 or, with 10 bits, uint16."""
    subsampling_xy: tuple[int, int]
    """Luma samples per chroma sample, across and down: (2, 2), (2, 1) or (1, 1)."""
    colour: ColourMatrix
    bits: int = 8

    @property
    def unit(self) -> int:
        """Steps of a sample to one of 8 bits."""
        return 1 << (self.bits - 8)

    def luma_to_plane(self, plane: int) -> NDArray[np.float64]:
        """Return the (3, 3) map from luma px to the px of plane 0, 1 or 2 (pixel centres at whole numbers).

        Subsampled chroma sits on the left luma sample of its pair and half-way between the rows, as MPEG-2, H.264 and HEVC place it
        unless they say otherwise.
        """
        sx, sy = self.subsampling_xy if plane else (1, 1)
        return np.array([[1.0 / sx, 0.0, 0.0], [0.0, 1.0 / sy, 0.5 / sy - 0.5], [0.0, 0.0, 1.0]])

    def plane_to_luma(self, plane: int) -> NDArray[np.float64]:
        """Return the (3, 3) map that undoes `luma_to_plane`."""
        sx, sy = self.subsampling_xy if plane else (1, 1)
        return np.array([[sx, 0.0, 0.0], [0.0, sy, 0.5 * sy - 0.5], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """An aligned face, as the lip model sees it."""

    image: NDArray[np.uint8]
    """(S, S, 3) RGB."""
    yuv: Plane
    """(S, S, 3), the same pixels before conversion, full-resolution chroma, in the planes' own steps."""
    frame_to_crop: NDArray[np.float64]
    """(2, 3) affine, luma px of the frame to px of the crop."""


def crop_face(frame: YuvImage, frame_to_crop: NDArray[np.float64], size_px: int) -> FaceCrop:
    """Cut the aligned face out of a frame, converting only the crop's own pixels.

    What lies outside the frame repeats its edge.
    """
    channels = [
        warp(plane, frame_to_crop @ frame.plane_to_luma(index), (size_px, size_px), cv2.BORDER_REPLICATE) for index, plane in enumerate(frame.planes)
    ]
    yuv = np.asarray(cv2.merge(channels), frame.planes[0].dtype)
    return FaceCrop(image=_rgb(yuv, frame), yuv=yuv, frame_to_crop=frame_to_crop)


def _rgb(yuv: Plane, frame: YuvImage) -> NDArray[np.uint8]:
    """Return (h, w, 3) samples of a frame as 8-bit RGB; HDR as models know pictures."""
    if frame.bits == 8 and frame.colour.curve is None:
        return np.asarray(cv2.transform(yuv, frame.colour.yuv_to_rgb), np.uint8)
    rgb = np.asarray(cv2.transform(yuv.astype(np.float32) / np.float32(frame.unit), frame.colour.yuv_to_rgb), np.float32)
    if frame.colour.curve is not None:
        return frame.colour.curve.to_sdr(rgb)
    return np.asarray(np.rint(np.clip(rgb, 0, 255)), np.uint8)
