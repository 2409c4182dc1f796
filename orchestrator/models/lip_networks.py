"""Wav2Lip and edtalk as the `lip_sync` role: a face and 200 ms of mel in, the face with another mouth out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import InvalidOption
from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network, TensorInfo
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels, draw_uint8, read_uint8, upper_half
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats

MEL_SHAPE = (1, 80, 16)
"""Bands and columns of the speech window, with the networks' channel axis."""

USUAL_SIZE_PX = 96
"""Side of Wav2Lip's crop where the file leaves it open."""

WAV2LIP_WINDOW_START_S = -0.04
"""Where the window begins relative to the frame, s: in training, frame i saw columns from frame i - 1 on (Rudrabha/Wav2Lip,
wav2lip_train.py: get_segmented_mels counts from 1 and takes i - 2). The inference script begins at the frame itself, one frame late."""

EDTALK_WEIGHT = 0.5
"""Strength of edtalk's mouth where nothing else is asked for, the value its users know."""

_AUDIO_NAMES = ("mel_spectrogram", "source", "audio_sequences", "mel")
_FACE_NAMES = ("video_frames", "target", "face_sequences")
_MOUTH_NAMES = ("predicted_frames", "output")

_WAV2LIP_EXPECTED = [
    "input mel_spectrogram | source FLOAT [N, 1, 80, 16]",
    "input video_frames | target FLOAT [N, 6, S, S], S = 96, 256 or 384",
    "output FLOAT [N, 3, S, S]",
]

_EDTALK_EXPECTED = [
    "input source FLOAT [N, 1, 80, 16]",
    "input target FLOAT [N, 3, 256, 256]",
    "input weight FLOAT [1]",
    "output FLOAT [N, 3, 256, 256]",
]


def lip_config(size_px: int, audio_dims: tuple[int, ...], template: str, frontend: str, region: Sequence[float], **more: str) -> ModelConfig:
    """Return Triton's view of a lip model."""
    return ModelConfig(
        role="lip_sync",
        inputs=(Tensor("face", "TYPE_UINT8", (size_px, size_px, 3)), Tensor("audio", "TYPE_FP32", audio_dims)),
        outputs=(Tensor("mouth", "TYPE_UINT8", (size_px, size_px, 3)),),
        max_batch_size=32 if size_px <= 128 else 16 if size_px <= 256 else 8,
        queue_delay_us=1000,
        parameters={"crop_template": template, "audio_frontend": frontend, "paste_region": ",".join(map(str, region)), **more},
    )


def is_rgb(options: PackOptions, usual: str) -> bool:
    """Return whether a network's channels are RGB.

    Raises:
        InvalidOption: the colour order is neither.
    """
    order = (options.colour or usual).lower()
    if order not in ("rgb", "bgr"):
        raise InvalidOption(f"The colour order {options.colour!r} cannot be used; give rgb or bgr.")
    return order == "rgb"


def _find(network: Network, names: tuple[str, ...], *tail: int | None) -> TensorInfo | None:
    """Return the one input of a shape; where free axes leave several, the one with a known name."""
    fitting = [tensor for tensor in network.inputs if tensor.fits(*tail)]
    return next((tensor for tensor in fitting if tensor.name in names), fitting[0] if len(fitting) == 1 else None)


def _with_picture(network: Network) -> Network | None:
    """Return the network known for its one output [N, 3, S, S] alone; None where it has none, or several that go by no known name.

    The only output may also have no declared shape, or have lost its batch axis.
    """
    fitting = [tensor for tensor in network.outputs if tensor.fits(3, None, None)]
    if len(network.outputs) == 1 and len(network.outputs[0].shape) in (0, 3):
        fitting = list(network.outputs)
    named = [tensor for tensor in fitting if tensor.name in _MOUTH_NAMES]
    chosen = fitting if len(fitting) == 1 else named
    return network.with_outputs(chosen[0].name) if len(chosen) == 1 else None


def _crop_size(network: Network, face: TensorInfo, options: PackOptions) -> int:
    sides = {side for side in face.shape[2:] if isinstance(side, int) and side > 0}
    if len(sides) > 1:
        raise network.mismatch("wav2lip", _WAV2LIP_EXPECTED, "its pictures are not of one square size")
    fixed = next(iter(sides), None)
    if fixed is not None and options.size_px not in (None, fixed):
        raise InvalidOption(f"{network.file} takes crops of {fixed} px and no others; leave out --size.")
    size_px = fixed or options.size_px or USUAL_SIZE_PX
    if size_px % 2 or not 64 <= size_px <= 1024:
        raise network.mismatch("wav2lip", _WAV2LIP_EXPECTED, f"a crop of {size_px} px cannot be used")
    return size_px


@dataclass(frozen=True, slots=True)
class Wav2Lip(Wrapping):
    """Wav2Lip (Rudrabha/Wav2Lip), its GAN variant, and those of 256 and 384 px."""

    network: Network
    size_px: int
    audio: str
    """Name of the network's input."""
    face: str
    pixels: Pixels

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "Wav2Lip":
        """Raises UnsuitableModel when the network is another."""
        face = _find(network, _FACE_NAMES, 6, None, None)
        audio = _find(network, _AUDIO_NAMES, *MEL_SHAPE) if face else None
        known = _with_picture(network)
        if len(network.inputs) != 2 or face is None or audio is None or face == audio or known is None:
            raise network.mismatch("wav2lip", _WAV2LIP_EXPECTED)
        check_floats(known, "wav2lip", _WAV2LIP_EXPECTED)
        size_px = _crop_size(network, face, options)
        return Wav2Lip(known, size_px, audio.name, face.name, Pixels(scale=1 / 255, bgr=not is_rgb(options, "bgr")))

    @property
    def config(self) -> ModelConfig:
        return lip_config(
            self.size_px, MEL_SHAPE, "wav2lip_box", "wav2lip_mel", (0.02, 0.46, 0.98, 1.0), audio_window_start_s=str(WAV2LIP_WINDOW_START_S)
        )

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        shapes = {self.audio: (1, *MEL_SHAPE), self.face: (1, 6, self.size_px, self.size_px)}
        return {tensor.name: shapes[tensor.name] for tensor in self.network.inputs}

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", self.size_px, self.size_px, 3])
        audio = graph.input("audio", FLOAT, ["N", *MEL_SHAPE])
        whole = self.pixels.draw(graph, face)
        outputs = run({self.audio: audio, self.face: graph.concat([whole * upper_half(self.size_px), whole], axis=1)})
        planar = outputs[self.output_name] * 255.0
        graph.output(draw_uint8(graph, planar, self.size_px, self.pixels.bgr), "mouth", 2, ["N", self.size_px, self.size_px, 3])

    def feed(self, item: Arrays) -> Arrays:
        whole = self.pixels.feed(item["face"])
        return {self.audio: item["audio"][None], self.face: np.concatenate([whole * upper_half(self.size_px), whole], axis=1)}

    def read(self, outputs: Arrays) -> Arrays:
        return {"mouth": read_uint8(outputs[self.output_name] * np.float32(255), self.size_px, self.pixels.bgr)}


@dataclass(frozen=True, slots=True)
class EdTalk(Wrapping):
    """edtalk at 256 px (tanshuai0219/EDTalk), as exported with `source`, `target` and `weight`."""

    network: Network
    pixels: Pixels
    weight: float

    size_px = 256
    shared_inputs = ("weight",)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "EdTalk":
        """Raises UnsuitableModel when the network is another."""
        source, target, weight = (network.find_input(name) for name in ("source", "target", "weight"))
        known = _with_picture(network)
        if source is None or target is None or weight is None or len(network.inputs) != 3 or known is None:
            raise network.mismatch("edtalk", _EDTALK_EXPECTED)
        if not (source.fits(*MEL_SHAPE) and target.fits(3, 256, 256) and len(weight.shape) <= 1):
            raise network.mismatch("edtalk", _EDTALK_EXPECTED)
        check_floats(known, "edtalk", _EDTALK_EXPECTED, shared=("weight",))
        strength = EDTALK_WEIGHT if options.weight is None else options.weight
        if not 0.0 <= strength <= 1.0:
            raise InvalidOption(f"The weight {strength} cannot be used; give one between 0 and 1.")
        return EdTalk(known, Pixels(scale=1 / 255, bgr=not is_rgb(options, "rgb")), strength)

    @property
    def config(self) -> ModelConfig:
        return lip_config(self.size_px, MEL_SHAPE, "ffhq_512", "wav2lip_mel", (0.04, 0.04, 0.96, 0.98))

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        weight = self.network.find_input("weight")
        shapes = {"source": (1, *MEL_SHAPE), "target": (1, 3, 256, 256), "weight": (1,) if weight and weight.shape else ()}
        return {tensor.name: shapes[tensor.name] for tensor in self.network.inputs}

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", self.size_px, self.size_px, 3])
        audio = graph.input("audio", FLOAT, ["N", *MEL_SHAPE])
        weight = graph.constant(np.full(self.input_shapes["weight"], self.weight))
        outputs = run({"source": audio, "target": self.pixels.draw(graph, face), "weight": weight})
        planar = outputs[self.output_name] * 255.0
        graph.output(draw_uint8(graph, planar, self.size_px, self.pixels.bgr), "mouth", 2, ["N", self.size_px, self.size_px, 3])

    def feed(self, item: Arrays) -> Arrays:
        weight = np.full(self.input_shapes["weight"], self.weight, np.float32)
        return {"source": item["audio"][None], "target": self.pixels.feed(item["face"]), "weight": weight}

    def read(self, outputs: Arrays) -> Arrays:
        return {"mouth": read_uint8(outputs[self.output_name] * np.float32(255), self.size_px, self.pixels.bgr)}
