"""A network brought to static shapes for one item: what depends on nothing but shapes is computed, and a constant."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
class Axis:
    """Where a value carries the batch."""

    index: int
    outer: int
    """Elements of the same axis that come before the batch: 1 if the batch is the axis's outermost part."""
    size: int
    """Size of the axis for a batch of one; more than 1 where other axes were folded into it."""


class ItemGraph:
    """A graph with static shapes for one item, its constants and the axes found so far."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        """Begin with what the graph itself says."""
        self.proto = graph
        self.opset = opset
        self.constants: dict[str, NDArray[Any]] = {}
        self.weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.axes: dict[str, Axis | None] = {}
        self._count = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a value's shape for one item."""
        if name in self.weights:
            return self.weights[name]
        if name not in self.shapes:
            raise NotBatchable(f"the shape of {name!r} is not known")
        return self.shapes[name]

    def value(self, name: str) -> NDArray[Any]:
        """Return what a constant holds."""
        if name not in self.constants:
            raise NotBatchable(f"{name!r} is computed at run time")
        return self.constants[name]

    def new_name(self, hint: str) -> str:
        """Return a name that nothing has."""
        self._count += 1
        return f"batch.{hint}.{self._count}"

    def add_constant(self, array: NDArray[Any], hint: str) -> str:
        """Add a constant; return its name."""
        name = self.new_name(hint)
        self.proto.initializer.append(numpy_helper.from_array(array, name))
        self.constants[name] = array
        self.weights[name] = array.shape
        return name


def fix_shapes(model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]]) -> ItemGraph:
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
        graph = ItemGraph(model.graph, opset_of(model))
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


def _fold(graph: ItemGraph) -> bool:
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


def _constant_results(graph: ItemGraph, node: onnx.NodeProto) -> list[NDArray[Any]] | None:
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
