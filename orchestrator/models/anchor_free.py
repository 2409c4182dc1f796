"""YuNet and SCRFD as the `face_detector` role: detectors with one map of scores, boxes and points for each stride."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption
from orchestrator.models.config import ModelConfig
from orchestrator.models.detection import candidate_rows, detector_config, finish_detector, grid
from orchestrator.models.graph import Graph
from orchestrator.models.network import Network, TensorInfo
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run, check_floats, resolve_outputs

DEFAULT_SIZE_PX = 384
"""Side of the detector's input where the network takes any. A face has to be about 30 px wide in it: a twelfth of the frame's longer side."""

STRIDES = (8, 16, 32)
"""Input pixels to a cell of each map."""

_YUNET_EXPECTED = [
    "input FLOAT [N, 3, H, W], H = W, multiples of 32",
    *(f"output {kind}_{stride} FLOAT [N, cells, {size}]" for kind, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)) for stride in STRIDES),
]

_SCRFD_EXPECTED = [
    "input FLOAT [N, 3, S, S], S a multiple of 32",
    *(f"output FLOAT [N, 2 (S / {stride})^2, {size}]" for size in (1, 4, 10) for stride in STRIDES),
]


def square_size(network: Network, pack: str, expected: list[str], options: PackOptions) -> int:
    """Return the side of the input of a network with one picture [N, 3, S, S].

    Raises:
        UnsuitableModel: the network has other inputs.
        InvalidOption: the options ask for another size than the file has, or one that is no multiple of 32.
    """
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4:
        raise network.mismatch(pack, expected)
    _, channels, height, width = network.inputs[0].shape
    if isinstance(channels, int) and channels not in (0, 3):
        raise network.mismatch(pack, expected)
    sides = {side for side in (height, width) if isinstance(side, int) and side > 0}
    if len(sides) > 1:
        raise network.mismatch(pack, expected, "its picture is not square")
    fixed = next(iter(sides), None)
    if fixed is not None and options.size_px not in (None, fixed):
        raise InvalidOption(f"{network.file} takes pictures of {fixed} px and no others; leave out --size, or export it with free height and width.")
    size_px = fixed or options.size_px or DEFAULT_SIZE_PX
    if size_px % 32 or not 96 <= size_px <= 2048:
        raise InvalidOption(f"A detector's picture of {size_px} px cannot be used; give --size a multiple of 32 between 96 and 2048.")
    return size_px


@dataclass(frozen=True, slots=True)
class YuNet:
    """libfacedetection's YuNet (ShiqiYu/libfacedetection.train; also OpenCV's face_detection_yunet_2023mar)."""

    network: Network
    size_px: int
    shared_inputs: tuple[str, ...] = ()
    min_score: float = 0.5
    max_overlap: float = 0.3
    pixels: Pixels = field(default_factory=lambda: Pixels(bgr=True))

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "YuNet":
        """Raises UnsuitableModel when the network is another."""
        names = {tensor.name for tensor in network.outputs}
        if not {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES} <= names:
            raise network.mismatch("yunet", _YUNET_EXPECTED)
        check_floats(network, "yunet", _YUNET_EXPECTED)
        return YuNet(network, square_size(network, "yunet", _YUNET_EXPECTED, options))

    @property
    def config(self) -> ModelConfig:
        return detector_config(self.size_px, has_landmarks=True)

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.network.inputs[0].name: (1, 3, self.size_px, self.size_px)}

    def draw(self, graph: Graph, run: Run) -> None:
        image = graph.input("image", 2, ["N", self.size_px, self.size_px, 3])
        outputs = run({self.network.inputs[0].name: self.pixels.draw(graph, image)})
        boxes, scores, points = [], [], []
        for stride in STRIDES:
            cells = grid(self.size_px, stride)
            count = len(cells)
            cls, obj = (outputs[f"{kind}_{stride}"].reshape(-1, count, 1).clip(0.0, 1.0) for kind in ("cls", "obj"))
            scores.append(graph.op("Sqrt", cls * obj))
            box = outputs[f"bbox_{stride}"].reshape(-1, count, 4)
            centre = (box.slice(2, 0, 2) + cells[None]) * float(stride)
            half = graph.op("Exp", box.slice(2, 2, 4)) * (stride / 2)
            boxes.append(graph.concat([centre - half, centre + half], axis=2))
            points.append((outputs[f"kps_{stride}"].reshape(-1, count, 10) + np.tile(cells, 5)[None]) * float(stride))
        all_boxes, all_scores, all_points = (graph.concat(values, axis=1) for values in (boxes, scores, points))
        finish_detector(graph, all_boxes, all_scores, all_points, self.min_score, self.max_overlap)

    def feed(self, item: Arrays) -> Arrays:
        return {self.network.inputs[0].name: self.pixels.feed(item["image"])}

    def read(self, outputs: Arrays) -> Arrays:
        boxes, scores, points = [], [], []
        for stride in STRIDES:
            side = self.size_px // stride
            y, x = np.divmod(np.arange(side * side), side)
            cls, obj, box, kps = (outputs[f"{kind}_{stride}"].reshape(side * side, -1) for kind in ("cls", "obj", "bbox", "kps"))
            scores.append(np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1)))
            cx, cy = (x + box[:, 0]) * stride, (y + box[:, 1]) * stride
            w, h = np.exp(box[:, 2]) * stride, np.exp(box[:, 3]) * stride
            boxes.append(np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1))
            points.append(np.stack([(kps[:, i] + (y if i % 2 else x)) * stride for i in range(10)], axis=1))
        return candidate_rows(np.concatenate(boxes), np.concatenate(scores), np.concatenate(points))


@dataclass(frozen=True, slots=True)
class Scrfd:
    """InsightFace's SCRFD with five points (deepinsight/insightface, detection/scrfd)."""

    network: Network
    size_px: int
    scores: tuple[str, ...]
    """Names of the outputs, by stride."""
    boxes: tuple[str, ...]
    points: tuple[str, ...]
    """Empty for a variant without landmarks."""
    shared_inputs: tuple[str, ...] = ()
    min_score: float = 0.4
    max_overlap: float = 0.4
    pixels: Pixels = field(default_factory=lambda: Pixels(mean=(127.5, 127.5, 127.5), scale=1 / 128))

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "Scrfd":
        """Raises UnsuitableModel when the network is another, or folds the batch into its rows."""
        if len(network.outputs) not in (6, 9):
            raise network.mismatch("scrfd", _SCRFD_EXPECTED)
        check_floats(network, "scrfd", _SCRFD_EXPECTED)
        size_px = square_size(network, "scrfd", _SCRFD_EXPECTED, options)
        network = resolve_outputs(network, {network.inputs[0].name: (1, 3, size_px, size_px)})
        if all(len(tensor.shape) == 2 and tensor.shape[1] in (1, 4, 10) for tensor in network.outputs):
            raise network.mismatch(
                "scrfd",
                _SCRFD_EXPECTED,
                "this export folds the batch into the rows of its outputs, so two pictures cannot be told apart; "
                "take the export with a batch axis (scrfd2onnx with dynamic axes)",
            )
        groups: dict[int, tuple[str, ...]] = {}
        for size in (1, 4, 10):
            found = [tensor for tensor in network.outputs if len(tensor.shape) == 3 and tensor.shape[2] == size]
            groups[size] = tuple(tensor.name for tensor in sorted(found, key=lambda tensor: _row_order(tensor, network)))
        if len(groups[1]) != 3 or len(groups[4]) != 3 or len(groups[10]) not in (0, 3):
            raise network.mismatch("scrfd", _SCRFD_EXPECTED)
        return Scrfd(network, size_px, groups[1], groups[4], groups[10])

    @property
    def config(self) -> ModelConfig:
        return detector_config(self.size_px, has_landmarks=bool(self.points))

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.network.inputs[0].name: (1, 3, self.size_px, self.size_px)}

    def draw(self, graph: Graph, run: Run) -> None:
        image = graph.input("image", 2, ["N", self.size_px, self.size_px, 3])
        outputs = run({self.network.inputs[0].name: self.pixels.draw(graph, image)})
        boxes, scores, points = [], [], []
        for index, stride in enumerate(STRIDES):
            centres = grid(self.size_px, stride, anchors=2) * stride
            count = len(centres)
            scores.append(outputs[self.scores[index]].reshape(-1, count, 1))
            reach = outputs[self.boxes[index]].reshape(-1, count, 4) * float(stride)
            boxes.append(reach * np.array([-1.0, -1.0, 1.0, 1.0]) + np.tile(centres, 2)[None])
            if self.points:
                points.append(outputs[self.points[index]].reshape(-1, count, 10) * float(stride) + np.tile(centres, 5)[None])
        joined = graph.concat(points, axis=1) if points else None
        finish_detector(graph, graph.concat(boxes, axis=1), graph.concat(scores, axis=1), joined, self.min_score, self.max_overlap)

    def feed(self, item: Arrays) -> Arrays:
        return {self.network.inputs[0].name: self.pixels.feed(item["image"])}

    def read(self, outputs: Arrays) -> Arrays:
        rows = []
        for index, stride in enumerate(STRIDES):
            side = self.size_px // stride
            y, x = (np.repeat(part * stride, 2) for part in np.divmod(np.arange(side * side), side))
            score = outputs[self.scores[index]].reshape(-1)
            left, top, right, bottom = outputs[self.boxes[index]].reshape(-1, 4).T * stride
            columns = [x - left, y - top, x + right, y + bottom, score]
            if self.points:
                kps = outputs[self.points[index]].reshape(-1, 10) * stride
                columns += [kps[:, i] + (y if i % 2 else x) for i in range(10)]
            rows.append(np.stack(columns, axis=1))
        table: NDArray[np.float32] = np.concatenate(rows).astype(np.float32)
        return candidate_rows(table[:, :4], table[:, 4:5], table[:, 5:] if self.points else None)


def _row_order(tensor: TensorInfo, network: Network) -> tuple[int, int]:
    """Sort by number of rows, most first; where it is not declared, exporters list the strides in order."""
    rows = tensor.shape[1]
    return (-rows if isinstance(rows, int) else 0, network.outputs.index(tensor))
