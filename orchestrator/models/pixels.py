"""How networks want their pictures: colour order, range and layout, once as graph and once as array code."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.models.graph import FLOAT, Graph, Value


@dataclass(frozen=True, slots=True)
class Pixels:
    """The picture a network reads is (RGB - mean) * scale, planar."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """For each channel in the network's own order, 0..255."""
    scale: float = 1.0
    bgr: bool = False
    """Whether the network's first channel is blue."""

    def draw(self, graph: Graph, image: Value, border_hw: tuple[int, int] = (0, 0)) -> Value:
        """Return [N, 3, h, w] float32 from `image` [N, h, w, 3] uint8 RGB, with black rows below and columns to the right."""
        planar = image.cast(FLOAT).transpose(0, 3, 1, 2)
        if any(border_hw):
            planar = graph.op("Pad", planar, graph.integers([0, 0, 0, 0, 0, 0, *border_hw]))
        if self.bgr:
            planar = swap_channels(graph, planar)
        if any(self.mean):
            planar = planar - np.reshape(self.mean, (1, 3, 1, 1))
        return planar if self.scale == 1.0 else planar * self.scale

    def feed(self, image: NDArray[np.uint8], border_hw: tuple[int, int] = (0, 0)) -> NDArray[np.float32]:
        """Return (1, 3, h, w) float32 from (h, w, 3) uint8 RGB, with black rows below and columns to the right."""
        whole = np.pad(image, ((0, border_hw[0]), (0, border_hw[1]), (0, 0)))
        picture = whole[:, :, ::-1] if self.bgr else whole
        normal = (picture.astype(np.float32) - np.array(self.mean, np.float32)) * np.float32(self.scale)
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])

    def __str__(self) -> str:
        order = "BGR" if self.bgr else "RGB"
        mean = self.mean[0] if len(set(self.mean)) == 1 else self.mean
        return f"({order} 0..255 - {mean}) * {self.scale:g}" if any(self.mean) else f"{order} 0..255 * {self.scale:g}"


def swap_channels(graph: Graph, planar: Value) -> Value:
    """Return [N, 3, h, w] with red and blue swapped."""
    return graph.op("Gather", planar, graph.integers([2, 1, 0]), axis=1)


def upper_half(size_px: int) -> NDArray[np.float32]:
    """Return (1, 1, S, 1) float32: 1 in the upper half of a face, 0 in the lower one, which lip networks are not shown."""
    return (np.arange(size_px) < size_px // 2).astype(np.float32).reshape(1, 1, -1, 1)


def draw_uint8(graph: Graph, planar: Value, size_px: int, bgr: bool) -> Value:
    """Return [N, S, S, 3] uint8 RGB from planar [N, 3, S, S] 0..255: limited and rounded. The cast comes last: TensorRT has no other uint8."""
    planar = planar.reshape(-1, 3, size_px, size_px)
    if bgr:
        planar = swap_channels(graph, planar)
    return graph.op("Round", planar.clip(0.0, 255.0)).transpose(0, 2, 3, 1).cast(2)


def read_uint8(planar: NDArray[np.float32], size_px: int, bgr: bool) -> NDArray[np.uint8]:
    """Return (S, S, 3) uint8 RGB from planar 0..255 of any leading shape."""
    picture = np.rint(np.clip(planar.astype(np.float32), 0, 255)).astype(np.uint8).reshape(3, size_px, size_px).transpose(1, 2, 0)
    return np.ascontiguousarray(picture[:, :, ::-1] if bgr else picture)


def draw_squeeze(graph: Graph, planar: Value, size_px: int, shape_hw: tuple[int, int]) -> Value:
    """Return square pictures [N, 3, S, S] squeezed to the network's [N, 3, h, w]."""
    factor = max(1, size_px // max(shape_hw))
    if factor > 1:  # plain interpolation would skip pixels
        planar = graph.op("AveragePool", planar, kernel_shape=[factor, factor], strides=[factor, factor])
    if (size_px // factor, size_px // factor) == shape_hw:
        return planar
    scales = graph.constant([1.0, 1.0, *(side * factor / size_px for side in shape_hw)])
    return graph.op("Resize", planar, graph.constant(np.zeros(0)), scales, mode="linear", coordinate_transformation_mode="half_pixel")


def feed_squeeze(planar: NDArray[np.float32], shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Do to (1, 3, S, S) what `draw_squeeze` does."""
    size_px = planar.shape[2]
    factor = max(1, size_px // max(shape_hw))
    small = planar.reshape(3, size_px // factor, factor, size_px // factor, factor).mean((2, 4), dtype=np.float32)
    resized = cv2.resize(np.ascontiguousarray(small.transpose(1, 2, 0)), shape_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.ascontiguousarray(resized.transpose(2, 0, 1)[None]), np.float32)
