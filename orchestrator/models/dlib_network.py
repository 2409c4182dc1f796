"""dlib's published face recognition network as an ONNX graph: its own file format, and the one network of that format that is read here.

dlib writes no graph: the file holds the layers' numbers in the order of a C++ type, `anet_type` of dnn_face_recognition_ex.cpp, a ResNet of
29 convolutions. So the layers are known beforehand, and every one of them is checked against the file.

Measured against dlib 20.0.1 on 12 aligned faces of a photograph and three videos: no number of an embedding differs by more than 3e-7.
"""

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from orchestrator.errors import UnreadableModel, UnsuitableModel
from orchestrator.models.graph import FLOAT, Graph, Value

SIZE_PX = 150
"""Side of the picture the network reads."""

EMBEDDING_SIZE = 128
"""Numbers it answers with."""

_COLOURS = 3

_STEM_WIDTH = 32
"""Channels of the first convolution, 7 x 7 by strides of 2."""

_BLOCKS = (*[(32, 1)] * 3, (64, 2), *[(64, 1)] * 3, (128, 2), *[(128, 1)] * 2, (256, 2), *[(256, 1)] * 2, (256, 2))
"""Channels and stride of each residual block of two 3 x 3 convolutions; one of stride 2 adds what it read as the means of 2 x 2."""

_START = b"\x01\x01\x01\x0dloss_metric_2"

_Array = NDArray[np.float32]


def is_dlib(content: bytes) -> bool:
    """Tell whether a file's bytes are a network of dlib's that was trained to tell apart by distance."""
    return content.startswith(_START)


def read_dlib(name: str, content: bytes) -> onnx.ModelProto:
    """Return the network of a file as ONNX: `image` [N,3,150,150] RGB 0..255 to `embedding` [N,128].

    Raises:
        UnreadableModel: the file is truncated or damaged.
        UnsuitableModel: it holds a network of other layers.
    """
    file = _File(name, content)
    file.begin()
    graph = Graph("dlib")
    image = graph.input("image", FLOAT, ["N", _COLOURS, SIZE_PX, SIZE_PX])
    file.expect_text("input_rgb_image_sized")
    mean = [file.real() for _ in range(_COLOURS)]
    file.expect(SIZE_PX, SIZE_PX)
    x = (image - np.reshape(mean, (1, _COLOURS, 1, 1))) * (1 / 256)
    x = graph.op("Relu", _convolution(graph, file, x, _COLOURS, _STEM_WIDTH, 7, 2))
    file.layer_ends("relu_")
    file.pool("max_pool_2", 3, 3, 2, 2, 0, 0)
    x = graph.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    width, side_px = _STEM_WIDTH, 35
    for channels, stride in _BLOCKS:
        x, side_px = _residual(graph, file, x, (width, channels), stride, side_px)
        width = channels
    file.pool("avg_pool_2", 0, 0, 1, 1, 0, 0)
    weights = file.dense(width, EMBEDDING_SIZE)
    file.finish()
    graph.output(x.mean((2, 3)).reshape(-1, width) @ weights, "embedding", FLOAT, ["N", EMBEDDING_SIZE])
    return graph.model()


def _residual(graph: Graph, file: "_File", x: Value, channels: tuple[int, int], stride: int, side_px: int) -> tuple[Value, int]:
    """Append a block and return its answer and side. Where the two summands differ in size, dlib takes the smaller one to go on with zeros."""
    before, after = channels
    y = graph.op("Relu", _convolution(graph, file, x, before, after, 3, stride, ends="relu_"))
    y = _convolution(graph, file, y, after, after, 3, 1)
    if stride == 2:
        file.pool("avg_pool_2", 2, 2, 2, 2, 0, 0)
        x = graph.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = graph.op("Pad", x, graph.integers([0, 0, 0, 0, 0, after - before, 0, 0]))
        missing, side_px = side_px // 2 - (side_px - 1) // 2, side_px // 2
        y = graph.op("Pad", y, graph.integers([0, 0, 0, 0, 0, 0, missing, missing]))
    file.layer_ends("add_prev_")
    file.layer_ends("relu_")
    return graph.op("Relu", x + y), side_px


def _convolution(graph: Graph, file: "_File", x: Value, before: int, after: int, side: int, stride: int, ends: str = "") -> Value:
    """Append a convolution and the `affine` that follows it, as one; `ends` names a layer without numbers behind them."""
    weights, bias = file.convolution(before, after, side, stride)
    scale, shift = file.affine(after)
    if ends:
        file.layer_ends(ends)
    border = 0 if stride > 1 else side // 2
    folded = weights * scale.reshape(-1, 1, 1, 1), bias * scale + shift
    return graph.op("Conv", x, *folded, kernel_shape=[side, side], strides=[stride, stride], pads=[border] * 4)


def _versions() -> list[int]:
    """Return the versions of the nested layers, the last one first: 1 for the marks between which something is added, 3 for the first."""
    versions = [2, 2]
    for _, stride in reversed(_BLOCKS):
        versions += [2, 2, *([2, 1, 1] if stride == 2 else []), 2, 2, 2, 2, 2, 1]
    return [*versions, 2, 2, 2, 3]


class _File:
    """Reads dlib's serialisation from its start to its end."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name = name
        self._content = content
        self._at = 0

    def begin(self) -> None:
        """Read what stands before the layers: the loss with its margin and distance, and the versions."""
        self._take(len(_START))
        self.real(), self.real()
        self.expect(*_versions())

    def finish(self) -> None:
        """Check that nothing follows."""
        if self._at != len(self._content):
            raise self._unsuitable("more than the last layer")

    def integer(self) -> int:
        """Return the next whole number: how many bytes it has, with bit 7 for a minus, then these, the lowest first."""
        size = self._take(1)[0]
        if size & 0x70 or not 1 <= size & 0x0F <= 8:
            raise self._damaged()
        value = int.from_bytes(self._take(size & 0x0F), "little")
        return -value if size & 0x80 else value

    def real(self) -> float:
        """Return the next float: mantissa and exponent of 2."""
        mantissa, exponent = self.integer(), self.integer()
        if abs(exponent) > 1000:
            raise self._damaged()
        return math.ldexp(mantissa, exponent)

    def text(self) -> str:
        """Return the next text."""
        return self._take(self.integer()).decode("latin-1")

    def expect(self, *numbers: int) -> None:
        """Check that the next numbers are these."""
        found = [self.integer() for _ in numbers]
        if found != list(numbers):
            raise self._unsuitable(f"{found} in place of {list(numbers)}")

    def expect_text(self, text: str) -> None:
        """Check that the next text is this one."""
        found = self.text()
        if found != text:
            raise self._unsuitable(f"{found[:32]!r} in place of {text!r}")

    def convolution(self, before: int, after: int, side: int, stride: int) -> tuple[_Array, _Array]:
        """Return a `con_` layer's filters (after, before, side, side) and biases (after,)."""
        self.expect_text("con_4")
        numbers = self._tensor(after * before * side * side + after)
        border = 0 if stride > 1 else side // 2
        self.expect(after, side, side, stride, stride, border, border)
        self._shape(after, before, side, side)
        self._shape(1, after, 1, 1)
        self._rates()
        self._layer_end()
        if before == _COLOURS:
            self.expect(1)  # the first layer says how many pictures one input becomes
        return numbers[:-after].reshape(after, before, side, side), numbers[-after:]

    def affine(self, width: int) -> tuple[_Array, _Array]:
        """Return an `affine_` layer's factors and summands, (width,) each."""
        self.expect_text("affine_")
        numbers = self._tensor(2 * width)
        for _ in range(2):
            self._shape(1, width, 1, 1)
        self.expect(0)  # one for each channel
        self._layer_end()
        return numbers[:width], numbers[width:]

    def dense(self, before: int, after: int) -> _Array:
        """Return an `fc_` layer's weights (before, after); it has no bias."""
        self.expect_text("fc_2")
        self.expect(after, before)
        numbers = self._tensor(before, after)
        self._shape(before, after, 1, 1)
        self._shape(0, 0, 0, 0)
        self.expect(1)
        self._rates()
        self._layer_end()
        return numbers

    def pool(self, kind: str, *geometry: int) -> None:
        """Check a pooling layer's sides, strides and borders."""
        self.expect_text(kind)
        self.expect(*geometry)
        self._layer_end()

    def layer_ends(self, kind: str) -> None:
        """Check a layer without numbers."""
        self.expect_text(kind)
        self._layer_end()

    def _layer_end(self) -> None:
        """Read what follows each layer: three flags, and three tensors that are filled in training alone."""
        if not set(self._take(3)) <= set(b"01"):
            raise self._damaged()
        for _ in range(3):
            self.expect(2, 0, 0, 0, 0)

    def _rates(self) -> None:
        """Skip how fast a layer learns."""
        for _ in range(4):
            self.real()

    def _shape(self, *shape: int) -> None:
        self.expect(1, *shape)

    def _tensor(self, *shape: int) -> _Array:
        self.expect(2, *shape, *[1] * (4 - len(shape)))
        numbers = np.frombuffer(self._take(4 * math.prod(shape)), "<f4").reshape(shape)
        if not np.isfinite(numbers).all():
            raise self._damaged()
        return numbers

    def _take(self, count: int) -> bytes:
        self._at += count
        if count < 0 or self._at > len(self._content):
            raise self._damaged()
        return self._content[self._at - count : self._at]

    def _damaged(self) -> UnreadableModel:
        return UnreadableModel(f"{self._name} is a damaged or truncated file of dlib's, at byte {self._at}; download it again.")

    def _unsuitable(self, found: str) -> UnsuitableModel:
        return UnsuitableModel(
            f"{self._name} holds another network of dlib's than dlib_face_recognition_resnet_model_v1.dat, which is the one to give: "
            f"before byte {self._at} it has {found}."
        )
