"""Making the batch axis of a network real: exports that were traced with one picture have that 1 baked into shapes.

The graph is brought to static shapes for one item. Then the batch axis is followed from the inputs through every node; where a node
holds the 1 as a number, the number is replaced. A node that would mix items, or that cannot be told not to, stops it with a reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from orchestrator.models.graph import replace_nodes
from orchestrator.models.soundness import opset_of

MAX_FOLDED_ELEMENTS = 4096
"""Largest constant computed while folding; shapes have a handful of elements."""

_FOLDABLE = frozenset(
    {
        *("Add", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather", "Greater", "Identity", "Less"),
        *("Max", "Min", "Mod", "Mul", "Neg", "Not", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "Reshape", "Slice", "Split", "Sqrt"),
        *("Squeeze", "Sub", "Unsqueeze", "Where", "Abs", "And", "Flatten", "GatherND", "GreaterOrEqual", "LessOrEqual", "Or", "Pow"),
        *("ReduceSum", "Round", "ScatterElements", "ScatterND", "Sign", "Tile", "Transpose", "Trilu"),
    }
)
"""Operators that exporters compute shapes with."""


class NotBatchable(Exception):
    """A node stands in the way of a real batch axis; the message says which and why."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where a value carries the batch."""

    index: int
    outer: int
    """Elements of the same axis that come before the batch: 1 if the batch is the axis's outermost part."""
    size: int
    """Size of the axis for a batch of one; more than 1 where other axes were folded into it."""


class _Graph:
    """A graph with static shapes for one item, its constants and the axes found so far."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.proto = graph
        self.opset = opset
        self.constants: dict[str, NDArray[Any]] = {}
        self.weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.axes: dict[str, _Axis | None] = {}
        self._count = 0

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.weights:
            return self.weights[name]
        if name not in self.shapes:
            raise NotBatchable(f"the shape of {name!r} is not known")
        return self.shapes[name]

    def value(self, name: str) -> NDArray[Any]:
        if name not in self.constants:
            raise NotBatchable(f"{name!r} is computed at run time")
        return self.constants[name]

    def new_name(self, hint: str) -> str:
        self._count += 1
        return f"batch.{hint}.{self._count}"

    def add_constant(self, array: NDArray[Any], hint: str) -> str:
        name = self.new_name(hint)
        self.proto.initializer.append(numpy_helper.from_array(array, name))
        self.constants[name] = array
        self.weights[name] = array.shape
        return name


def make_batchable(model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]], batched: Sequence[str]) -> None:
    """Rewrite a model, in place, so that the first axis of `batched` inputs and of every output may have any size.

    Args:
        model: at today's operator set, its weights not among the inputs.
        input_shapes: static shape of every input for one item.
        batched: the inputs that have one row an item.

    Outputs keep their rank or lose it where the axis was folded or squeezed away: their elements always lie item by item.

    Raises:
        NotBatchable: a node cannot work on several items at once.
    """
    graph = fix_shapes(model, input_shapes)
    for name in input_shapes:
        graph.axes[name] = _Axis(0, 1, input_shapes[name][0]) if name in batched else None
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.node[:]
    for node in nodes:
        _follow(graph, node)
        model.graph.node.append(node)
    for output in model.graph.output:
        axis = graph.axes.get(output.name)
        if axis is None:
            raise NotBatchable(f"output {output.name!r} does not depend on the input")
        if math.prod(graph.shape(output.name)[: axis.index]) * axis.outer != 1:
            raise NotBatchable(f"output {output.name!r} mixes the rows of several items")
        del output.type.tensor_type.shape.dim[:]
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def fix_shapes(model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]]) -> _Graph:
    """Give a model static input shapes and fold what depends on nothing but shapes, in place.

    Raises:
        NotBatchable: an output turns out to be a constant.
    """
    for value in model.graph.input:
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, list(input_shapes[value.name])))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    while True:
        inferred = infer_shapes(model)
        graph = _Graph(model.graph, opset_of(model))
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
            dims = value.type.tensor_type.shape.dim
            if value.type.tensor_type.HasField("shape") and all(dim.WhichOneof("value") == "dim_value" for dim in dims):
                graph.shapes[value.name] = tuple(dim.dim_value for dim in dims)
        if not _fold(graph):
            return graph


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of the same nodes with the shapes of its values, without its large weights: inference copies what it is given."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MAX_FOLDED_ELEMENTS:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return onnx.shape_inference.infer_shapes(light, data_prop=True)


def _fold(graph: _Graph) -> bool:
    """Replace nodes that compute constants by initializers; return whether there were any, after which more shapes can be inferred."""
    for tensor in graph.proto.initializer:
        if math.prod(tensor.dims) <= MAX_FOLDED_ELEMENTS:
            graph.constants[tensor.name] = numpy_helper.to_array(tensor)
    kept, found = [], False
    for node in graph.proto.node:
        values = _constant_results(graph, node)
        if values is None:
            kept.append(node)
            continue
        found |= node.op_type != "Constant"
        for name, array in zip(node.output, values, strict=True):
            graph.proto.initializer.append(numpy_helper.from_array(array, name))
            graph.weights[name] = array.shape
            if array.size <= MAX_FOLDED_ELEMENTS:
                graph.constants[name] = array
    outputs = {output.name for output in graph.proto.output}
    if len(kept) != len(graph.proto.node):
        replace_nodes(graph.proto, kept)
    if outputs & graph.weights.keys():
        raise NotBatchable(f"output {sorted(outputs & graph.weights.keys())[0]!r} is a constant")
    return found


def _constant_results(graph: _Graph, node: onnx.NodeProto) -> list[NDArray[Any]] | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Constant":
        return [_constant_value(node)]
    if node.op_type == "Shape" and node.input[0] in graph.shapes.keys() | graph.weights.keys():
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        shape = graph.shape(node.input[0])
        return [np.asarray(shape[attributes.get("start", 0) : attributes.get("end", len(shape))], np.int64)]
    if node.op_type == "Size" and node.input[0] in graph.shapes.keys() | graph.weights.keys():
        return [np.asarray(math.prod(graph.shape(node.input[0])), np.int64)]
    if node.op_type not in _FOLDABLE or not all(name in graph.constants for name in node.input if name):
        return None
    if any(name not in graph.shapes or math.prod(graph.shapes[name]) > MAX_FOLDED_ELEMENTS for name in node.output):
        return None
    inputs = {name: graph.constants[name] for name in node.input if name}
    declared = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None) for name, array in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output]
    small = helper.make_model(helper.make_graph([node], "fold", declared, results), opset_imports=[helper.make_opsetid("", graph.opset)])
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in ReferenceEvaluator(small).run(None, inputs)]


def _constant_value(node: onnx.NodeProto) -> NDArray[Any]:
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    raise NotBatchable(f"node {node.name!r} holds a {attribute.name}")


def _follow(graph: _Graph, node: onnx.NodeProto) -> None:
    """Find where a node's outputs carry the batch, and take the baked 1 out of the node.

    Raises:
        NotBatchable: it cannot work on several items.
    """
    axes = [graph.axes.get(name) if name else None for name in node.input]
    if not any(axes):
        if any(attribute.HasField("g") for attribute in node.attribute) and any(graph.axes.get(name) for name in _captured(node)):
            raise NotBatchable(f"node {_label(node)} branches or loops on items")
        for name in node.output:
            graph.axes[name] = None
        return
    rule = _RULES.get(node.op_type)
    if rule is None:
        raise NotBatchable(f"what {_label(node)} does with a batch is not known")
    try:
        found = rule(graph, node, axes)
    except NotBatchable as exc:
        raise NotBatchable(f"{_label(node)}: {exc}") from None
    for index, name in enumerate(node.output):
        graph.axes[name] = found[min(index, len(found) - 1)]


def _label(node: onnx.NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]!r}"


def _captured(node: onnx.NodeProto) -> set[str]:
    return {name for attribute in node.attribute for inner in attribute.g.node for name in (*inner.input, *_captured(inner))}


_Axes = Sequence[_Axis | None]
_Rule = Callable[[_Graph, onnx.NodeProto, _Axes], list[_Axis | None]]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name), default)


def _only_first(axes: _Axes) -> _Axis:
    if axes[0] is None or any(axes[1:]):
        raise NotBatchable("its parameters depend on the item")
    return axes[0]


def _elementwise(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    """Values that broadcast against each other: where they carry the batch, they carry it in one place, and the others have size 1 there."""
    shapes = [graph.shape(name) if name else () for name in node.input]
    rank = max(map(len, shapes))
    found = {_Axis(axis.index + rank - len(shape), axis.outer, axis.size) for axis, shape in zip(axes, shapes, strict=True) if axis}
    if len(found) != 1:
        raise NotBatchable("its inputs carry the batch in different places")
    axis = found.pop()
    for own, shape in zip(axes, shapes, strict=True):
        place = axis.index - (rank - len(shape))
        if own is None and place >= 0 and shape[place] != 1:
            raise NotBatchable("a constant has one row for each row of an item")
    return [axis]


def _same(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    return [_only_first(axes)]


def _rows(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    """Pictures by rows, such as convolutions: the batch has to be the first axis."""
    axis = _only_first(axes)
    if axis.index != 0:
        raise NotBatchable("the batch is not the first axis")
    return [axis]


def _matmul(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    a, b = (graph.shape(name) for name in node.input[:2])
    if len(a) < 2 or len(b) < 2:
        raise NotBatchable("it multiplies vectors")
    rank = max(len(a), len(b))
    found = set()
    for own, shape, summed in ((axes[0], a, len(a) - 1), (axes[1], b, len(b) - 2)):
        if own is not None:
            if own.index == summed:
                raise NotBatchable("it sums over items")
            found.add(_Axis(own.index + rank - len(shape), own.outer, own.size))
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


def _gemm(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    if axis.index != (1 if _attribute(node, "transA", 0) else 0):
        raise NotBatchable("it sums over items")
    bias = graph.shape(node.input[2]) if len(node.input) > 2 and node.input[2] else ()
    if len(bias) == 2 and bias[0] != 1:
        raise NotBatchable("its bias has one row for each row of an item")
    return [_Axis(0, axis.outer, axis.size)]


def _concat(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    found = {axis for axis in axes if axis}
    rank = len(graph.shape(node.input[0]))
    if len(found) != 1 or next(iter(found)).index == _attribute(node, "axis", 0) % rank:
        raise NotBatchable("it joins items")
    axis = found.pop()
    _repeat_constants(graph, node, axes, axis)
    return [axis]


def _repeat_constants(graph: _Graph, node: onnx.NodeProto, axes: _Axes, axis: _Axis) -> None:
    """Give a node's constants as many items as its other inputs have."""
    like = next(name for name, own in zip(node.input, axes, strict=True) if own)
    for index, own in enumerate(axes):
        if own is None:
            node.input[index] = _repeated(graph, node.input[index], like, axis)


def _repeated(graph: _Graph, name: str, like: str, axis: _Axis) -> str:
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


def _reshape(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    """Elements keep their order: find the axis of the result that the batch falls into, and let its size follow."""
    axis = _only_first(axes[:1])
    source, target = graph.shape(node.input[0]), graph.shape(node.output[0])
    before = math.prod(source[: axis.index]) * axis.outer
    found = _place(target, before)
    is_between = found.size > 1 and found.outer == 1 and found.index > 0
    if is_between and (found.index == len(target) - 1 or source[axis.index + 1 :] == target[found.index :]):
        # The batch lies between two axes and could be folded into either: into the rows before it, unless what follows it is split (heads).
        rows = target[found.index - 1]
        found = _Axis(found.index - 1, rows, rows)
    shape = [-1 if index == found.index else size for index, size in enumerate(target)]
    if 0 in target:
        raise NotBatchable("a value is empty")
    replaced = helper.make_node("Reshape", [node.input[0], graph.add_constant(np.asarray(shape, np.int64), "shape")], [node.output[0]], node.name)
    node.CopyFrom(replaced)
    return [found]


def _place(shape: Sequence[int], before: int) -> _Axis:
    """Return where in a shape the batch lies that `before` elements come before; an axis of its own if there is one."""
    prefix, folded = 1, None
    for index, size in enumerate(shape):
        if prefix == before:
            if size == 1:
                return _Axis(index, 1, 1)
            folded = folded or _Axis(index, 1, size)
        elif prefix < before < prefix * size and before % prefix == 0 and size % (before // prefix) == 0:
            folded = folded or _Axis(index, before // prefix, size)
        prefix *= size
    if folded is None:
        raise NotBatchable("it takes the batch axis away")
    return folded


def _transpose(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    order = list(_attribute(node, "perm", range(len(graph.shape(node.input[0])))[::-1]))
    return [_Axis(order.index(axis.index), axis.outer, axis.size)]


def _squeeze(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    shape = graph.shape(node.input[0])
    named = graph.value(node.input[1]).tolist() if len(node.input) > 1 else [index for index, size in enumerate(shape) if size == 1]
    gone = {index % len(shape) for index in named}
    if axis.index in gone:
        return _reshape(graph, node, axes[:1])
    if len(node.input) < 2:
        node.input.append(graph.add_constant(np.asarray(sorted(gone), np.int64), "axes"))
    return [_Axis(axis.index - sum(index < axis.index for index in gone), axis.outer, axis.size)]


def _unsqueeze(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    new = graph.value(node.input[1]).tolist()
    rank = len(graph.shape(node.input[0])) + len(new)
    old = [index for index in range(rank) if index not in {index % rank for index in new}]
    return [_Axis(old[axis.index], axis.outer, axis.size)]


def _expand(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes[:1])
    source, target = graph.shape(node.input[0]), list(graph.shape(node.output[0]))
    place = axis.index + len(target) - len(source)
    if target[place] != axis.size:
        raise NotBatchable("it repeats the batch axis")
    target[place] = 1
    node.input[1] = graph.add_constant(np.asarray(target, np.int64), "shape")
    return [_Axis(place, axis.outer, axis.size)]


def _tile(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    if graph.value(node.input[1])[axis.index] != 1:
        raise NotBatchable("it repeats the batch axis")
    return [axis]


def _pad(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    rank = len(graph.shape(node.input[0]))
    named = graph.value(node.input[3]).tolist() if len(node.input) > 3 and node.input[3] else list(range(rank))
    pads = graph.value(node.input[1]).tolist()
    for position, index in enumerate(named):
        if index % rank == axis.index and (pads[position] or pads[position + len(named)]):
            raise NotBatchable("it pads the batch axis")
    return [axis]


def _slice(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
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


def _split(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    if _attribute(node, "axis", 0) % len(graph.shape(node.input[0])) == axis.index:
        raise NotBatchable("it takes items apart")
    return [axis] * len(node.output)


def _gather(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    data, indices = axes[:2]
    along = _attribute(node, "axis", 0) % len(graph.shape(node.input[0]))
    if data is not None and indices is not None:
        raise NotBatchable("what it picks depends on the item")
    if data is None:
        assert indices is not None
        return [_Axis(along + indices.index, indices.outer, indices.size)]
    if data.index == along:
        raise NotBatchable("it picks items")
    shift = len(graph.shape(node.input[1])) - 1 if data.index > along else 0
    return [_Axis(data.index + shift, data.outer, data.size)]


def _reduce(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
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
    return [_Axis(axis.index - sum(index < axis.index for index in gone), axis.outer, axis.size)]


def _arg_reduce(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    along = _attribute(node, "axis", 0) % len(graph.shape(node.input[0]))
    if along == axis.index:
        raise NotBatchable("it compares items")
    return [axis if _attribute(node, "keepdims", 1) or along > axis.index else _Axis(axis.index - 1, axis.outer, axis.size)]


def _along(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    """Operators that work along one axis, the last if they name none, and keep the shape."""
    axis = _only_first(axes)
    if _attribute(node, "axis", -1) % len(graph.shape(node.input[0])) == axis.index:
        raise NotBatchable("it works across items")
    return [axis]


def _cum_sum(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    if int(graph.value(node.input[1])) % len(graph.shape(node.input[0])) == axis.index:
        raise NotBatchable("it works across items")
    return [axis]


def _layer_normalization(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    axis = _only_first(axes)
    if axis.index >= _attribute(node, "axis", -1) % len(graph.shape(node.input[0])):
        raise NotBatchable("it normalises across items")
    return [axis]


def _resize(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
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


def _grid_sample(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    found = {axis for axis in axes if axis}
    axis = found.pop()
    if found or axis != _Axis(0, 1, 1):
        raise NotBatchable("the batch is not the first axis")
    _repeat_constants(graph, node, axes, axis)
    return [axis]


def _recurrent(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
    """LSTM, GRU and RNN: sequences [time, batch, channels]; initial states are repeated for every item."""
    axis = axes[0]
    if axis != _Axis(1, 1, 1) or _attribute(node, "layout", 0) or any(axes[1:5]):
        raise NotBatchable("the batch is not the second axis of its sequence")
    for index in range(5, min(7, len(node.input))):
        if node.input[index] and axes[index] is None:
            node.input[index] = _repeated(graph, node.input[index], node.input[0], axis)
    return [_Axis(2, 1, 1), _Axis(1, 1, 1), _Axis(1, 1, 1)]


def _einsum(graph: _Graph, node: onnx.NodeProto, axes: _Axes) -> list[_Axis | None]:
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
    return [_Axis(result.index(letter), axis.outer, axis.size)]


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


_RULES: Mapping[str, _Rule] = MappingProxyType(_rules())
"""What each operator does with a batch axis."""
