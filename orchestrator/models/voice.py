"""Silero VAD as the `voice_activity` role: windows of sound in, the probability that somebody speaks out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.wrapping import Arrays, Run, Wrapping

SOURCE_PACKAGE = "silero-vad==6.2.3"
"""PyPI package that carries the network; it is read, not installed."""

SOURCE_MEMBER = "silero_vad/data/silero_vad_16k_sequence.onnx"

SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"
"""Of that file."""

SAMPLE_RATE_HZ = 16_000

CHUNK_SAMPLES = 512
"""Sound each probability is about: 32 ms."""

CONTEXT_SAMPLES = 64
"""Sound before a chunk that the network also sees."""

CHUNKS = 512
"""Chunks of one window: 16.4 s."""

WARM_UP_CHUNKS = 64
"""Chunks at the start of a window, 2 s, in which the network's memory only fills up: windows overlap by as many."""

_STATE = (1, 1, 128)

_EXPECTED = ["input input FLOAT [chunks, 576]", "input h FLOAT [1, 1, 128]", "input c FLOAT [1, 1, 128]", "output speech_probs FLOAT [chunks]"]


@dataclass(frozen=True, slots=True)
class Silero(Wrapping):
    """Silero VAD 6 at 16 kHz in the form that takes many chunks at once: a short convolution of each, and an LSTM along all of them.

    The chunks of a window are what the network's own first axis counts; it knows no batch. So the windows of a batch run one after another.
    """

    network: Network
    output: str

    shared_inputs = ("h", "c")

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "Silero":
        """Raises UnsuitableModel when the network is another."""
        sound, states = network.find_input("input"), [network.find_input(name) for name in ("h", "c")]
        fits = len(network.inputs) == 3 and sound is not None and all(state is not None and state.shape == _STATE for state in states)
        found = [tensor for tensor in network.outputs if tensor.name == "speech_probs"]
        if not fits or sound is None or len(sound.shape) != 2 or sound.shape[1] != CONTEXT_SAMPLES + CHUNK_SAMPLES or not found:
            raise network.mismatch("silero", _EXPECTED)
        if any(tensor.dtype != TensorProto.FLOAT for tensor in (*network.inputs, *network.outputs)):
            raise network.mismatch("silero", _EXPECTED, "its element types differ")
        return Silero(network, found[0].name)

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            role="voice_activity",
            inputs=(Tensor("samples", "TYPE_FP32", (CHUNKS * CHUNK_SAMPLES + CONTEXT_SAMPLES,)),),
            outputs=(Tensor("voice", "TYPE_FP32", (CHUNKS,)),),
            max_batch_size=8,
            queue_delay_us=1000,
            parameters={
                "sample_rate_hz": str(SAMPLE_RATE_HZ),
                "chunk_samples": str(CHUNK_SAMPLES),
                "context_samples": str(CONTEXT_SAMPLES),
                "warm_up_chunks": str(WARM_UP_CHUNKS),
            },
        )

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        shapes = {"input": (CHUNKS, CONTEXT_SAMPLES + CHUNK_SAMPLES), "h": _STATE, "c": _STATE}
        return {tensor.name: shapes[tensor.name] for tensor in self.network.inputs}

    def draw(self, graph: Graph, run: Run) -> None:
        samples = graph.input("samples", FLOAT, ["N", CHUNKS * CHUNK_SAMPLES + CONTEXT_SAMPLES])
        begins = samples.slice(1, 0, CHUNKS * CHUNK_SAMPLES).reshape(0, CHUNKS, CHUNK_SAMPLES)
        # A chunk's last samples are the first of the next one; behind the last chunk they are all there is.
        last = samples.slice(1, CHUNKS * CHUNK_SAMPLES, CHUNKS * CHUNK_SAMPLES + CONTEXT_SAMPLES).reshape(0, 1, CONTEXT_SAMPLES)
        following = graph.concat([begins.slice(1, 1, CHUNKS).slice(2, 0, CONTEXT_SAMPLES), last], axis=1)
        chunks = graph.concat([begins, following], axis=2)
        rest = {name: graph.constant(np.zeros(_STATE)) for name in self.shared_inputs}
        graph.output(run({"input": chunks, **rest})[self.output].reshape(-1, CHUNKS), "voice", FLOAT, ["N", CHUNKS])

    def feed(self, item: Arrays) -> Arrays:
        size = CONTEXT_SAMPLES + CHUNK_SAMPLES
        chunks = np.lib.stride_tricks.sliding_window_view(item["samples"], size)[::CHUNK_SAMPLES]
        return {"input": chunks, **dict.fromkeys(self.shared_inputs, np.zeros(_STATE, np.float32))}

    def read(self, outputs: Arrays) -> Arrays:
        return {"voice": outputs[self.output].reshape(CHUNKS)}
