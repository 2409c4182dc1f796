"""Stand-ins for published networks, with their names, shapes and habits, and random weights. Made with onnx alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Builder:
    """Collects layers. Values are named by their maker."""

    def __init__(self, seed: int = 1) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._count = 0

    def name(self, hint: str) -> str:
        self._count += 1
        return f"{hint}_{self._count}"

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = self.name(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"/{output}", **attributes))
        return output

    def weight(self, array: NDArray[Any], hint: str = "weight") -> str:
        name = self.name(hint)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        return self.weight(np.asarray(values, np.int64), "shape")

    def floats(self, *shape: int, gain: float = 1.0) -> str:
        fan_in = int(np.prod(shape[1:])) or 1
        return self.weight((self.random.standard_normal(shape, np.float32) * np.float32(gain * (2.0 / fan_in) ** 0.5)).astype(np.float32))

    def conv(self, x: str, channels: tuple[int, int], kernel: int, stride: int | tuple[int, int] = 1, pad: int = 0, relu: bool = True) -> str:
        strides = [stride, stride] if isinstance(stride, int) else list(stride)
        weight = self.floats(channels[1], channels[0], kernel, kernel)
        bias = self.weight(self.random.standard_normal(channels[1], np.float32) * np.float32(0.1))
        y = self.add("Conv", x, weight, bias, kernel_shape=[kernel] * 2, strides=strides, pads=[pad] * 4)
        return self.add("Relu", y) if relu else y

    def residual(self, x: str, channels: int) -> str:
        weight = self.floats(channels, channels, 3, 3, gain=0.3)
        bias = self.weight(np.zeros(channels, np.float32))
        y = self.add("Conv", x, weight, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        return self.add("Relu", self.add("Add", y, x))

    def up(self, x: str, channels: tuple[int, int], kernel: int, stride: int) -> str:
        gain = np.float32((2.0 / (channels[0] * kernel * kernel / stride**2)) ** 0.5)
        weight = self.weight(self.random.standard_normal((*channels, kernel, kernel), np.float32) * gain)
        bias = self.weight(np.zeros(channels[1], np.float32))
        first = stride == 1
        pads, extra = ([0] * 4, [0, 0]) if first else ([1] * 4, [1, 1])
        y = self.add("ConvTranspose", x, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, output_padding=extra)
        return self.add("Relu", y)

    def save(
        self,
        path: Path,
        inputs: Sequence[tuple[str, Sequence[int | str]]],
        outputs: Sequence[tuple[str, str, Sequence[int | str]]],
        opset: int = 17,
        dtype: int = FLOAT,
    ) -> Path:
        """Write the network; outputs are (value, name, shape)."""
        nodes = [*self.nodes, *(helper.make_node("Identity", [value], [name]) for value, name, _ in outputs)]
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info(name, dtype, list(shape)) for name, shape in inputs],
            [helper.make_tensor_value_info(name, dtype, list(shape)) for _, name, shape in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="pytorch", ir_version=8)
        onnx.save(model, path)
        return path


FACEFUSION_NAMES = ("source", "target", "output")
WAV2LIP_NAMES = ("mel_spectrogram", "video_frames", "predicted_frames")


def save_wav2lip(
    path: Path, size_px: int = 96, names: tuple[str, str, str] = WAV2LIP_NAMES, fixed_batch: bool = False, width: float = 1.0, opset: int = 14
) -> Path:
    """Write a Wav2Lip network (models/wav2lip.py of Rudrabha/Wav2Lip, layer by layer): 36 M parameters at 96 px and width 1.

    Larger sizes have more layers in between, as the variants of 256 and 384 px do.

    Args:
        path: file to write.
        size_px: 96, 192, 256 or 384.
        names: of the audio input, the face input and the output.
        fixed_batch: as traced with one picture: batch 1 declared, and baked into the shapes of Reshape and Resize.
        width: factor on the number of channels.
        opset: operator set.
    """
    net = Builder()

    def c(channels: int) -> int:
        return max(4, round(channels * width))

    batch: int | str = 1 if fixed_batch else "batch_size"

    audio = names[0]
    for pair_of, strides, count in (((1, 32), (1, 1), 2), ((32, 64), (3, 1), 2), ((64, 128), (3, 3), 2), ((128, 256), (3, 2), 1)):
        pair = (1 if pair_of[0] == 1 else c(pair_of[0]), c(pair_of[1]))
        audio = net.conv(audio, pair, 3, strides, 1)
        for _ in range(count):
            audio = net.residual(audio, pair[1])
    audio = net.conv(net.conv(audio, (c(256), c(512)), 3), (c(512), c(512)), 1)
    if fixed_batch:
        audio = net.add("Reshape", net.add("Reshape", audio, net.integers(1, -1)), net.integers(1, c(512), 1, 1))

    widths, sizes = [c(16)], [size_px]
    x = net.conv(names[1], (6, c(16)), 7, 1, 3)
    skips = [x]
    levels = iter(((32, 2), (64, 3), (128, 2), (256, 2), (512, 1), (512, 1), (512, 1)))
    while sizes[-1] > 4:
        channels, residuals = next(levels)
        wide = c(channels)
        x = net.conv(x, (widths[-1], wide), 3, 2, 1)
        for _ in range(residuals):
            x = net.residual(x, wide)
        widths.append(wide)
        sizes.append(-(-sizes[-1] // 2))
        skips.append(x)
    last = sizes[-1]
    x = net.conv(net.conv(x, (widths[-1], c(512)), last), (c(512), c(512)), 1)
    skips.append(x)
    widths.append(c(512))

    x = net.conv(audio, (c(512), c(512)), 1)
    wide = c(512)
    outs = [*(c(n) for n in (512, 512, 512, 512, 384, 256, 128, 64))][-len(sizes) :]
    x = net.add("Concat", x, skips.pop(), axis=1)
    wide += widths.pop()
    for index, target in enumerate(outs):
        x = net.up(x, (wide, target), last if index == 0 else 3, 1 if index == 0 else 2)
        x = net.residual(x, target) if index == 0 else net.residual(net.residual(x, target), target)
        x = net.add("Concat", x, skips.pop(), axis=1)
        wide = target + widths.pop()
    x = net.conv(x, (wide, c(32)), 3, 1, 1)
    x = net.add("Sigmoid", net.conv(x, (c(32), 3), 1, relu=False))
    if fixed_batch:
        x = net.add("Reshape", x, net.integers(1, 3, size_px, size_px))
    inputs = [(names[0], (batch, 1, 80, 16)), (names[1], (batch, 6, size_px, size_px))]
    return net.save(path, inputs, [(x, names[2], (batch, 3, size_px, size_px))], opset)


def save_edtalk(path: Path, width: int = 8) -> Path:
    """Write a network with edtalk's inputs and habits: batch 1 everywhere, and convolutions whose weights are made from the item."""
    net = Builder(3)
    style = net.conv("source", (1, width), 3, (3, 2), 1)
    style = net.add("Flatten", net.add("GlobalAveragePool", style), axis=1)
    style = net.add("Mul", style, "weight")
    x = net.conv("target", (3, width), 3, 2, 1)
    x = modulated(net, x, style, width, 128)
    x = net.add("Resize", x, "", net.weight(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    x = net.add("Sigmoid", net.conv(x, (width, 3), 3, 1, 1, relu=False))
    inputs = [("source", (1, 1, 80, 16)), ("target", (1, 3, 256, 256)), ("weight", (1,))]
    return net.save(path, inputs, [(x, "output", (1, 3, 256, 256))])


def modulated(net: Builder, x: str, style: str, width: int, side: int) -> str:
    """Return a StyleGAN2 convolution as GFPGAN and edtalk export it: the batch of one folded into channels and groups."""
    scale = net.add(
        "Reshape", net.add("Gemm", style, net.floats(width, width), net.weight(np.ones(width, np.float32))), net.integers(1, 1, width, 1, 1)
    )
    kernel = net.add("Mul", net.floats(1, width, width, 3, 3), scale)
    power = net.add("ReduceSum", net.add("Mul", kernel, kernel), net.integers(2, 3, 4), keepdims=0)
    demodulation = net.add("Reciprocal", net.add("Sqrt", net.add("Add", power, net.weight(np.array(1e-8, np.float32)))))
    kernel = net.add("Mul", kernel, net.add("Reshape", demodulation, net.integers(1, width, 1, 1, 1)))
    kernel = net.add("Reshape", kernel, net.integers(width, width, 3, 3))
    folded = net.add("Reshape", x, net.integers(1, width, side, side))
    return net.add("Relu", net.add("Conv", folded, kernel, kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=1))


def save_enhancer(path: Path, size_px: int = 512, has_weight: bool = False, width: int = 4) -> Path:
    """Write a network with GFPGAN's (or, with a weight, CodeFormer's) inputs and habits."""
    net = Builder(4)
    x = net.conv("input", (3, width), 3, 4, 1)
    style = net.add("Flatten", net.add("GlobalAveragePool", x), axis=1)
    x = modulated(net, x, style, width, size_px // 4)
    if has_weight:
        x = net.add("Mul", x, net.add("Cast", "weight", to=FLOAT))
    x = net.add("Resize", x, "", net.weight(np.array([1, 1, 4, 4], np.float32)), mode="linear")
    x = net.add("Tanh", net.conv(x, (width, 3), 1, relu=False))
    path = net.save(path, [("input", (1, 3, size_px, size_px))], [(x, "output", (1, 3, size_px, size_px))])
    if has_weight:
        model = onnx.load(path)
        model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.DOUBLE, [1]))
        onnx.save(model, path)
    return path


def save_scripted(
    path: Path,
    outputs: Sequence[tuple[str, NDArray[np.float32]]],
    shape: Sequence[int | str],
    declared: Sequence[int | str] = ("N",),
    name: str = "input",
) -> Path:
    """Write a detector that answers every picture with the same (rows, columns) tables, as outputs [N, rows, columns].

    Args:
        path: file to write.
        outputs: name and table of each.
        shape: declared shape of the input.
        declared: leading axes of the declared outputs; () folds the batch into the rows.
        name: of the input.
    """
    net = Builder()
    nothing = net.add(
        "Mul", net.add("Reshape", net.add("ReduceMean", name, axes=[1, 2, 3]), net.integers(-1, 1, 1)), net.weight(np.zeros(1, np.float32))
    )
    results = []
    for label, table in outputs:
        value = net.add("Add", net.weight(table[None].astype(np.float32)), nothing)
        if not declared:
            value = net.add("Reshape", value, net.integers(-1, table.shape[1]))
        results.append((value, label, (*declared, *table.shape)))
    return net.save(path, [(name, shape)], results)


def save_dinet(folder: Path, width: int = 8) -> Path:
    """Write HeyGem's two networks into a folder: the generator, and WeNet's encoder with its lengths."""
    net = Builder(6)
    audio = net.conv(net.add("Unsqueeze", "audio", net.integers(1)), (1, width), 3, (4, 2), 1)
    audio = net.add("GlobalAveragePool", audio)
    x = net.conv(net.add("Concat", "mask_B", "B_img", axis=1), (6, width), 3, 2, 1)
    x = net.add("Resize", net.add("Add", x, audio), "", net.weight(np.array([1, 1, 2, 2], np.float32)), mode="linear")
    x = net.add("Sigmoid", net.conv(x, (width, 3), 3, 1, 1, relu=False))
    picture = ("B", 3, 256, 256)
    net.save(folder / "dinet.onnx", [("audio", ("B", 256, 20)), ("mask_B", picture), ("B_img", picture)], [(x, "output", picture)])

    net = Builder(7)
    x = net.conv(net.add("Unsqueeze", "speech", net.integers(1)), (1, width), 3, 2)
    x = net.conv(x, (width, width), 3, 2)
    x = net.add("Reshape", net.add("Transpose", x, perm=[0, 2, 1, 3]), net.integers(1, 79, width * 19))
    x = net.add("Tanh", net.add("MatMul", x, net.floats(width * 19, 256)))
    path = net.save(folder / "wenet.onnx", [("speech", (1, 321, 80))], [(x, "encoder_out", (1, 79, 256))])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("speech_lengths", TensorProto.INT32, [1]))
    onnx.save(model, path)
    return folder


def save_musetalk(folder: Path, width: int = 8) -> Path:
    """Write MuseTalk's four networks into a folder: small, with the published shapes."""
    net = Builder(8)
    x = net.conv("pixels", (3, width), 3, 4, 1)
    x = net.conv(net.conv(x, (width, width), 3, 2, 1), (width, 8), 1, relu=False)
    net.save(folder / "vae_encoder.onnx", [("pixels", ("B", 3, 256, 256))], [(x, "moments", ("B", 8, 32, 32))])

    net = Builder(9)
    x = net.conv("latent", (8, width), 3, 1, 1)
    tokens = net.add("Transpose", net.add("Reshape", x, net.integers(1, width, 1024)), perm=[0, 2, 1])
    keys = net.add("MatMul", "audio", net.floats(384, width))
    values = net.add("MatMul", "audio", net.floats(384, width))
    weights = net.add("Softmax", net.add("MatMul", tokens, net.add("Transpose", keys, perm=[0, 2, 1])), axis=-1)
    mixed = net.add("Transpose", net.add("Add", tokens, net.add("MatMul", weights, values)), perm=[0, 2, 1])
    mixed = net.add("Add", net.add("Reshape", mixed, net.integers(1, width, 32, 32)), net.add("Cast", "timestep", to=FLOAT))
    x = net.conv(mixed, (width, 4), 3, 1, 1, relu=False)
    path = net.save(folder / "unet.onnx", [("latent", (1, 8, 32, 32)), ("audio", (1, 50, 384))], [(x, "mouth", (1, 4, 32, 32))])
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("timestep", TensorProto.INT64, [1]))
    onnx.save(model, path)

    net = Builder(10)
    x = net.conv("latent", (4, width), 3, 1, 1)
    x = net.add("Resize", x, "", net.weight(np.array([1, 1, 8, 8], np.float32)), mode="linear")
    x = net.add("Tanh", net.conv(x, (width, 3), 3, 1, 1, relu=False))
    net.save(folder / "vae_decoder.onnx", [("latent", ("B", 4, 32, 32))], [(x, "pixels", ("B", 3, 256, 256))])

    net = Builder(11)
    x = net.add("Transpose", "input_features", perm=[0, 2, 1])
    x = net.add("Reshape", x, net.integers(1, 1500, 160))
    layers = [net.add("Tanh", net.add("MatMul", x, net.floats(160, 384)))]
    for _ in range(4):
        layers.append(net.add("Tanh", net.add("MatMul", layers[-1], net.floats(384, 384))))
    outputs = [(layer, f"hidden_states.{index}", (1, 1500, 384)) for index, layer in enumerate(layers)]
    net.save(folder / "whisper_encoder.onnx", [("input_features", (1, 80, 3000))], outputs)
    return folder


def save_xseg(path: Path, name: str = "input", batch: int | str = "batch_size") -> Path:
    """Write a network with XSeg's input and output that takes for face whatever is not green: BGR / 255, pixels last."""
    net = Builder(12)
    planar = net.add("Transpose", name, perm=[0, 3, 1, 2])
    greenness = net.weight(np.array([-1.0, 2.0, -1.0], np.float32).reshape(1, 3, 1, 1))  # far above 0 for pure green alone
    x = net.add("Conv", planar, greenness, net.weight(np.array([-0.6], np.float32)), kernel_shape=[1, 1])
    x = net.add("Sigmoid", net.add("Mul", x, net.weight(np.array(-30.0, np.float32))))
    x = net.add("Transpose", x, perm=[0, 2, 3, 1])
    return net.save(path, [(name, (batch, 256, 256, 3))], [(x, "output", (batch, 256, 256, 1))], opset=13)


def save_face_parser(path: Path, batch: int | str = "batch", width: int = 4) -> Path:
    """Write a network with BiSeNet's input and outputs: 19 classes at full size, and two more heads."""
    net = Builder(13)
    x = net.conv("input", (3, width), 3, 8, 1)
    heads = []
    for _ in range(3):
        y = net.conv(x, (width, 19), 1, relu=False)
        heads.append(net.add("Resize", y, "", net.weight(np.array([1, 1, 8, 8], np.float32)), mode="linear"))
    shape = (batch, 19, 512, 512)
    return net.save(path, [("input", (batch, 3, 512, 512))], [(head, f"output{index}", shape) for index, head in enumerate(heads)], opset=13)


def save_dull_wav2lip(path: Path, size_px: int = 96) -> Path:
    """Write a network with Wav2Lip's inputs that shows what such generators do to a face: a blur, a tint, and a mouth as dark as the speech is loud.

    The blur takes two pixels of three away; the tint is 7, 4 and -3 levels of red, green and blue.
    """
    net = Builder(14)
    audio, picture, answer = WAV2LIP_NAMES
    whole = net.add("Slice", picture, net.integers(3), net.integers(6), net.integers(1))
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]).astype(np.float32) / 256
    blur = net.weight(np.tile(kernel, (3, 1, 1, 1)))
    whole = net.add("Conv", whole, blur, kernel_shape=[5, 5], pads=[2] * 4, group=3)
    whole = net.add("Add", whole, net.weight(np.array([-3, 4, 7], np.float32).reshape(1, 3, 1, 1) / 255))
    y, x = (np.mgrid[:size_px, :size_px] + 0.5) / size_px
    inside = np.exp(-((((x - 0.5) / 0.13) ** 2 + ((y - 0.72) / 0.06) ** 2) ** 4)).astype(np.float32)
    level = net.add("Add", net.add("ReduceMean", audio, axes=[2, 3]), net.weight(np.array(3.5, np.float32)))
    loud = net.add("Clip", level, *(net.weight(np.array(bound, np.float32)) for bound in (0, 1)))
    share = net.add("Mul", net.add("Unsqueeze", loud, net.integers(2, 3)), net.weight(inside[None, None]))
    kept = net.add("Sub", net.weight(np.array(1, np.float32)), share)
    dark = net.weight(np.array([0.12, 0.08, 0.2], np.float32).reshape(1, 3, 1, 1))
    out = net.add("Add", net.add("Mul", whole, kept), net.add("Mul", share, dark))
    inputs = [(audio, ("batch_size", 1, 80, 16)), (picture, ("batch_size", 6, size_px, size_px))]
    return net.save(path, inputs, [(out, answer, ("batch_size", 3, size_px, size_px))])


def save_embedder(path: Path, size: int, name: str = "input.1", batch: int | str = "None", width: int = 4) -> Path:
    """Write a network with the input and output of ArcFace (512 numbers, any batch) or SFace (128, batch 1)."""
    net = Builder(15)
    x = net.conv(name, (3, width), 3, 4, 1)
    x = net.conv(x, (width, width), 3, 4, 1)
    x = net.add("Flatten", x, axis=1)
    x = net.add("MatMul", x, net.weight(net.random.standard_normal((width * 49, size), np.float32)))
    return net.save(path, [(name, (batch, 3, 112, 112))], [(x, "683", (batch, size))], opset=13)


def save_mdx(path: Path, bins: int = 3072, n_fft: int = 7680, frames: int = 256, batch: int | str = "batch_size", below_hz: float = 4000.0) -> Path:
    """Write a network with the input and output of MDX-Net whose voice is what sounds below a frequency, each channel for itself."""
    net = Builder(16)
    kept = (np.arange(bins) * 44_100 / n_fft < below_hz).astype(np.float32).reshape(1, 1, bins, 1)
    centre = np.zeros((4, 1, 3, 3), np.float32)
    centre[:, 0, 1, 1] = 1.0
    x = net.add("Conv", "input", net.weight(centre), kernel_shape=[3, 3], pads=[1] * 4, group=4)
    x = net.add("Mul", x, net.weight(kept))
    shape = (batch, 4, bins, frames)
    return net.save(path, [("input", shape)], [(x, "output", shape)], opset=13)
