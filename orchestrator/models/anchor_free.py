"""YuNet and SCRFD as the `face_detector` role: detectors with one map of scores, boxes and points for each stride."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.config import ModelConfig
from orchestrator.models.detection import candidate_rows, detector_config
from orchestrator.models.graph import Graph
from orchestrator.models.network import Network, TensorInfo
from orchestrator.models.options import PackOptions
from orchestrator.models.picture import Picture, PictureNetwork, input_shape
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run, check_floats, resolve_outputs

STRIDES = (8, 16, 32)
"""Input pixels to a cell of each map."""

_YUNET_EXPECTED = [
    "input FLOAT [N, 3, H, W], multiples of 32",
    *(f"output {kind}_{stride} FLOAT [N, cells, {size}]" for kind, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)) for stride in STRIDES),
]

_SCRFD_EXPECTED = [
    "input FLOAT [N, 3, H, W], multiples of 32",
    *(f"output FLOAT [N, 2 H/{stride} W/{stride}, {size}]" for size in (1, 4, 10) for stride in STRIDES),
]


@dataclass(frozen=True, slots=True)
class YuNet(PictureNetwork):
    """libfacedetection's YuNet (ShiqiYu/libfacedetection.train; also OpenCV's face_detection_yunet_2023mar)."""

    network: Network
    picture: Picture

    min_score = 0.5
    max_overlap = 0.3
    pixels = Pixels(bgr=True)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "YuNet":
        """Raises UnsuitableModel when the network is another."""
        names = {tensor.name for tensor in network.outputs}
        if not {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES} <= names:
            is_older = names == {"loc", "conf", "iou"}
            raise network.mismatch("yunet", _YUNET_EXPECTED, "it is the version of 2022; take face_detection_yunet_2023mar.onnx" if is_older else "")
        check_floats(network, "yunet", _YUNET_EXPECTED)
        return YuNet(network, Picture(input_shape(network, "yunet", _YUNET_EXPECTED, options)))

    @property
    def config(self) -> ModelConfig:
        return detector_config(self.picture.size_px, has_landmarks=True)

    def draw(self, graph: Graph, run: Run) -> None:
        outputs = self.see(graph, run)
        boxes, scores, points = [], [], []
        for stride in STRIDES:
            cells = self.picture.cells(stride)
            count = len(cells)
            cls, obj = (outputs[f"{kind}_{stride}"].reshape(-1, count, 1).clip(0.0, 1.0) for kind in ("cls", "obj"))
            scores.append(graph.op("Sqrt", cls * obj))
            box = outputs[f"bbox_{stride}"].reshape(-1, count, 4)
            centre = (box.slice(2, 0, 2) + cells[None]) * float(stride)
            half = graph.op("Exp", box.slice(2, 2, 4)) * (stride / 2)
            boxes.append(graph.concat([centre - half, centre + half], axis=2))
            points.append((outputs[f"kps_{stride}"].reshape(-1, count, 10) + np.tile(cells, 5)[None]) * float(stride))
        all_boxes, all_scores, all_points = (graph.concat(values, axis=1) for values in (boxes, scores, points))
        self.finish(graph, all_boxes, all_scores, all_points)

    def read(self, outputs: Arrays) -> Arrays:
        boxes, scores, points = [], [], []
        for stride in STRIDES:
            height, width = (side // stride for side in self.picture.shape_hw)
            y, x = np.divmod(np.arange(height * width), width)
            cls, obj, box, kps = (outputs[f"{kind}_{stride}"].reshape(height * width, -1) for kind in ("cls", "obj", "bbox", "kps"))
            scores.append(np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1)))
            cx, cy = (x + box[:, 0]) * stride, (y + box[:, 1]) * stride
            w, h = np.exp(box[:, 2]) * stride, np.exp(box[:, 3]) * stride
            boxes.append(np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1))
            points.append(np.stack([(kps[:, i] + (y if i % 2 else x)) * stride for i in range(10)], axis=1))
        return candidate_rows(np.concatenate(boxes), np.concatenate(scores), np.concatenate(points))


@dataclass(frozen=True, slots=True)
class Scrfd(PictureNetwork):
    """InsightFace's SCRFD with five points (deepinsight/insightface, detection/scrfd)."""

    network: Network
    picture: Picture
    scores: tuple[str, ...]
    """Names of the outputs, by stride."""
    boxes: tuple[str, ...]
    points: tuple[str, ...]
    """Empty for a variant without landmarks."""

    min_score = 0.4
    max_overlap = 0.4
    pixels = Pixels(mean=(127.5, 127.5, 127.5), scale=1 / 128)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "Scrfd":
        """Raises UnsuitableModel when the network is another, or folds the batch into its rows."""
        if len(network.outputs) not in (6, 9):
            raise network.mismatch("scrfd", _SCRFD_EXPECTED)
        check_floats(network, "scrfd", _SCRFD_EXPECTED)
        picture = Picture(input_shape(network, "scrfd", _SCRFD_EXPECTED, options))
        network = resolve_outputs(network, {network.inputs[0].name: (1, 3, *picture.shape_hw)})
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
        return Scrfd(network, picture, groups[1], groups[4], groups[10])

    @property
    def config(self) -> ModelConfig:
        return detector_config(self.picture.size_px, has_landmarks=bool(self.points))

    def draw(self, graph: Graph, run: Run) -> None:
        outputs = self.see(graph, run)
        boxes, scores, points = [], [], []
        for index, stride in enumerate(STRIDES):
            centres = self.picture.cells(stride, anchors=2) * stride
            count = len(centres)
            scores.append(outputs[self.scores[index]].reshape(-1, count, 1))
            reach = outputs[self.boxes[index]].reshape(-1, count, 4) * float(stride)
            boxes.append(reach * np.array([-1.0, -1.0, 1.0, 1.0]) + np.tile(centres, 2)[None])
            if self.points:
                points.append(outputs[self.points[index]].reshape(-1, count, 10) * float(stride) + np.tile(centres, 5)[None])
        joined = graph.concat(points, axis=1) if points else None
        self.finish(graph, graph.concat(boxes, axis=1), graph.concat(scores, axis=1), joined)

    def read(self, outputs: Arrays) -> Arrays:
        rows = []
        for index, stride in enumerate(STRIDES):
            height, width = (side // stride for side in self.picture.shape_hw)
            y, x = (np.repeat(part * stride, 2) for part in np.divmod(np.arange(height * width), width))
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
