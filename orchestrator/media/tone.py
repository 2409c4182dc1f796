"""HDR pictures made SDR, for outputs that are to be SDR or have 8 bits: light to BT.709's curve and colours."""

from functools import cache

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.hdr import SdrCurve
from preprocess.yuv import YuvImage

_BT2020_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
"""Linear RGB (ITU-R BT.2087)."""

_GAMMA = 2.4
_STEPS = 4096


def to_sdr(frame: YuvImage) -> av.VideoFrame:
    """Return an HDR picture, whose matrix has a curve, as one in yuv420p, BT.709 and limited range.

    Highlights above diffuse white share the upper end of the range; colours that BT.709 does not have are cut to the nearest that it has.
    """
    curve = frame.colour.curve
    assert curve is not None
    height, width = frame.planes[0].shape
    planes = [
        cv2.warpAffine(plane.astype(np.float32), frame.luma_to_plane(index)[:2], (width, height), flags=_UPSCALE, borderMode=cv2.BORDER_REPLICATE)
        if plane.shape != (height, width)
        else plane.astype(np.float32)
        for index, plane in enumerate(frame.planes)
    ]
    rgb = np.asarray(cv2.transform(cv2.merge(planes) / np.float32(frame.unit), frame.colour.yuv_to_rgb), np.float32)
    linear = np.asarray(cv2.transform(_looked_up(_light(curve), rgb * np.float32(1 / 255)), _BT2020_TO_BT709), np.float32)
    shown = _looked_up(_signal(), np.sqrt(np.maximum(linear, 0))).astype(np.uint8)
    return av.VideoFrame.from_ndarray(shown, "rgb24").reformat(
        format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", interpolation="BICUBIC"
    )  # fmt: skip


_UPSCALE = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP


def _light(curve: SdrCurve) -> NDArray[np.float32]:
    places = np.linspace(0, len(curve.sdr) - 1, _STEPS)
    return np.asarray((np.interp(places, np.arange(len(curve.sdr)), curve.sdr) / 255) ** _GAMMA, np.float32)


@cache
def _signal() -> NDArray[np.float32]:
    """Return the 8-bit signal of light by its square root, which spaces the steps as the eye does."""
    root = np.linspace(0, 1, _STEPS)
    return np.asarray(np.rint(255 * root ** (2 / _GAMMA)), np.float32)


def _looked_up(table: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    places = np.rint(np.clip(values, 0, 1) * np.float32(_STEPS - 1)).astype(np.int32)
    return np.asarray(table[places], np.float32)
