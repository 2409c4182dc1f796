"""Making the batch axis real: every habit of exporters that bakes a batch of one, alone, against the network run item by item."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from orchestrator.models.batch import make_batchable
from orchestrator.models.item_graph import NotBatchable
from tests.networks import Builder

SHAPE = (1, 4, 6, 6)
Draw = Callable[[Builder], str]


def model_of(draw: Draw, opset: int = 17) -> onnx.ModelProto:
    """Return a network traced with one picture `x`."""
    net = Builder()
    y = draw(net)
    nodes = [*net.nodes, helper.make_node("Identity", [y], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(SHAPE))
    graph = helper.make_graph(nodes, "traced", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], net.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def batchable(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    make_batchable(copy, {"x": SHAPE}, ["x"])
    copy.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE[1:]]))
    return copy


def zeros(net: Builder, *shape: int) -> str:
    return net.add("ConstantOfShape", net.integers(*shape))


def shape_of(net: Builder, value: str, axis: int) -> str:
    """Return a 1-D value with the size of an axis, the way tracers write it."""
    size = net.add("Gather", net.add("Shape", value), net.weight(np.asarray(axis, np.int64)), axis=0)
    return net.add("Unsqueeze", size, net.integers(0))


def attention(net: Builder) -> str:
    """Multi-head attention as exporters write it, with the batch of one in every shape."""
    tokens = net.add("Transpose", net.add("Reshape", "x", net.integers(1, 4, 36)), perm=[0, 2, 1])
    heads = []
    for _ in range(3):
        projected = net.add("MatMul", tokens, net.floats(4, 4))
        heads.append(net.add("Transpose", net.add("Reshape", projected, net.integers(1, 36, 2, 2)), perm=[0, 2, 1, 3]))
    q, k, v = (net.add("Reshape", head, net.integers(2, 36, 2)) for head in heads)
    weights = net.add("Softmax", net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1])), axis=-1)
    mixed = net.add("Reshape", net.add("MatMul", weights, v), net.integers(1, 2, 36, 2))
    return net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.integers(1, 36, 4))


def attention_with_batch_second(net: Builder) -> str:
    """Attention as torch's MultiheadAttention traces it: [tokens, 1, channels], its rows folded for Gemm and its heads into the batch."""
    tokens = net.add("Transpose", net.add("Reshape", "x", net.integers(1, 4, 36)), perm=[2, 0, 1])
    rows = net.add("Gemm", net.add("Reshape", tokens, net.integers(36, 4)), net.floats(4, 4))
    projected = net.add("Reshape", rows, net.integers(36, 1, 4))
    heads = net.add("Transpose", net.add("Reshape", projected, net.integers(36, 2, 2)), perm=[1, 0, 2])
    weights = net.add("Softmax", net.add("MatMul", heads, net.add("Transpose", heads, perm=[0, 2, 1])), axis=-1)
    mixed = net.add("Transpose", net.add("MatMul", weights, heads), perm=[1, 0, 2])
    split = net.add("Reshape", mixed, net.integers(36, 1, 2, 2))
    rows = net.add("Gemm", net.add("Reshape", split, net.integers(36, 4)), net.floats(4, 4))
    return net.add("Transpose", net.add("Reshape", rows, net.integers(36, 1, 4)), perm=[1, 2, 0])


def recurrent(net: Builder) -> str:
    """A GRU over rows whose initial state is a constant for one item."""
    sequence = net.add("Transpose", net.add("Reshape", "x", net.integers(1, 24, 6)), perm=[1, 0, 2])
    output = net.name("gru")
    inputs = [sequence, net.floats(1, 15, 6), net.floats(1, 15, 5), "", "", net.weight(np.ones((1, 1, 5), np.float32))]
    net.nodes.append(helper.make_node("GRU", inputs, [output], hidden_size=5))
    return net.add("Transpose", net.add("Squeeze", output, net.integers(1)), perm=[1, 0, 2])


HABITS: dict[str, Draw] = {
    "reshape to 1, -1": lambda n: n.add("Reshape", "x", n.integers(1, -1)),
    "reshape to static sizes": lambda n: n.add("Reshape", "x", n.integers(1, 2, 2, 36)),
    "reshape by computed sizes": lambda n: n.add("Reshape", "x", n.add("Concat", shape_of(n, "x", 0), n.integers(-1), axis=0)),
    "reshape by computed sizes with a baked one": lambda n: n.add(
        "Reshape", "x", n.add("Concat", n.integers(1), shape_of(n, "x", 1), n.integers(-1), axis=0)
    ),
    "reshape that folds the batch into rows and back": lambda n: n.add(
        "Reshape", n.add("MatMul", n.add("Reshape", "x", n.integers(24, 6)), n.floats(6, 5)), n.integers(1, 4, 6, 5)
    ),
    "flatten": lambda n: n.add("Gemm", n.add("Flatten", "x", axis=1), n.floats(144, 7), transB=0),
    "constant channels joined": lambda n: n.add("Concat", "x", zeros(n, 1, 2, 6, 6), axis=1),
    "resize to sizes": lambda n: n.add("Resize", "x", "", "", n.integers(1, 4, 9, 9), mode="linear"),
    "expand": lambda n: n.add("Expand", n.add("ReduceMean", "x", axes=[2, 3]), n.integers(1, 4, 6, 6)),
    "tile": lambda n: n.add("Tile", "x", n.integers(1, 1, 2, 1)),
    "slice of the whole batch axis": lambda n: n.add("Slice", "x", n.integers(0, 1), n.integers(1, 3), n.integers(0, 1)),
    "batch squeezed away": lambda n: n.add("Squeeze", n.add("ReduceMax", "x", axes=[2, 3]), n.integers(0, 2, 3)),
    "all ones squeezed away": lambda n: n.add("Squeeze", n.add("ReduceMax", "x", axes=[2, 3])),
    "batch in the second axis": lambda n: n.add("Transpose", n.add("Relu", n.add("Transpose", "x", perm=[1, 0, 2, 3])), perm=[1, 0, 2, 3]),
    "attention over pixels": attention,
    "recurrent with a zero state": recurrent,
    "attention with the batch second": attention_with_batch_second,
    "pads and splits": lambda n: n.add(
        "Add", *[n.add("Pad", "x", n.integers(0, 0, 1, 1, 0, 0, 1, 1)), n.add("Pad", "x", n.integers(0, 0, 2, 2, 0, 0, 0, 0))]
    ),
    "reduce without kept axes": lambda n: n.add("ReduceMean", "x", axes=[2, 3], keepdims=0),
    "einsum": lambda n: n.add("Einsum", "x", n.floats(4, 5), equation="bchw,cd->bdhw"),
    "grid sampling with a constant grid": lambda n: n.add(
        "GridSample", "x", n.weight(np.random.default_rng(3).uniform(-1, 1, (1, 5, 5, 2)).astype(np.float32))
    ),
}


@pytest.mark.parametrize("habit", HABITS)
def test_each_item_of_a_batch_equals_the_traced_network_on_it_alone(habit: str) -> None:
    traced = model_of(HABITS[habit])
    real = batchable(traced)
    items = np.random.default_rng(5).standard_normal((3, *SHAPE[1:])).astype(np.float32)
    alone = [run(traced, item[None]) for item in items]
    for count in (1, 2, 3):
        together = run(real, items[:count])
        assert together.size == count * alone[0].size
        for index in range(count):
            np.testing.assert_allclose(together.reshape(count, -1)[index], alone[index].ravel(), rtol=1e-4, atol=1e-5)


def test_shapes_are_folded_by_the_rules_of_the_networks_own_operator_set() -> None:
    """From set 18 on, Reduce takes its axes as an input and Split its number of parts."""

    def draw(net: Builder) -> str:
        shape = net.add("Shape", "x")
        net.nodes.append(helper.make_node("Split", [shape], ["first", "last"], axis=0, num_outputs=2))
        count = net.add("ReduceProd", "last", net.integers(0), keepdims=1)
        return net.add("Reshape", "x", net.add("Concat", "first", count, axis=0))

    folded = batchable(model_of(draw, opset=18))
    assert [node.op_type for node in folded.graph.node] == ["Reshape", "Identity"]
    assert run(folded, np.zeros((3, *SHAPE[1:]), np.float32)).shape == (3, 4, 36)


MIXING: dict[str, tuple[Draw, str]] = {
    "softmax over items": (lambda n: n.add("Softmax", "x", axis=0), "across items"),
    "mean over everything": (lambda n: n.add("ReduceMean", "x", axes=[0, 1, 2, 3]), "reduces over items"),
    "first item picked": (lambda n: n.add("Gather", "x", n.weight(np.asarray(0, np.int64)), axis=0), "picks items"),
    "rows folded behind the batch": (
        lambda n: n.add("Reshape", n.add("Transpose", "x", perm=[2, 3, 0, 1]), n.integers(-1, 4)),
        "mixes the rows of several items",
    ),
    "weights made from the item": (
        lambda n: n.add("Conv", n.weight(np.ones((1, 4, 8, 8), np.float32)), "x", kernel_shape=[6, 6]),
        "depend on the item",
    ),
    "an operator nobody knows": (lambda n: n.add("NonZero", "x"), "not known"),
}


@pytest.mark.parametrize("case", MIXING)
def test_network_that_mixes_items_is_named_with_the_node_and_the_reason(case: str) -> None:
    draw, reason = MIXING[case]
    with pytest.raises(NotBatchable, match=reason):
        batchable(model_of(draw))
