"""Published TFLite networks as nodes of an ONNX graph: the operators that MediaPipe's face landmark networks are made of, and no others.

Pictures stay NCHW inside the ONNX graph; TFLite's own order is NHWC. Weights stored as float16 become float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import tflite
from flatbuffers import flexbuffers
from numpy.typing import NDArray

from orchestrator.errors import UnsuitableModel
from orchestrator.models import mediapipe_operators
from orchestrator.models.graph import FLOAT, Graph, Value

_DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}

_OPERATOR_NAMES = {code: name for name, code in vars(tflite.BuiltinOperator).items() if not name.startswith("_")}


def is_tflite(content: bytes) -> bool:
    """Tell whether a file's bytes are a TFLite model."""
    return content[4:8] == b"TFL3"


@dataclass(frozen=True, slots=True)
class _Operator:
    name: str
    inputs: tuple[int, ...]
    output: int
    options: Any
    """The flatbuffer table of a built-in operator, the dictionary of a custom one."""


class TfliteNetwork:
    """A TFLite file, read."""

    def __init__(self, content: bytes) -> None:
        """Read the file's bytes.

        Raises:
            UnsuitableModel: they are not a TFLite model.
        """
        if not is_tflite(content):
            raise UnsuitableModel("The file is not a TFLite model; take it out of its package again.")
        self._model = tflite.Model.GetRootAsModel(content, 0)
        self._network = self._model.Subgraphs(0)
        self._operators = [self._operator(index) for index in range(self._network.OperatorsLength())]

    def append_to(self, graph: Graph, image: Value, outputs: Sequence[str]) -> list[Value]:
        """Append what `outputs` need to a graph and return them.

        Args:
            graph: the graph.
            image: [N,C,h,w], what the network's only input gets.
            outputs: names of tensors of the network. Pictures come as [N,C,h,w], others in the shape they have, batch first.

        Raises:
            UnsuitableModel: the network has no such tensor, or an operator that is not known here.
        """
        names = {self._network.Tensors(index).Name().decode(): index for index in range(self._network.TensorsLength())}
        missing = [name for name in outputs if name not in names]
        if missing:
            raise UnsuitableModel(f"The TFLite model has no tensor {', '.join(missing)}; it is another model than this pack wraps.")
        values: dict[int, Any] = {self._network.Inputs(0): image}
        for operator in self._needed([names[name] for name in outputs]):
            if operator.name not in _CONVERTERS:
                raise UnsuitableModel(f"The TFLite model uses operator {operator.name}, which this project does not convert.")
            arguments = [values[index] if index in values else self._constant(index) for index in operator.inputs]
            values[operator.output] = _CONVERTERS[operator.name](graph, operator.options, *arguments)
        return [values[names[name]] for name in outputs]

    def to_onnx(self) -> onnx.ModelProto:
        """Return the whole network as ONNX, its pictures as [N,C,h,w].

        Raises:
            UnsuitableModel: it has an operator that is not known here.
        """
        graph = Graph("tflite")
        image, outputs = self._declared(self._network.Inputs(0)), [self._network.Outputs(i) for i in range(self._network.OutputsLength())]
        height, width, channels = image[1][1:]
        values = self.append_to(graph, graph.input(image[0], FLOAT, ["N", channels, height, width]), [self._declared(i)[0] for i in outputs])
        for index, value in zip(outputs, values, strict=True):
            name, shape = self._declared(index)
            size = prod(shape[1:])
            graph.output(value.reshape(0, size), name, FLOAT, ["N", size])
        return graph.model()

    def _declared(self, tensor: int) -> tuple[str, list[int]]:
        """Return a tensor's name and shape."""
        declared = self._network.Tensors(tensor)
        return declared.Name().decode(), [int(declared.Shape(axis)) for axis in range(declared.ShapeLength())]

    def _needed(self, tensors: Sequence[int]) -> list[_Operator]:
        """Return the operators that tensors depend on, in an order in which they can run."""
        needed = set(tensors)
        operators = []
        for operator in reversed(self._operators):
            if operator.output in needed:
                needed.update(operator.inputs)
                operators.append(operator)
        return operators[::-1]

    def _operator(self, index: int) -> _Operator:
        operator = self._network.Operators(index)
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        inputs = tuple(int(operator.Inputs(i)) for i in range(operator.InputsLength()))
        if kind == tflite.BuiltinOperator.CUSTOM:
            data = bytes(operator.CustomOptions(i) for i in range(operator.CustomOptionsLength()))
            return _Operator(code.CustomCode().decode(), inputs, operator.Outputs(0), flexbuffers.Loads(data) if data else {})
        return _Operator(_OPERATOR_NAMES[kind], inputs, operator.Outputs(0), operator.BuiltinOptions())

    def _constant(self, tensor: int) -> NDArray[Any]:
        declared = self._network.Tensors(tensor)
        data = self._model.Buffers(declared.Buffer()).DataAsNumpy()
        shape = [declared.Shape(i) for i in range(declared.ShapeLength())]
        return np.frombuffer(data.tobytes(), _DTYPES[declared.Type()]).reshape(shape)


def _convolution(graph: Graph, table: Any, image: Value, weights: NDArray[Any], bias: NDArray[Any]) -> Value:
    options = _options(table, tflite.Conv2DOptions)
    _refuse_activation(options)
    return _convolved(graph, options, image, weights.transpose(0, 3, 1, 2), bias, groups=1)


def _depthwise_convolution(graph: Graph, table: Any, image: Value, weights: NDArray[Any], bias: NDArray[Any]) -> Value:
    options = _options(table, tflite.DepthwiseConv2DOptions)
    _refuse_activation(options)
    return _convolved(graph, options, image, weights.transpose(3, 0, 1, 2), bias, groups=weights.shape[3])


def _convolved(graph: Graph, options: Any, image: Value, weights: NDArray[Any], bias: NDArray[Any], groups: int) -> Value:
    strides = [options.StrideH(), options.StrideW()]
    return graph.op(
        "Conv", image, weights, bias, kernel_shape=weights.shape[2:], strides=strides, group=groups, auto_pad=_AUTO_PAD[options.Padding()]
    )


def _max_pool(graph: Graph, table: Any, image: Value) -> Value:
    options = _options(table, tflite.Pool2DOptions)
    _refuse_activation(options)
    kernel, strides = [options.FilterHeight(), options.FilterWidth()], [options.StrideH(), options.StrideW()]
    return graph.op("MaxPool", image, kernel_shape=kernel, strides=strides, auto_pad=_AUTO_PAD[options.Padding()])


def _prelu(graph: Graph, table: Any, image: Value, slope: NDArray[Any]) -> Value:
    # ONNX Runtime's own PRelu takes twice as long on a CPU. Where no negative number gets a steeper slope, the greater of two is the same to the bit.
    scale = slope.reshape(-1, 1, 1)
    if scale.max() <= 1:
        return graph.op("Max", image, image * scale)
    return graph.op("Relu", image) + graph.op("Min", image, 0.0) * scale


def _pad(graph: Graph, table: Any, image: Value, paddings: NDArray[Any]) -> Value:
    order = (0, 3, 1, 2)
    return graph.op("Pad", image, graph.integers([*(paddings[axis][0] for axis in order), *(paddings[axis][1] for axis in order)]))


def _reshape(graph: Graph, table: Any, value: Value, *shape: NDArray[Any]) -> Value:
    # Only vectors of coordinates are reshaped in these networks, so the order of the axes does not matter.
    options = _options(table, tflite.ReshapeOptions)
    return value.reshape(0, *(int(options.NewShape(axis)) for axis in range(1, options.NewShapeLength())))


def _multiply(graph: Graph, table: Any, value: Value, factor: NDArray[Any]) -> Value:
    return value * (factor[:, :2] if factor.shape == (1, 4, 4) else factor)  # a transform has but two rows here


def _options(table: Any, kind: type[Any]) -> Any:
    options = kind()
    options.Init(table.Bytes, table.Pos)
    return options


def _refuse_activation(options: Any) -> None:
    if options.FusedActivationFunction() != tflite.ActivationFunctionType.NONE:
        raise UnsuitableModel("The TFLite model fuses an activation into an operator, which this project does not convert.")


_AUTO_PAD = {tflite.Padding.SAME: "SAME_UPPER", tflite.Padding.VALID: "VALID"}

_CONVERTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "ADD": lambda graph, table, a, b: a + b,
        "CONV_2D": _convolution,
        "DEPTHWISE_CONV_2D": _depthwise_convolution,
        "DEQUANTIZE": lambda graph, table, weights: weights.astype(np.float32),
        "MAX_POOL_2D": _max_pool,
        "MUL": _multiply,
        "PAD": _pad,
        "PRELU": _prelu,
        "RESHAPE": _reshape,
        "Landmarks2TransformMatrix": mediapipe_operators.landmarks_to_transform,
        "TransformLandmarks": mediapipe_operators.transform_landmarks,
        "TransformTensorBilinear": mediapipe_operators.cut_out,
    }
)
"""By TFLite's operator name."""
