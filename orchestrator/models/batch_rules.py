"""What each operator does with a batch axis: where its outputs carry it, and how a 1 that is baked into the node is taken out of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper

from orchestrator.models.item_graph import Axis, ItemGraph, NotBatchable

_Axes = Sequence[Axis | None]
_Rule = Callable[[ItemGraph, onnx.NodeProto, _Axes], list[Axis | None]]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name), default)


def _only_first(axes: _Axes) -> Axis:
    if axes[0] is None or any(axes[1:]):
        raise NotBatchable("its parameters depend on the item")
    return axes[0]


def _elementwise(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    """Values that broadcast against each other: where they carry the batch, they carry it in one place, and the others have size 1 there."""
    shapes = [graph.shape(name) if name else () for name in node.input]
    rank = max(map(len, shapes))
    found = {Axis(axis.index + rank - len(shape), axis.outer, axis.size) for axis, shape in zip(axes, shapes, strict=True) if axis}
    if len(found) != 1:
        raise NotBatchable("its inputs carry the batch in different places")
    axis = found.pop()
    for own, shape in zip(axes, shapes, strict=True):
        place = axis.index - (rank - len(shape))
        if own is None and place >= 0 and shape[place] != 1:
            raise NotBatchable("a constant has one row for each row of an item")
    return [axis]


def _same(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    return [_only_first(axes)]


def _rows(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    """Pictures by rows, such as convolutions: the batch has to be the first axis."""
    axis = _only_first(axes)
    if axis.index != 0:
        raise NotBatchable("the batch is not the first axis")
    return [axis]


def _matmul(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    a, b = (graph.shape(name) for name in node.input[:2])
    if len(a) < 2 or len(b) < 2:
        raise NotBatchable("it multiplies vectors")
    rank = max(len(a), len(b))
    found = set()
    for own, shape, summed in ((axes[0], a, len(a) - 1), (axes[1], b, len(b) - 2)):
        if own is not None:
            if own.index == summed:
                raise NotBatchable("it sums over items")
            found.add(Axis(own.index + rank - len(shape), own.outer, own.size))
    if len(found) != 1:
        raise NotBatchable("its inputs carry the batch in different places")
    axis = found.pop()
    if all(axes) and axis.index >= rank - 2:
        raise NotBatchable("it multiplies rows of different items")
    for own, shape in zip(axes, (a, b), strict=False):
        place = axis.index - (rank - len(shape))
        if own is None and 0 <= place < len(shape) - 2 and shape[place] != 1:
            raise NotBatchable("a constant has one matrix for each row of an item")
    return [axis]


def _gemm(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    if axis.index != (1 if _attribute(node, "transA", 0) else 0):
        raise NotBatchable("it sums over items")
    bias = graph.shape(node.input[2]) if len(node.input) > 2 and node.input[2] else ()
    if len(bias) == 2 and bias[0] != 1:
        raise NotBatchable("its bias has one row for each row of an item")
    return [Axis(0, axis.outer, axis.size)]


def _concat(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    found = {axis for axis in axes if axis}
    rank = len(graph.shape(node.input[0]))
    if len(found) != 1 or next(iter(found)).index == _attribute(node, "axis", 0) % rank:
        raise NotBatchable("it joins items")
    axis = found.pop()
    _repeat_constants(graph, node, axes, axis)
    return [axis]


def _repeat_constants(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes, axis: Axis) -> None:
    """Give a node's constants as many items as its other inputs have."""
    like = next(name for name, own in zip(node.input, axes, strict=True) if own)
    for index, own in enumerate(axes):
        if own is None:
            node.input[index] = _repeated(graph, node.input[index], like, axis)


def _repeated(graph: ItemGraph, name: str, like: str, axis: Axis) -> str:
    """Return a copy of a constant, repeated along the batch axis as often as `like` has items."""
    shape = graph.shape(name)
    if shape[axis.index] != 1 or axis.size != 1:
        raise NotBatchable(f"{name!r} would have to be repeated item by item")
    count, wanted, repeated = (graph.new_name(hint) for hint in ("count", "shape", "repeated"))
    before, behind = (graph.add_constant(np.asarray(part, np.int64), "dims") for part in (shape[: axis.index], shape[axis.index + 1 :]))
    graph.proto.node.append(helper.make_node("Shape", [like], [count], start=axis.index, end=axis.index + 1))
    graph.proto.node.append(helper.make_node("Concat", [before, count, behind], [wanted], axis=0))
    graph.proto.node.append(helper.make_node("Expand", [name, wanted], [repeated]))
    return repeated


def _reshape(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    """Elements keep their order: find the axis of the result that the batch falls into, and let its size follow."""
    axis = _only_first(axes[:1])
    source, target = graph.shape(node.input[0]), graph.shape(node.output[0])
    before = math.prod(source[: axis.index]) * axis.outer
    found = _place(target, before)
    is_between = found.size > 1 and found.outer == 1 and found.index > 0
    if is_between and (found.index == len(target) - 1 or source[axis.index + 1 :] == target[found.index :]):
        # The batch lies between two axes and could be folded into either: into the rows before it, unless what follows it is split (heads).
        rows = target[found.index - 1]
        found = Axis(found.index - 1, rows, rows)
    shape = [-1 if index == found.index else size for index, size in enumerate(target)]
    if 0 in target:
        raise NotBatchable("a value is empty")
    replaced = helper.make_node("Reshape", [node.input[0], graph.add_constant(np.asarray(shape, np.int64), "shape")], [node.output[0]], node.name)
    node.CopyFrom(replaced)
    return [found]


def _place(shape: Sequence[int], before: int) -> Axis:
    """Return where in a shape the batch lies that `before` elements come before; an axis of its own if there is one."""
    prefix, folded = 1, None
    for index, size in enumerate(shape):
        if prefix == before:
            if size == 1:
                return Axis(index, 1, 1)
            folded = folded or Axis(index, 1, size)
        elif prefix < before < prefix * size and before % prefix == 0 and size % (before // prefix) == 0:
            folded = folded or Axis(index, before // prefix, size)
        prefix *= size
    if folded is None:
        raise NotBatchable("it takes the batch axis away")
    return folded


def _transpose(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    order = list(_attribute(node, "perm", range(len(graph.shape(node.input[0])))[::-1]))
    return [Axis(order.index(axis.index), axis.outer, axis.size)]


def _squeeze(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    shape = graph.shape(node.input[0])
    named = graph.value(node.input[1]).tolist() if len(node.input) > 1 else [index for index, size in enumerate(shape) if size == 1]
    gone = {index % len(shape) for index in named}
    if axis.index in gone:
        return _reshape(graph, node, axes[:1])
    if len(node.input) < 2:
        node.input.append(graph.add_constant(np.asarray(sorted(gone), np.int64), "axes"))
    return [Axis(axis.index - sum(index < axis.index for index in gone), axis.outer, axis.size)]


def _unsqueeze(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    new = graph.value(node.input[1]).tolist()
    rank = len(graph.shape(node.input[0])) + len(new)
    old = [index for index in range(rank) if index not in {index % rank for index in new}]
    return [Axis(old[axis.index], axis.outer, axis.size)]


def _expand(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes[:1])
    source, target = graph.shape(node.input[0]), list(graph.shape(node.output[0]))
    place = axis.index + len(target) - len(source)
    if target[place] != axis.size:
        raise NotBatchable("it repeats the batch axis")
    target[place] = 1
    node.input[1] = graph.add_constant(np.asarray(target, np.int64), "shape")
    return [Axis(place, axis.outer, axis.size)]


def _tile(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    if graph.value(node.input[1])[axis.index] != 1:
        raise NotBatchable("it repeats the batch axis")
    return [axis]


def _pad(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    rank = len(graph.shape(node.input[0]))
    named = graph.value(node.input[3]).tolist() if len(node.input) > 3 and node.input[3] else list(range(rank))
    pads = graph.value(node.input[1]).tolist()
    for position, index in enumerate(named):
        if index % rank == axis.index and (pads[position] or pads[position + len(named)]):
            raise NotBatchable("it pads the batch axis")
    return [axis]


def _slice(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    rank = len(graph.shape(node.input[0]))
    starts, ends = (graph.value(name).tolist() for name in node.input[1:3])
    named = graph.value(node.input[3]).tolist() if len(node.input) > 3 and node.input[3] else list(range(len(starts)))
    steps = graph.value(node.input[4]).tolist() if len(node.input) > 4 and node.input[4] else [1] * len(starts)
    for position, index in enumerate(named):
        if index % rank == axis.index:
            if starts[position] not in (0, -axis.size) or steps[position] != 1 or ends[position] < axis.size:
                raise NotBatchable("it cuts the batch axis")
            starts[position], ends[position] = 0, 2**63 - 1
            node.input[1], node.input[2] = (graph.add_constant(np.asarray(values, np.int64), "slice") for values in (starts, ends))
    return [axis]


def _split(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    if _attribute(node, "axis", 0) % len(graph.shape(node.input[0])) == axis.index:
        raise NotBatchable("it takes items apart")
    return [axis] * len(node.output)


def _gather(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    data, indices = axes[:2]
    along = _attribute(node, "axis", 0) % len(graph.shape(node.input[0]))
    if data is not None and indices is not None:
        raise NotBatchable("what it picks depends on the item")
    if data is None:
        assert indices is not None
        return [Axis(along + indices.index, indices.outer, indices.size)]
    if data.index == along:
        raise NotBatchable("it picks items")
    shift = len(graph.shape(node.input[1])) - 1 if data.index > along else 0
    return [Axis(data.index + shift, data.outer, data.size)]


def _reduce(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes[:1])
    rank = len(graph.shape(node.input[0]))
    named = graph.value(node.input[1]).tolist() if len(node.input) > 1 and node.input[1] else list(_attribute(node, "axes", ()))
    if not named and _attribute(node, "noop_with_empty_axes", 0):
        return [axis]
    gone = {index % rank for index in named} or set(range(rank))
    if axis.index in gone:
        raise NotBatchable("it reduces over items")
    if _attribute(node, "keepdims", 1):
        return [axis]
    return [Axis(axis.index - sum(index < axis.index for index in gone), axis.outer, axis.size)]


def _arg_reduce(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    along = _attribute(node, "axis", 0) % len(graph.shape(node.input[0]))
    if along == axis.index:
        raise NotBatchable("it compares items")
    return [axis if _attribute(node, "keepdims", 1) or along > axis.index else Axis(axis.index - 1, axis.outer, axis.size)]


def _along(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    """Operators that work along one axis, the last if they name none, and keep the shape."""
    axis = _only_first(axes)
    if _attribute(node, "axis", -1) % len(graph.shape(node.input[0])) == axis.index:
        raise NotBatchable("it works across items")
    return [axis]


def _cum_sum(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    if int(graph.value(node.input[1])) % len(graph.shape(node.input[0])) == axis.index:
        raise NotBatchable("it works across items")
    return [axis]


def _layer_normalization(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    if axis.index >= _attribute(node, "axis", -1) % len(graph.shape(node.input[0])):
        raise NotBatchable("it normalises across items")
    return [axis]


def _resize(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    axis = _only_first(axes)
    if axis.index != 0:
        raise NotBatchable("the batch is not the first axis")
    sizes = node.input[3] if len(node.input) > 3 else ""
    if sizes and not any(attribute.name == "axes" for attribute in node.attribute):
        rest = graph.add_constant(np.asarray(graph.value(sizes)[1:], np.int64), "sizes")
        count, wanted = graph.new_name("count"), graph.new_name("sizes")
        graph.proto.node.append(helper.make_node("Shape", [node.input[0]], [count], start=0, end=1))
        graph.proto.node.append(helper.make_node("Concat", [count, rest], [wanted], axis=0))
        node.input[3] = wanted
    return [axis]


def _grid_sample(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    found = {axis for axis in axes if axis}
    axis = found.pop()
    if found or axis != Axis(0, 1, 1):
        raise NotBatchable("the batch is not the first axis")
    _repeat_constants(graph, node, axes, axis)
    return [axis]


def _recurrent(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    """LSTM, GRU and RNN: sequences [time, batch, channels]; initial states are repeated for every item."""
    axis = axes[0]
    if axis != Axis(1, 1, 1) or _attribute(node, "layout", 0) or any(axes[1:5]):
        raise NotBatchable("the batch is not the second axis of its sequence")
    for index in range(5, min(7, len(node.input))):
        if node.input[index] and axes[index] is None:
            node.input[index] = _repeated(graph, node.input[index], node.input[0], axis)
    return [Axis(2, 1, 1), Axis(1, 1, 1), Axis(1, 1, 1)]


def _einsum(graph: ItemGraph, node: onnx.NodeProto, axes: _Axes) -> list[Axis | None]:
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    if "." in equation or "->" not in equation:
        raise NotBatchable(f"its equation {equation} is not followed")
    terms, result = equation.split("->")
    letters = {term[axis.index] for term, axis in zip(terms.split(","), axes, strict=True) if axis}
    if len(letters) != 1 or (letter := letters.pop()) not in result:
        raise NotBatchable("it sums over items")
    if any(axis is None and letter in term for term, axis in zip(terms.split(","), axes, strict=True)):
        raise NotBatchable("a constant has one row for each item")
    axis = next(axis for axis in axes if axis)
    return [Axis(result.index(letter), axis.outer, axis.size)]


def _rules() -> dict[str, _Rule]:
    groups: Sequence[tuple[str, _Rule]] = (
        (
            "Abs Acos Asin Atan BitShift BiasGelu Cast Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp FastGelu Floor Gelu HardSigmoid HardSwish "
            "Identity IsInf IsNaN LeakyRelu Log Mish Neg Not QuickGelu Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus "
            "Softsign Sqrt Tan Tanh ThresholdedRelu QuantizeLinear DequantizeLinear",
            _same,
        ),
        (
            "Add And CastLike Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow PRelu Sub Sum Where Xor",
            _elementwise,
        ),
        (
            "AveragePool BatchNormalization Conv ConvTranspose DepthToSpace FusedConv GlobalAveragePool GlobalLpPool GlobalMaxPool "
            "GroupNormalization InstanceNormalization LpPool LRN MaxPool SpaceToDepth",
            _rows,
        ),
        ("ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare", _reduce),
        ("ArgMax ArgMin", _arg_reduce),
        ("Softmax LogSoftmax Hardmax LpNormalization TopK", _along),
        ("LSTM GRU RNN", _recurrent),
    )
    rules = {kind: rule for kinds, rule in groups for kind in kinds.split()}
    return rules | {
        "Concat": _concat,
        "CumSum": _cum_sum,
        "Einsum": _einsum,
        "Expand": _expand,
        "Flatten": _reshape,
        "Gather": _gather,
        "Gemm": _gemm,
        "GridSample": _grid_sample,
        "LayerNormalization": _layer_normalization,
        "MatMul": _matmul,
        "Pad": _pad,
        "Reshape": _reshape,
        "Resize": _resize,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Tile": _tile,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }


RULES: Mapping[str, _Rule] = MappingProxyType(_rules())
"""What each operator does with a batch axis."""
