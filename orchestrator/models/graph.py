"""A small typed builder for ONNX graphs: expressions on `Value`s append nodes, so that a generated model reads like array code."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
"""Operator set of the graphs: the first with every operator used here that TensorRT 8.6 reads too."""

IR_VERSION = 8
"""ONNX file format version that belongs to opset 17; older runtimes refuse newer ones."""


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
        return self.graph.op("ReduceMean", self, axes=list(axes), keepdims=1)

    def max(self, axes: Sequence[int]) -> "Value":
        """Return the maximum over `axes`, which stay as size 1."""
        return self.graph.op("ReduceMax", self, axes=list(axes), keepdims=1)

    def sum(self, axes: Sequence[int]) -> "Value":
        """Return the sum over `axes`, which stay as size 1."""
        return self.graph.op("ReduceSum", self, self.graph.integers(axes), keepdims=1)

    def slice(self, axis: int, start: int, stop: int) -> "Value":
        """Return the part start..stop-1 of an axis."""
        graph = self.graph
        return graph.op("Slice", self, graph.integers([start]), graph.integers([stop]), graph.integers([axis]))

    def transpose(self, *order: int) -> "Value":
        """Return the value with its axes in another order."""
        return self.graph.op("Transpose", self, perm=list(order))

    def reshape(self, *shape: int) -> "Value":
        """Return the value in another shape; 0 keeps the axis, -1 takes what is left."""
        return self.graph.op("Reshape", self, self.graph.integers(shape))

    def cast(self, dtype: int) -> "Value":
        """Return the value as another ONNX data type."""
        return self.graph.op("Cast", self, to=dtype)


class Graph:
    """Collects nodes, constants, inputs and outputs, then makes a checked model."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> Value:
        """Declare an input; a string in `shape` names a dynamic axis."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return Value(self, name)

    def output(self, value: Value, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare `value` an output called `name`."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def constant(self, array: ArrayLike) -> Value:
        """Return a float32 constant; equal constants are stored once."""
        return self._store(np.asarray(array, np.float32))

    def integers(self, array: ArrayLike) -> Value:
        """Return an int64 constant, as shapes and axes need it."""
        return self._store(np.asarray(array, np.int64))

    def op(self, kind: str, *inputs: "Value | ArrayLike | None", **attributes: Any) -> Value:
        """Append a node with one output; inputs that are not `Value`s become float32 constants, None an optional input left out."""
        return self.multi_op(kind, 1, *inputs, **attributes)[0]

    def multi_op(self, kind: str, count: int, *inputs: "Value | ArrayLike | None", **attributes: Any) -> "tuple[Value, ...]":
        """Append a node with `count` outputs, such as TopK; see `op`."""
        names = [x.name if isinstance(x, Value) else self.constant(x).name if x is not None else "" for x in inputs]
        outputs = [f"{kind.lower()}_{len(self._nodes)}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(kind, names, outputs, **attributes))
        return tuple(Value(self, output) for output in outputs)

    def include(self, network: onnx.GraphProto, value: "Value") -> "list[Value]":
        """Append a published network that reads `value` in place of its one real input, and return its outputs.

        Weights that old exporters list among the inputs too become plain constants.
        """
        weights = {initializer.name for initializer in network.initializer}
        image = next(declared.name for declared in network.input if declared.name not in weights)
        used = {name for node in network.node for name in node.input}
        inside = {image: value.name}
        for node in network.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [inside.get(name, f"network.{name}" if name else "") for name in node.input]
            copy.output[:] = [f"network.{name}" for name in node.output]
            self._nodes.append(copy)
        for initializer in network.initializer:
            if initializer.name in used:
                weight = onnx.TensorProto()
                weight.CopyFrom(initializer)
                weight.name = f"network.{initializer.name}"
                self._initializers.append(weight)
        return [Value(self, f"network.{output.name}") for output in network.output]

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Join values along an axis."""
        return self.op("Concat", *values, axis=axis)

    def label(self, value: Value, name: str) -> Value:
        """Give a value a name that stays in the file, for who reads or probes the graph."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        return Value(self, name)

    def model(self) -> onnx.ModelProto:
        """Return the finished model, checked by ONNX with strict shape inference."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="lipsync-triton")
        model.ir_version = IR_VERSION
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
