"""Whisper and WeNet as the `audio_encoder` role: log-mel in, features of speech out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats, resolve_outputs

AUDIO_ENCODER = "audio_encoder"

WHISPER_INPUT = (80, 3000)
"""Bands and columns of 30 s."""

WHISPER_FEATURES = 1500
"""Features of 30 s: 50 a second."""

WENET_COLUMNS = 321
"""Mel columns of one segment, as the vendor's own program cuts them: 3.2 s."""

WENET_FEATURES = 79
"""Features of a segment: 25 a second, after two convolutions of stride 2."""

WENET_CONTEXT = 10
"""Features at either end of a segment that lack what lies beyond; segments overlap so that others replace them."""

_WHISPER_EXPECTED = [
    "input input_features FLOAT [N, 80, 3000]",
    "output FLOAT [N, 1500, layers, 384], or an output [N, 1500, 384] for each of the 5 layers",
]

_WENET_EXPECTED = ["input speech FLOAT [N, 321, 80]", "optional input speech_lengths INT32 [N]", "output encoder_out FLOAT [N, 79, 256]"]


def _config(dims: tuple[int, int], features: tuple[int, int], **parameters: str) -> ModelConfig:
    return ModelConfig(
        role=AUDIO_ENCODER,
        inputs=(Tensor("audio", "TYPE_FP32", dims),),
        outputs=(Tensor("features", "TYPE_FP32", features),),
        max_batch_size=4,
        queue_delay_us=1000,
        parameters=parameters,
    )


@dataclass(frozen=True, slots=True)
class WhisperEncoder(Wrapping):
    """The encoder of whisper-tiny with the hidden states of all its layers, as MuseTalk reads them."""

    network: Network
    outputs: tuple[str, ...]
    """One with all layers, or one a layer, first layer first."""
    layers: int
    size: int
    """Channels of a layer."""

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "WhisperEncoder":
        """Raises UnsuitableModel when the network is another."""
        if len(network.inputs) != 1 or not network.inputs[0].fits(*WHISPER_INPUT):
            raise network.mismatch("musetalk (audio encoder)", _WHISPER_EXPECTED)
        check_floats(network, "musetalk (audio encoder)", _WHISPER_EXPECTED)
        network = resolve_outputs(network, {network.inputs[0].name: (1, *WHISPER_INPUT)})
        whole = [tensor for tensor in network.outputs if len(tensor.shape) == 4]
        single = [tensor for tensor in network.outputs if len(tensor.shape) == 3]
        for tensors, layers in ((whole[:1], whole[0].shape[2] if whole else 0), (single, len(single))):
            sizes = {tensor.shape[-1] for tensor in tensors}
            if len(sizes) == 1 and isinstance(size := sizes.pop(), int) and isinstance(layers, int) and layers > 1:
                return WhisperEncoder(network, tuple(tensor.name for tensor in tensors), layers, size)
        raise network.mismatch("musetalk (audio encoder)", _WHISPER_EXPECTED, "it does not give out the hidden states of its layers")

    @property
    def config(self) -> ModelConfig:
        return _config(WHISPER_INPUT, (WHISPER_FEATURES, self.layers * self.size), audio_frontend="whisper_log_mel", features_per_s="50")

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, *WHISPER_INPUT)}

    def draw(self, graph: Graph, run: Run) -> None:
        audio = graph.input("audio", FLOAT, ["N", *WHISPER_INPUT])
        outputs = run({self.input_name: audio})
        rows = [outputs[name].reshape(-1, WHISPER_FEATURES, self.layers * self.size // len(self.outputs)) for name in self.outputs]
        joined = rows[0] if len(rows) == 1 else graph.concat(rows, axis=2)
        graph.output(joined, "features", FLOAT, ["N", WHISPER_FEATURES, self.layers * self.size])

    def feed(self, item: Arrays) -> Arrays:
        return {self.input_name: item["audio"][None]}

    def read(self, outputs: Arrays) -> Arrays:
        layers = [outputs[name].reshape(WHISPER_FEATURES, -1) for name in self.outputs]
        return {"features": np.concatenate(layers, axis=1).astype(np.float32)}


@dataclass(frozen=True, slots=True)
class WenetEncoder(Wrapping):
    """WeNet's encoder as HeyGem / Duix ship it: bottleneck features of Kaldi filter banks."""

    network: Network
    shared_inputs: tuple[str, ...]

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "WenetEncoder":
        """Raises UnsuitableModel when the network is another."""
        speech, lengths = network.find_input("speech"), network.find_input("speech_lengths")
        fits = speech is not None and speech.fits(WENET_COLUMNS, None) and speech.shape[2] == 80
        output = network.outputs[0]
        if not fits or len(network.inputs) != 1 + (lengths is not None) or len(output.shape) != 3 or output.shape[2] != 256:
            raise network.mismatch("dinet (audio encoder)", _WENET_EXPECTED)
        return WenetEncoder(network, () if lengths is None else ("speech_lengths",))

    @property
    def config(self) -> ModelConfig:
        parameters = {"audio_frontend": "wenet_fbank", "features_per_s": "25", "context_features": str(WENET_CONTEXT)}
        return _config((WENET_COLUMNS, 80), (WENET_FEATURES, 256), **parameters)

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"speech": (1, WENET_COLUMNS, 80)} | dict.fromkeys(self.shared_inputs, (1,))

    def draw(self, graph: Graph, run: Run) -> None:
        audio = graph.input("audio", FLOAT, ["N", WENET_COLUMNS, 80])
        lengths = {name: graph.constant([float(WENET_COLUMNS)]) for name in self.shared_inputs}
        outputs = run({"speech": audio, **lengths})
        features = outputs[self.output_name].reshape(-1, WENET_FEATURES, 256)
        graph.output(features, "features", FLOAT, ["N", WENET_FEATURES, 256])

    def feed(self, item: Arrays) -> Arrays:
        lengths = {name: np.full(1, WENET_COLUMNS, np.int32) for name in self.shared_inputs}
        return {"speech": item["audio"][None], **lengths}

    def read(self, outputs: Arrays) -> Arrays:
        return {"features": outputs[self.output_name].reshape(WENET_FEATURES, 256)}
