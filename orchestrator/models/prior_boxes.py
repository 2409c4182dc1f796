"""UltraFace and RetinaFace as the `face_detector` role: detectors that answer one long list of anchor boxes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.config import ModelConfig
from orchestrator.models.detection import Detector, candidate_rows, detector_config, map_grid
from orchestrator.models.graph import Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.picture import Picture, PictureNetwork, input_shape
from orchestrator.models.pixels import Pixels, draw_squeeze, feed_squeeze
from orchestrator.models.wrapping import Arrays, Run, check_floats, resolve_outputs

ULTRAFACE_PICTURE_PX = 640
"""Least side of the picture sent, also where the network's own is smaller: the landmark role is given faces cut out of the same picture."""

_ULTRAFACE_EXPECTED = [
    "input FLOAT [N, 3, 240, 320] or [N, 3, 480, 640]",
    "output scores FLOAT [N, boxes, 2]",
    "output boxes FLOAT [N, boxes, 4], corners in 0..1",
]

_RETINAFACE_EXPECTED = [
    "input FLOAT [N, 3, H, W], multiples of 32",
    "output loc FLOAT [N, 42 H/32 W/32, 4]",
    "output conf FLOAT [N, 42 H/32 W/32, 2]",
    "output landms FLOAT [N, 42 H/32 W/32, 10]",
]


@dataclass(frozen=True, slots=True)
class UltraFace(Detector):
    """Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, which decodes its boxes itself and finds no landmarks."""

    network: Network
    shape_hw: tuple[int, int]
    """Size of the network's picture; the square one is squeezed to it, as its authors resize pictures of any shape."""
    scores: str
    boxes: str

    min_score = 0.6
    max_overlap = 0.3
    pixels = Pixels((127.0, 127.0, 127.0), 1 / 128)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "UltraFace":
        """Raises UnsuitableModel when the network is another."""
        shape = network.inputs[0].shape if len(network.inputs) == 1 else ()
        if len(network.outputs) != 2 or len(shape) != 4 or shape[1] != 3:
            raise network.mismatch("ultraface", _ULTRAFACE_EXPECTED)
        if not (isinstance(shape[2], int) and isinstance(shape[3], int) and shape[2] > 0 and shape[3] > 0):
            raise network.mismatch("ultraface", _ULTRAFACE_EXPECTED, "its anchor boxes are made for one size, which the file does not name")
        network = resolve_outputs(network, {network.inputs[0].name: (1, 3, shape[2], shape[3])})
        found = {tensor.shape[2]: tensor.name for tensor in network.outputs if len(tensor.shape) == 3}
        if set(found) != {2, 4}:
            raise network.mismatch("ultraface", _ULTRAFACE_EXPECTED)
        check_floats(network, "ultraface", _ULTRAFACE_EXPECTED)
        return UltraFace(network, (shape[2], shape[3]), found[2], found[4])

    @property
    def size_px(self) -> int:
        """Side of the square picture."""
        side = max(self.shape_hw)
        return side * max(1, ULTRAFACE_PICTURE_PX // side)

    @property
    def config(self) -> ModelConfig:
        return detector_config(self.size_px, has_landmarks=False)

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, 3, *self.shape_hw)}

    def draw(self, graph: Graph, run: Run) -> None:
        image = graph.input("image", 2, ["N", self.size_px, self.size_px, 3])
        picture = draw_squeeze(graph, self.pixels.draw(graph, image), self.size_px, self.shape_hw)
        outputs = run({self.input_name: picture})
        boxes = graph.op("Reshape", outputs[self.boxes], graph.integers([0, -1, 4])) * float(self.size_px)
        scores = outputs[self.scores].slice(2, 1, 2)
        self.finish(graph, boxes, scores, None)

    def feed(self, item: Arrays) -> Arrays:
        return {self.input_name: feed_squeeze(self.pixels.feed(item["image"]), self.shape_hw)}

    def read(self, outputs: Arrays) -> Arrays:
        boxes = outputs[self.boxes].reshape(-1, 4) * self.size_px
        return candidate_rows(boxes, outputs[self.scores].reshape(-1, 2)[:, 1:], None)


def prior_boxes(shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Return RetinaFace's (n, 4) anchor boxes: centre x, y, width, height, px, two a cell at strides 8, 16 and 32."""
    parts = []
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        centres = (map_grid(shape_hw, stride, anchors=2) + 0.5) * stride
        widths = np.tile(np.array(sides, np.float32), len(centres) // 2)[:, None]
        parts.append(np.concatenate([centres, widths, widths], axis=1))
    return np.concatenate(parts).astype(np.float32)


@dataclass(frozen=True, slots=True)
class RetinaFace(PictureNetwork):
    """biubug6/Pytorch_Retinaface, MobileNet 0.25 or ResNet 50."""

    network: Network
    picture: Picture
    loc: str
    conf: str
    landms: str
    is_probability: bool
    """Whether the network's scores have been through softmax."""

    min_score = 0.5
    max_overlap = 0.4
    pixels = Pixels((104.0, 117.0, 123.0), 1.0, bgr=True)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "RetinaFace":
        """Raises UnsuitableModel when the network is another."""
        if len(network.outputs) != 3:
            raise network.mismatch("retinaface", _RETINAFACE_EXPECTED)
        picture = Picture(input_shape(network, "retinaface", _RETINAFACE_EXPECTED, options))
        network = resolve_outputs(network, {network.inputs[0].name: (1, 3, *picture.shape_hw)})
        found = {tensor.shape[2]: tensor.name for tensor in network.outputs if len(tensor.shape) == 3}
        if set(found) != {4, 2, 10}:
            raise network.mismatch("retinaface", _RETINAFACE_EXPECTED)
        check_floats(network, "retinaface", _RETINAFACE_EXPECTED)
        count = len(prior_boxes(picture.shape_hw))
        declared = {tensor.shape[1] for tensor in network.outputs if isinstance(tensor.shape[1], int) and tensor.shape[1] > 0}
        if declared - {count}:
            raise network.mismatch("retinaface", _RETINAFACE_EXPECTED, f"it has {sorted(declared)} boxes, expected {count}")
        maker = next((node for node in network.model.graph.node if found[2] in node.output), None)
        return RetinaFace(network, picture, found[4], found[2], found[10], maker is not None and maker.op_type == "Softmax")

    @property
    def config(self) -> ModelConfig:
        return detector_config(self.picture.size_px, has_landmarks=True)

    def draw(self, graph: Graph, run: Run) -> None:
        outputs = self.see(graph, run)
        priors = prior_boxes(self.picture.shape_hw)[None]
        count = priors.shape[1]
        loc, conf, landms = (outputs[name].reshape(-1, count, size) for name, size in ((self.loc, 4), (self.conf, 2), (self.landms, 10)))
        if not self.is_probability:
            conf = graph.op("Softmax", conf, axis=-1)
        # Variances 0.1 and 0.2, as the network was trained.
        centre = loc.slice(2, 0, 2) * (0.1 * priors[:, :, 2:]) + priors[:, :, :2]
        half = graph.op("Exp", loc.slice(2, 2, 4) * 0.2) * (0.5 * priors[:, :, 2:])
        boxes = graph.concat([centre - half, centre + half], axis=2)
        points = landms * np.tile(0.1 * priors[:, :, 2:], 5) + np.tile(priors[:, :, :2], 5)
        self.finish(graph, boxes, conf.slice(2, 1, 2), points)

    def read(self, outputs: Arrays) -> Arrays:
        cx, cy, w, h = prior_boxes(self.picture.shape_hw).T
        loc, conf, landms = outputs[self.loc].reshape(-1, 4), outputs[self.conf].reshape(-1, 2), outputs[self.landms].reshape(-1, 10)
        score = conf[:, 1] if self.is_probability else 1.0 / (1.0 + np.exp(conf[:, 0] - conf[:, 1]))
        x, y = cx + loc[:, 0] * 0.1 * w, cy + loc[:, 1] * 0.1 * h
        width, height = w * np.exp(loc[:, 2] * 0.2), h * np.exp(loc[:, 3] * 0.2)
        boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
        points = [landms[:, i] * 0.1 * (h if i % 2 else w) + (cy if i % 2 else cx) for i in range(10)]
        return candidate_rows(boxes, score[:, None], np.stack(points, axis=1))
