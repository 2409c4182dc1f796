"""The samples of a picture as arrays over its own memory: what is written to them is written to the picture."""

import av
import numpy as np
from numpy.typing import NDArray

from orchestrator.media.formats import PixelLayout
from preprocess.yuv import Plane


def plane_view(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    """Return the (h, w) uint8 samples of a plane over the frame's own memory, without a copy."""
    samples: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    return samples.reshape(plane.height, plane.line_size)[:, : plane.width]


def sample_views(picture: av.VideoFrame) -> list[Plane]:
    """Return the (h, w) samples of every plane of a picture like `plane_view`: uint8, or uint16 where they have more than 8 bits."""
    if PixelLayout.of(picture.format.name).bits == 8:
        return [plane_view(plane) for plane in picture.planes]
    wide = ((plane, np.frombuffer(memoryview(plane), np.uint16)) for plane in picture.planes)
    return [samples.reshape(plane.height, plane.line_size // 2)[:, : plane.width] for plane, samples in wide]
