"""A small typed builder for ONNX graphs: expressions on `Value`s append nodes, so that a generated model reads like array code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""Operator set of the graphs: the first with every operator used here that TensorRT 8.6 reads too."""

_IR_VERSIONS = ((18, 8), (20, 9), (21, 10))
"""ONNX file format version that belongs to the operator sets up to one; older runtimes refuse newer ones."""


class Value:
    """The name of a tensor in a graph, with arithmetic that appends nodes to it. Shapes broadcast as in numpy."""

    __array_ufunc__ = None  # makes `array * value` reach __rmul__ instead of numpy

    def __init__(self, graph: "Graph", name: str) -> None:
        self.graph = graph
        self.name = name

    def __add__(self, other: "Value | ArrayLike") -> "Value":
        return self.graph.op("Add", self, other)

    def __radd__(self, other: ArrayLike) -> "Value":
        return self.graph.op("Add", other, self)

    def __sub__(self, other: "Value | ArrayLike") -> "Value":
        return self.graph.op("Sub", self, other)

    def __rsub__(self, other: ArrayLike) -> "Value":
        return self.graph.op("Sub", other, self)

    def __mul__(self, other: "Value | ArrayLike") -> "Value":
        return self.graph.op("Mul", self, other)

    def __rmul__(self, other: ArrayLike) -> "Value":
        return self.graph.op("Mul", other, self)

    def __truediv__(self, other: "Value | ArrayLike") -> "Value":
        return self.graph.op("Div", self, other)

    def __matmul__(self, other: "Value | ArrayLike") -> "Value":
        return self.graph.op("MatMul", self, other)

    def __rmatmul__(self, other: ArrayLike) -> "Value":
        return self.graph.op("MatMul", other, self)

    def __neg__(self) -> "Value":
        return self.graph.op("Neg", self)

    def clip(self, low: float, high: float) -> "Value":
        """Return the values limited to low..high."""
        return self.graph.op("Clip", self, low, high)

    def ramp(self, start: float, end: float) -> "Value":
        """Return 0 where the value is below `start`, 1 above `end`, a straight line between; `start` may be the greater one."""
        return (self * (1.0 / (end - start)) - start / (end - start)).clip(0.0, 1.0)

    def smoothstep(self, start: float, end: float) -> "Value":
        """Return a ramp with soft ends: 3t^2 - 2t^3."""
        t = self.ramp(start, end)
        return t * t * (3.0 - 2.0 * t)

    def mean(self, axes: Sequence[int]) -> "Value":
        """Return the mean over `axes`, which stay as size 1."""
        return self._reduce("ReduceMean", axes)

    def max(self, axes: Sequence[int]) -> "Value":
        """Return the maximum over `axes`, which stay as size 1."""
        return self._reduce("ReduceMax", axes)

    def _reduce(self, kind: str, axes: Sequence[int]) -> "Value":
        # Set 18 made the axes an input, as set 13 had for sums.
        if self.graph.opset >= 18:
            return self.graph.op(kind, self, self.graph.integers(axes), keepdims=1)
        return self.graph.op(kind, self, axes=list(axes), keepdims=1)

    def sum(self, axes: Sequence[int]) -> "Value":
        """Return the sum over `axes`, which stay as size 1."""
        return self.graph.op("ReduceSum", self, self.graph.integers(axes), keepdims=1)

    def slice(self, axis: int, start: int, stop: int) -> "Value":
        """Return the part start..stop-1 of an axis."""
        return self.cut((axis,), (start,), (stop,))

    def cut(self, axes: Sequence[int], starts: Sequence[int], stops: Sequence[int]) -> "Value":
        """Return the part start..stop-1 of several axes, in one copy."""
        graph = self.graph
        return graph.op("Slice", self, graph.integers(starts), graph.integers(stops), graph.integers(axes))

    def transpose(self, *order: int) -> "Value":
        """Return the value with its axes in another order."""
        return self.graph.op("Transpose", self, perm=list(order))

    def reshape(self, *shape: int) -> "Value":
        """Return the value in another shape; 0 keeps the axis, -1 takes what is left."""
        return self.graph.op("Reshape", self, self.graph.integers(shape))

    def cast(self, dtype: int) -> "Value":
        """Return the value as another ONNX data type."""
        return self.graph.op("Cast", self, to=dtype)


def names_read(nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Return every name that nodes read, inside their subgraphs too."""
    names = {name for node in nodes for name in node.input}
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                names |= names_read(graph.node) | {output.name for output in graph.output}
    return names


def _renamed(node: onnx.NodeProto, rename: Callable[[str], str]) -> onnx.NodeProto:
    """Return a copy of a node with every name renamed, inside its subgraphs too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [rename(name) for name in node.input]
    copy.output[:] = [rename(name) for name in node.output]
    if node.name:
        copy.name = rename(node.name)
    for attribute in copy.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            replace_nodes(graph, [_renamed(part, rename) for part in graph.node])
            for value in (*graph.input, *graph.output, *graph.value_info):
                value.name = rename(value.name)
            for tensor in graph.initializer:
                tensor.name = rename(tensor.name)
    return copy


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Give a graph other nodes, its own ones maybe among them: those are copied before protobuf lets go of them."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


class Graph:
    """Collects nodes, constants, inputs and outputs, then makes a checked model."""

    def __init__(self, name: str, opset: int = OPSET) -> None:
        """Begin a graph at an operator set, `OPSET` or a later one that an included network needs."""
        self._name = name
        self.opset = opset
        self._domains: set[tuple[str, int]] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> Value:
        """Declare an input; a string in `shape` names a dynamic axis."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return Value(self, name)

    def output(self, value: Value, name: str, dtype: int, shape: Sequence[int | str] | None) -> None:
        """Declare `value` an output called `name`; a shape of None is not known."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, None if shape is None else list(shape)))

    def constant(self, array: ArrayLike) -> Value:
        """Return a float32 constant; equal constants are stored once."""
        return self._store(np.asarray(array, np.float32))

    def integers(self, array: ArrayLike) -> Value:
        """Return an int64 constant, as shapes and axes need it."""
        return self._store(np.asarray(array, np.int64))

    def named_constant(self, array: NDArray[np.float32] | NDArray[np.int64] | np.float32, name: str) -> Value:
        """Return a constant under a name that stays in the file, for who wants to change it there."""
        self._initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return Value(self, name)

    def op(self, kind: str, *inputs: "Value | ArrayLike | None", **attributes: Any) -> Value:
        """Append a node with one output; inputs that are not `Value`s become float32 constants, None an optional input left out."""
        return self.multi_op(kind, 1, *inputs, **attributes)[0]

    def multi_op(self, kind: str, count: int, *inputs: "Value | ArrayLike | None", **attributes: Any) -> "tuple[Value, ...]":
        """Append a node with `count` outputs, such as TopK; see `op`."""
        names = [x.name if isinstance(x, Value) else self.constant(x).name if x is not None else "" for x in inputs]
        outputs = [f"{kind.lower()}_{len(self._nodes)}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(kind, names, outputs, **attributes))
        return tuple(Value(self, output) for output in outputs)

    def include(self, network: onnx.GraphProto, inputs: "Mapping[str, Value]") -> "dict[str, Value]":
        """Append a published network that reads `inputs` in place of its own, and return its outputs by name.

        Every name in it gets a prefix.
        """
        outside = {name: value.name for name, value in inputs.items()}

        def renamed(name: str) -> str:
            return outside.get(name, f"network.{name}" if name else "")

        for node in network.node:
            self._nodes.append(_renamed(node, renamed))
        for initializer in network.initializer:
            weight = onnx.TensorProto()
            weight.CopyFrom(initializer)
            weight.name = renamed(initializer.name)
            self._initializers.append(weight)
        return {output.name: Value(self, renamed(output.name)) for output in network.output}

    def scan(self, network: onnx.GraphProto, inputs: "Mapping[str, Value]", constants: "Mapping[str, Value]") -> "dict[str, Value]":
        """Append a network for single items that runs once for every item, and return its outputs by name, stacked.

        Args:
            network: its outputs have known shapes.
            inputs: what it reads, with one more axis, the batch, in front.
            constants: what it reads and that is the same for all items.
        """
        body = Graph("item", self.opset)
        items = {declared.name: body._declared(declared, "item") for declared in network.input if declared.name in inputs}
        outputs = body.include(network, items | dict(constants))
        for output in network.output:
            tensor = output.type.tensor_type
            shape = [axis.dim_value for axis in tensor.shape.dim] if tensor.HasField("shape") else None
            value = outputs[output.name]
            if shape and shape[0] == 1:  # the batch of one: Scan puts the real one in its place
                shape = shape[1:]
                value = body.op("Reshape", value, body.named_constant(np.asarray(shape, np.int64), f"item.shape.{output.name}"))
            body.output(value, f"item.{output.name}", tensor.elem_type, shape)
        self._initializers.extend(body._initializers)
        graph = helper.make_graph(body._nodes, "item", body._inputs, body._outputs)
        names = [f"scan.{output.name}" for output in network.output]
        feeds = [inputs[name].name for name in items]
        self._nodes.append(helper.make_node("Scan", feeds, names, body=graph, num_scan_inputs=len(feeds)))
        return {output.name: Value(self, name) for output, name in zip(network.output, names, strict=True)}

    def _declared(self, value: onnx.ValueInfoProto, prefix: str) -> Value:
        tensor = value.type.tensor_type
        return self.input(f"{prefix}.{value.name}", tensor.elem_type, [axis.dim_value for axis in tensor.shape.dim])

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Join values along an axis."""
        return self.op("Concat", *values, axis=axis)

    def label(self, value: Value, name: str) -> Value:
        """Give a value a name that stays in the file, for who reads or probes the graph."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        return Value(self, name)

    def add_domain(self, domain: str, version: int) -> None:
        """Allow the operators of another domain, which an included network uses."""
        self._domains.add((domain, version))

    def model(self) -> onnx.ModelProto:
        """Return the finished model, checked by ONNX with strict shape inference.

        Raises:
            onnx.checker.ValidationError, onnx.shape_inference.InferenceError: an included network contradicts itself.
        """
        used = names_read(self._nodes)
        initializers = [tensor for tensor in self._initializers if tensor.name in used]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, initializers)
        domains = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(*domain) for domain in sorted(self._domains))]
        model = helper.make_model(graph, opset_imports=domains, producer_name="lipsync-triton")
        model.ir_version = next(ir for opset, ir in _IR_VERSIONS if self.opset <= opset)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _store(self, array: NDArray[np.float32] | NDArray[np.int64]) -> Value:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = name
            self._initializers.append(numpy_helper.from_array(array, name))
        return Value(self, self._constants[key])


FLOAT = TensorProto.FLOAT
UINT8 = TensorProto.UINT8
BOOL = TensorProto.BOOL
