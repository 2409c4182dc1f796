"""Old operator sets keep their meaning: each changed operator as it was, against itself raised."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from orchestrator.models.opset import to_current_opset

X = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype(np.float32)

BY_SIZES: Mapping[str, NDArray[Any]] = {
    "roi": np.zeros(0, np.float32),
    "scales": np.zeros(0, np.float32),
    "sizes": np.array([2, 3, 7, 9]),
}
"""What Resize reads in sets 11 and 12 where it goes by sizes: the scales have to be there, and empty."""

OLD: Mapping[str, tuple[int, str, Mapping[str, Any], Mapping[str, NDArray[Any]]]] = {
    "slice with attributes": (9, "Slice", {"starts": [0, 1], "ends": [2, 3], "axes": [0, 2]}, {}),
    "clip with attributes": (9, "Clip", {"min": -0.5, "max": 0.25}, {}),
    "clip with one limit": (9, "Clip", {"max": 0.25}, {}),
    "pad with attributes": (9, "Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 4], "value": 1.5}, {}),
    "reflecting pad": (9, "Pad", {"pads": [0, 0, 1, 2, 0, 0, 1, 2], "mode": "reflect"}, {}),
    "squeeze": (11, "Squeeze", {"axes": [0]}, {}),
    "unsqueeze": (11, "Unsqueeze", {"axes": [0, 2]}, {}),
    "sum": (11, "ReduceSum", {"axes": [1, 3], "keepdims": 0}, {}),
    "split": (11, "Split", {"axis": 2, "split": [1, 3]}, {}),
    "softmax over the last axes": (11, "Softmax", {"axis": 2}, {}),
    "softmax by default": (11, "Softmax", {}, {}),
    "softmax over the last axis": (11, "Softmax", {"axis": 3}, {}),
    "log softmax": (11, "LogSoftmax", {"axis": 1}, {}),
    "dropout": (9, "Dropout", {"ratio": 0.3}, {}),
    "upsample": (9, "Upsample", {"mode": "nearest"}, {"scales": np.array([1, 1, 2, 3], np.float32)}),
    "linear upsample": (9, "Upsample", {"mode": "linear"}, {"scales": np.array([1, 1, 2, 2], np.float32)}),
    "resize of set 10": (10, "Resize", {"mode": "nearest"}, {"scales": np.array([1, 1, 1.5, 2], np.float32)}),
    "resize of set 11 by sizes": (11, "Resize", {"mode": "linear"}, BY_SIZES),
    "resize of set 18 by sizes, as ONNX's converter leaves it": (18, "Resize", {"mode": "linear"}, BY_SIZES),
    "top 2": (9, "TopK", {"k": 2, "axis": 3}, {}),
    "batch normalisation": (
        9,
        "BatchNormalization",
        {"epsilon": 1e-3},
        {name: np.array(values, np.float32) for name, values in (("s", [1, 2, 3]), ("b", [0, 1, 0]), ("m", [0.1, 0, 0]), ("v", [1, 2, 1]))},
    ),
}


def old_model(opset: int, kind: str, attributes: Mapping[str, Any], constants: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    count = 2 if kind in ("Split", "TopK") else 1
    names = [f"y{index}" for index in range(count)]
    x = X[:1] if kind == "Squeeze" else X
    node = helper.make_node(kind, ["x", *constants], names, **attributes)
    outputs = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names]
    for output in outputs:
        output.type.tensor_type.elem_type = TensorProto.INT64 if (kind, output.name) == ("TopK", "y1") else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "old",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset > 17 else 4)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> list[NDArray[Any]]:
    return [np.asarray(array) for array in onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})]


@pytest.mark.parametrize("case", OLD)
@pytest.mark.parametrize("ranks", [{}, {"x": 4}], ids=["rank unknown", "rank known"])
def test_raised_operator_computes_what_it_always_did(case: str, ranks: Mapping[str, int]) -> None:
    model = old_model(*OLD[case])
    x = X[:1] if case == "squeeze" else X
    before = run(model, x)
    assert to_current_opset(model, ranks) == max(17, OLD[case][0])
    model.ir_version = 8
    assert not any(len(node.input) > 3 and node.input[2] for node in model.graph.node if node.op_type == "Resize"), "sizes or scales, never both"
    for expected, found in zip(before, run(model, x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
