"""Similarity alignment: from five landmarks in the frame to the canonical crop a model expects, and back."""

import math
from types import MappingProxyType
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

CROP_TEMPLATES = MappingProxyType(
    {
        "lower_face": (
            (0.352, 0.220),
            (0.648, 0.220),
            (0.501, 0.393),
            (0.371, 0.528),
            (0.634, 0.528),
        ),
        "ffhq_512": (
            (0.37691676, 0.46864664),
            (0.62285697, 0.46912813),
            (0.50123859, 0.61331904),
            (0.39308822, 0.72541100),
            (0.61150205, 0.72490465),
        ),
        "arcface_112_v2": (
            (0.34191607, 0.46157411),
            (0.65653393, 0.45983393),
            (0.50022500, 0.64050536),
            (0.37097589, 0.82469196),
            (0.63151696, 0.82325089),
        ),
        "dlib_150": (
            (0.31699, 0.31066),
            (0.66984, 0.31066),
            (0.49342, 0.51042),
            (0.33610, 0.68682),
            (0.65074, 0.68682),
        ),
        "wav2lip_box": (
            (0.268, 0.390),
            (0.732, 0.390),
            (0.500, 0.587),
            (0.305, 0.720),
            (0.695, 0.720),
        ),
        "musetalk_box": (
            (0.276, 0.344),
            (0.724, 0.344),
            (0.500, 0.545),
            (0.335, 0.720),
            (0.665, 0.720),
        ),
    }
)
"""Canonical positions of left eye, right eye, nose tip, left and right mouth corner (as seen in the image), in 0..1 of the crop.

`ffhq_512` and `arcface_112_v2` are the published FFHQ and InsightFace templates. `dlib_150` is where dlib's mean face of 68 points
(`mean_face_shape_x` and `_y` of its image_transforms/interpolation.h) has them in a chip with a border of 0.25. `lower_face` is the FFHQ
template enlarged 1.2 times and moved up, so that a quarter of the crop is left below the chin for a jaw that opens. `wav2lip_box` is where
the points lie in what Wav2Lip was trained on: a detector's box (hairline to chin, cheek to cheek) with 4 % more below, made square.
Measured: the mean of YuNet's and CenterFace's boxes, both trained on WIDER FACE as Wav2Lip's own detector was, on three presenters.
`musetalk_box` is MuseTalk's: jaw to jaw, the chin below and as far above the bridge of the nose, 4 % more below; measured with PFLD's 98
points on the same presenters.
"""

CROP_STRETCH = MappingProxyType({"wav2lip_box": 1.42, "musetalk_box": 1.30})
"""How many times wider than high a template shows the frame's pixels; 1 where it is not named. Both networks make high boxes square."""


def crop_template(name: str, size_px: int) -> NDArray[np.float32]:
    """Return the template's five points, (5, 2) float32, px of a `size_px` square crop.

    Raises:
        ValueError: there is no template of that name.
    """
    if name not in CROP_TEMPLATES:
        raise ValueError(f"expected one of the crop templates {sorted(CROP_TEMPLATES)}, got {name!r}")
    return np.asarray(CROP_TEMPLATES[name], np.float32) * np.float32(size_px)


def frame_to_crop_matrix(landmarks5: NDArray[np.float32], template5: NDArray[np.float32], stretch: float = 1.0) -> NDArray[np.float64]:
    """Return the (2, 3) transform that brings `landmarks5` closest to `template5` in the least-squares sense.

    Both are (5, 2), px with the centre of the first pixel at 0. The transform turns, scales and moves; it never mirrors or shears, so
    a tilted (or rotated) face comes out upright. Method: Umeyama 1991, closed form for two dimensions. With a `stretch` (of
    `CROP_STRETCH`), the upright face is then made that many times wider.

    Raises:
        ValueError: the points have another shape or all fall together.
    """
    if landmarks5.shape != (5, 2) or template5.shape != (5, 2):
        raise ValueError(f"expected two (5, 2) arrays, got {landmarks5.shape} and {template5.shape}")
    source = landmarks5.astype(np.float64)
    target = template5.astype(np.float64) / (stretch, 1.0)
    source_mean, target_mean = source.mean(0), target.mean(0)
    s, t = source - source_mean, target - target_mean
    spread = float((s * s).sum())
    if spread < 1e-9:
        raise ValueError("expected five separate landmarks, got points that fall together")
    # As complex numbers a similarity is one multiplication: t ~ (a + ib) * s.
    a = float((s * t).sum()) / spread
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / spread
    linear = np.array([[a, -b], [b, a]])
    return np.hstack([linear, (target_mean - linear @ source_mean)[:, None]]) * [[stretch], [1.0]]


DType = TypeVar("DType", np.uint8, np.float32)


def invert_affine(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (2, 3) affine that undoes a (2, 3) affine."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float64)


def as_3x3(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a (2, 3) affine as the (3, 3) matrix that can be multiplied with others."""
    matrix = np.eye(3)
    matrix[:2] = affine
    return matrix


_ALIASING_SCALE = 0.6
"""Below this scale linear interpolation skips source pixels visibly, so the source is shrunk with an area filter first."""


def warp(image: NDArray[DType], matrix: NDArray[np.float64], size_wh: tuple[int, int], border: int) -> NDArray[DType]:
    """Resample an image through an affine map without aliasing.

    Args:
        image: (h, w) or (h, w, c), uint8 or float32.
        matrix: (2, 3), px of `image` to px of the result, pixel centres at whole numbers.
        size_wh: size of the result.
        border: what lies outside: `cv2.BORDER_REPLICATE`, or `cv2.BORDER_CONSTANT` for zero.
    """
    (a, b), (c, d) = matrix[:, :2].tolist()
    scale = math.sqrt(abs(a * d - b * c))
    if scale < _ALIASING_SCALE:
        # INTER_AREA in warpAffine is silently linear: cut out what the result shows, shrink that with a real area filter, and warp the rest. By a
        # whole number, since OpenCV takes up to sixteen times as long for others.
        height, width = image.shape[:2]
        times = round(1 / scale)
        to_source = invert_affine(matrix)
        corners = np.array([[0, 0, 1], [size_wh[0], 0, 1], [0, size_wh[1], 1], [size_wh[0], size_wh[1], 1]]) @ to_source.T
        margin = 2.0 / scale
        left, top = np.clip(np.floor(corners.min(0) - margin).astype(int), 0, (width - 1, height - 1)).tolist()
        right, bottom = np.clip(np.ceil(corners.max(0) + margin).astype(int) + 1, (left + 1, top + 1), (width, height)).tolist()
        small_wh = -(-(right - left) // times), -(-(bottom - top) // times)
        part = image[top : top + small_wh[1] * times, left : left + small_wh[0] * times]
        missing_wh = small_wh[0] * times - part.shape[1], small_wh[1] * times - part.shape[0]
        if any(missing_wh):
            part = np.asarray(cv2.copyMakeBorder(part, 0, missing_wh[1], 0, missing_wh[0], border), image.dtype)
        # Pixel centres: x_full = (x_small + 0.5) * times - 0.5 + left.
        to_full = np.array([[times, 0, 0.5 * times - 0.5 + left], [0, times, 0.5 * times - 0.5 + top], [0, 0, 1]])
        image = np.asarray(cv2.resize(part, small_wh, interpolation=cv2.INTER_AREA), image.dtype)
        matrix = matrix @ to_full
    return np.asarray(cv2.warpAffine(image, matrix, size_wh, flags=cv2.INTER_LINEAR, borderMode=border), image.dtype)
