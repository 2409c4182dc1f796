"""A short talking-head clip out of a photograph: NASA's portrait of Eileen Collins (public domain), which scikit-image ships."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

SIZE_PX = 640
FRAME_RATE = 25
DURATION_S = 6
"""Length of the demo's clip, s."""

_FACE_XY = (226.0, 150.0)
"""Middle of the view, px of the photograph."""

_VIEW_PX = (360.0, 280.0)
"""Side of the view at the beginning and at the end, px of the photograph."""

_SWAY_PX = 10.0
"""How far the view moves sideways, px of the photograph."""


def make_clip(path: Path, duration_s: int = DURATION_S) -> None:
    """Write the clip: the camera slowly closes in on the face, swaying a little."""
    from skimage.data import astronaut  # noqa: PLC0415 (an extra that only the demo and the tests install)

    photograph = astronaut()
    count = duration_s * FRAME_RATE
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "16", "preset": "veryfast"})
        stream.width = stream.height = SIZE_PX
        stream.pix_fmt = "yuv420p"
        for index in range(count):
            picture = av.VideoFrame.from_ndarray(_view(photograph, index / (count - 1)), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, FRAME_RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _view(photograph: NDArray[np.uint8], progress: float) -> NDArray[np.uint8]:
    """Return the (640, 640, 3) RGB view at `progress` 0..1."""
    eased = 0.5 - 0.5 * np.cos(np.pi * progress)
    side = _VIEW_PX[0] + (_VIEW_PX[1] - _VIEW_PX[0]) * eased
    scale = SIZE_PX / side
    left = _FACE_XY[0] - side / 2 + _SWAY_PX * np.sin(2 * np.pi * progress)
    top = max(0.0, _FACE_XY[1] - side / 2)
    matrix = np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])
    return np.asarray(cv2.warpAffine(photograph, matrix, (SIZE_PX, SIZE_PX), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.uint8)
