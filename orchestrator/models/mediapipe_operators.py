"""MediaPipe's own TFLite operators as ONNX nodes: how its attention networks look closer at a part of the face.

As MediaPipe defines them (mediapipe/util/tflite/operations, version 2 of each). A transform is the upper half, [N,2,4], of a 4 x 4 matrix.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.models.graph import Graph, Value

_FEATURES_PX = 48
"""Side of the feature map that eyes and lips are cut out of."""


def landmarks_to_transform(graph: Graph, options: Mapping[str, Any], landmarks: Value) -> Value:
    """Return the upper half, [N,2,4], of the map from px of a cut-out to px of the picture that `landmarks` [N,P,3] are in.

    The cut-out is turned so that two of the landmarks lie level, and holds all landmarks of a subset, enlarged by a factor.
    """
    left, right, subset = (
        graph.op("Gather", landmarks, graph.integers(index), axis=1).slice(2, 0, 2)
        for index in ([options["left_rotation_idx"]], [options["right_rotation_idx"]], options["subset_idxs"])
    )
    level = right - left
    level = level / graph.op("Sqrt", (level * level).sum([2]) + 1e-9)
    cosine, sine = level.slice(2, 0, 1), level.slice(2, 1, 2)
    x, y = subset.slice(2, 0, 1), subset.slice(2, 1, 2)
    turned_x, turned_y = x * cosine + y * sine, y * cosine - x * sine
    (low_x, high_x), (low_y, high_y) = ((-(-turned).max([1]), turned.max([1])) for turned in (turned_x, turned_y))
    middle_x, middle_y = (low_x + high_x) * 0.5, (low_y + high_y) * 0.5
    scale_x = (high_x - low_x) * (options["scale_x"] / options["output_width"])
    scale_y = (high_y - low_y) * (options["scale_y"] / options["output_height"])
    start_x, start_y = middle_x - scale_x * (options["output_width"] / 2), middle_y - scale_y * (options["output_height"] / 2)
    row_x = [scale_x * cosine, -(scale_y * sine), cosine * 0.0, start_x * cosine - start_y * sine]
    row_y = [scale_x * sine, scale_y * cosine, cosine * 0.0, start_x * sine + start_y * cosine]
    return graph.concat([graph.concat(row_x, 2), graph.concat(row_y, 2)], 1)


def transform_landmarks(graph: Graph, options: Mapping[str, Any], landmarks: Value, transform: Value) -> Value:
    """Return `landmarks` [N,P,2] mapped with `transform` [N,2,4]."""
    return landmarks @ transform.slice(2, 0, 2).transpose(0, 2, 1) + transform.slice(2, 3, 4).reshape(0, 1, 2)


def cut_out(graph: Graph, options: Mapping[str, Any], features: Value, transform: Value) -> Value:
    """Return the cut-out of `features` [N,C,h,w] that `transform` [N,2,4], px of the cut-out to px of the features, stands for."""
    height, width = options["output_height"], options["output_width"]
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    positions = np.stack([columns.ravel(), rows.ravel(), np.zeros(height * width), np.ones(height * width)])
    grid = (transform @ positions).transpose(0, 2, 1) * (2.0 / _FEATURES_PX) - 1.0
    return graph.op("GridSample", features, grid.reshape(0, height, width, 2), mode="bilinear", padding_mode="zeros", align_corners=0)
