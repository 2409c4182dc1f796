"""Dense landmarks: the crop a landmark model is given, and the five points that its points stand for."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

FIVE_OF: Mapping[str, tuple[tuple[int, ...], ...]] = MappingProxyType(
    {
        "68": (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,)),
        "98": ((96,), (97,), (54,), (76,), (82,)),
        "106": ((38,), (88,), (86,), (52,), (61,)),
        "468": ((33, 133, 159, 145), (263, 362, 386, 374), (1,), (61,), (291,)),
    }
)
"""For each scheme, the points whose mean is left eye, right eye, nose tip, left and right mouth corner (as seen in the image).

68 is iBUG 300-W, 98 WFLW (96 and 97 are pupils), 106 InsightFace's, 468 MediaPipe's face mesh.
"""


LOWER_FACE_OF: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "68": (*range(1, 16), 29),
        "98": (*range(3, 30), 52),
        "106": (*range(33), 73),
        "468": (93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 195),
    }
)
"""For each scheme, points whose convex hull is the lower face: the jaw from ear to ear, and the bridge of the nose."""


def box_to_crop_matrix(box_xyxy: NDArray[np.float32], crop_scale: float, size_px: int) -> NDArray[np.float64]:
    """Return the (2, 3) affine from px of the frame to a square of `size_px`, cut around a box.

    Args:
        box_xyxy: (4,) px, x2 and y2 exclusive.
        crop_scale: side of the square relative to the box's longer side.
        size_px: side of the crop.
    """
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    scale = size_px / (max(x2 - x1, y2 - y1, 1.0) * crop_scale)
    centre = np.array([(x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2])
    return np.hstack([np.eye(2) * scale, ((size_px - 1) / 2 - scale * centre)[:, None]])


def five_points(landmarks: NDArray[np.float32], scheme: str) -> NDArray[np.float32]:
    """Return (..., 5, 2) points from (..., P, 2) landmarks of a scheme.

    Raises:
        ValueError: the scheme is not known, or has another number of points.
    """
    if scheme not in FIVE_OF or landmarks.shape[-2] != int(scheme):
        raise ValueError(f"expected landmarks of one of the schemes {sorted(FIVE_OF)}, got {landmarks.shape[-2]} points of {scheme!r}")
    return np.stack([landmarks[..., list(points), :].mean(-2) for points in FIVE_OF[scheme]], axis=-2).astype(np.float32)


def lower_face(landmarks: NDArray[np.float32], scheme: str) -> NDArray[np.float32]:
    """Return the (..., M, 2) points of `LOWER_FACE_OF` out of (..., P, 2) landmarks of a scheme."""
    return landmarks[..., list(LOWER_FACE_OF[scheme]), :]
