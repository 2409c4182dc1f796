"""What every detector's graph ends with: the best of its candidates, as rows of the `face_detector` contract."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph, Value
from orchestrator.models.wrapping import Wrapping
from preprocess.letterbox import LEAST_SIDE_PX, SIDE_STEP_PX

FACE_COUNT = 16
"""Rows in the output (K)."""

CANDIDATE_COUNT = 256
"""Best candidates looked at; a face fires about ten."""

CANDIDATES = "candidates"
"""Name, in the graph, of all candidates before the choice: [N, A, 15] rows like the output's."""

MIN_SCORE = "min_score"
"""Name, in the graph, of the constant below which candidates are left out."""


class Detector(Wrapping):
    """A network as the `face_detector` role."""

    __slots__ = ()

    min_score: float
    """Candidates below are left out."""
    max_overlap: float
    """Intersection over union above which the weaker of two boxes is left out."""

    def finish(self, graph: Graph, boxes: Value, scores: Value, points: Value | None) -> None:
        """Append the choice among candidates, and the output `faces`. See `finish_detector`."""
        finish_detector(graph, boxes, scores, points, self.min_score, self.max_overlap)


def detector_config(size_px: int, has_landmarks: bool, *, is_square: bool = True) -> ModelConfig:
    """Return Triton's view of a detector for pictures of `size_px`, or of that on their longer side."""
    image = Tensor("image", "TYPE_UINT8", (size_px, size_px, 3))
    if not is_square:
        wide = -(-size_px * 9 // 16 // SIDE_STEP_PX) * SIDE_STEP_PX
        shapes = ((LEAST_SIDE_PX, LEAST_SIDE_PX, 3), (wide, size_px, 3), (size_px, wide, 3), image.dims)
        image = Tensor("image", "TYPE_UINT8", (-1, -1, 3), shapes)
    return ModelConfig(
        role="face_detector",
        inputs=(image,),
        outputs=(Tensor("faces", "TYPE_FP32", (FACE_COUNT, 15)),),
        max_batch_size=16,
        queue_delay_us=1000,
        parameters={"landmarks": "5" if has_landmarks else "none", **({} if is_square else {"largest_px": str(size_px)})},
    )


def finish_detector(graph: Graph, boxes: Value, scores: Value, points: Value | None, min_score: float, max_overlap: float) -> None:
    """Append the choice among candidates, and the output `faces`.

    Args:
        graph: with an input `image`.
        boxes: [N, A, 4] x1 y1 x2 y2, px of the input.
        scores: [N, A, 1], 0..1.
        points: [N, A, 10] x y of five points, px of the input; None for a detector that finds none: then they are 0.
        min_score: candidates below are left out.
        max_overlap: intersection over union above which the weaker of two boxes is left out.
    """
    if points is None:
        points = graph.concat([boxes, boxes, boxes.slice(2, 0, 2)], axis=2) * 0.0
    candidates = graph.label(graph.concat([boxes, scores, points], axis=2), CANDIDATES)
    best, place = _top(graph, candidates.slice(2, 4, 5).reshape(0, -1), CANDIDATE_COUNT)
    ranked = graph.op("GatherND", candidates, place, batch_dims=1)
    threshold = graph.named_constant(np.float32(min_score), MIN_SCORE)
    chosen = graph.op(
        "NonMaxSuppression",
        ranked.slice(2, 0, 4),
        best.reshape(0, 1, CANDIDATE_COUNT),
        graph.integers([FACE_COUNT]),
        graph.constant(max_overlap),
        threshold,
    )
    item_and_rank = graph.op("Gather", chosen, graph.integers([0, 2]), axis=1)
    ones = chosen.slice(1, 0, 1).cast(FLOAT).reshape(-1) * 0.0 + 1.0
    is_chosen = graph.op("ScatterND", best * 0.0, item_and_rank, ones)
    kept, order = _top(graph, best * is_chosen, FACE_COUNT)
    faces = graph.op("GatherND", ranked, order, batch_dims=1)
    is_face = graph.op("Greater", kept.reshape(0, FACE_COUNT, 1), 0.0)
    graph.output(graph.op("Where", is_face, faces, 0.0), "faces", FLOAT, ["N", FACE_COUNT, 15])


def choose_faces(candidates: NDArray[np.float32], min_score: float, max_overlap: float) -> NDArray[np.float32]:
    """Return what `finish_detector` should choose from (A, 15) candidates: (16, 15), by the textbook."""
    ranked = candidates[np.argsort(-candidates[:, 4], kind="stable")[:CANDIDATE_COUNT]]
    faces = np.zeros((FACE_COUNT, 15), np.float32)
    count = 0
    for row in ranked:
        if row[4] <= min_score or count == FACE_COUNT:
            break
        if not any(_overlap(row, kept) > max_overlap for kept in faces[:count]):
            faces[count] = row
            count += 1
    return faces


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    # Like ONNX's NonMaxSuppression, which takes two corners in any order: a network may reach to the wrong side of a cell.
    a, b = (np.concatenate([np.minimum(box[:2], box[2:4]), np.maximum(box[:2], box[2:4])]) for box in (a, b))
    common = np.prod(np.maximum(np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2]), 0))
    both = np.prod(a[2:4] - a[:2]) + np.prod(b[2:4] - b[:2]) - common
    return float(common / both) if both > 0 else 0.0


def _top(graph: Graph, values: Value, count: int) -> tuple[Value, Value]:
    """Return the `count` largest of values [N, m], [N, count], and where they are, [N, count, 1], largest first."""
    largest, index = graph.multi_op("TopK", 2, values, graph.integers([count]), axis=1)
    return largest, index.reshape(0, count, 1)


def map_grid(shape_hw: tuple[int, int], stride: int, anchors: int = 1) -> NDArray[np.float32]:
    """Return (n, 2) column and row of each cell of the map of a picture of `shape_hw`, row by row, each repeated for its anchors."""
    rows, columns = np.mgrid[: -(-shape_hw[0] // stride), : -(-shape_hw[1] // stride)]
    cells = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)
    return np.repeat(cells, anchors, axis=0)


def candidate_rows(boxes: NDArray[np.float32], scores: NDArray[np.float32], points: NDArray[np.float32] | None) -> Mapping[str, NDArray[np.float32]]:
    """Return the reference of the value `CANDIDATES` from (A, 4), (A, 1) and (A, 10) or nothing."""
    rows = np.zeros((len(boxes), 10), np.float32) if points is None else points
    return {CANDIDATES: np.concatenate([boxes, scores, rows], axis=1).astype(np.float32)}
