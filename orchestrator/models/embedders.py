"""ArcFace and SFace as the `face_embedder` role: an aligned face in, a direction out that is near another one's if both are the same person's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run, check_floats, resolve_outputs

SIZE_PX = 112

_MIN_LENGTH = 1e-6
"""What a vector without a direction is divided by."""


@dataclass(frozen=True, slots=True)
class _Embedder:
    """A network that reads a face of 112 px and answers with so many numbers."""

    network: Network
    output: str
    size: int
    pixels: Pixels
    shared_inputs: tuple[str, ...] = ()

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            role="face_embedder",
            inputs=(Tensor("face", "TYPE_UINT8", (SIZE_PX, SIZE_PX, 3)),),
            outputs=(Tensor("embedding", "TYPE_FP32", (self.size,)),),
            max_batch_size=16,
            queue_delay_us=1000,
            parameters={"crop_template": "arcface_112_v2"},
        )

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.network.inputs[0].name: (1, 3, SIZE_PX, SIZE_PX)}

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", SIZE_PX, SIZE_PX, 3])
        vector = run({self.network.inputs[0].name: self.pixels.draw(graph, face)})[self.output].reshape(-1, self.size)
        length = graph.op("Max", graph.op("Sqrt", (vector * vector).sum([1])), _MIN_LENGTH)
        graph.output(graph.op("Div", vector, length.reshape(-1, 1)), "embedding", FLOAT, ["N", self.size])

    def feed(self, item: Arrays) -> Arrays:
        return {self.network.inputs[0].name: self.pixels.feed(item["face"])}

    def read(self, outputs: Arrays) -> Arrays:
        vector = outputs[self.output].reshape(self.size).astype(np.float32)
        return {"embedding": vector / max(float(np.linalg.norm(vector)), _MIN_LENGTH)}


def _fit(network: Network, pack: str, size: int, pixels: Pixels) -> _Embedder:
    expected = [f"input FLOAT [N, 3, {SIZE_PX}, {SIZE_PX}]", f"output FLOAT [N, {size}]"]
    wanted = (3, SIZE_PX, SIZE_PX)
    shape = network.inputs[0].shape if len(network.inputs) == 1 else ()
    if len(shape) != 4 or any(isinstance(given, int) and given > 0 and given != side for given, side in zip(shape[1:], wanted, strict=True)):
        raise network.mismatch(pack, expected)
    network = resolve_outputs(network, {network.inputs[0].name: (1, *wanted)})
    if len(network.outputs) != 1 or network.outputs[0].shape[1:] != (size,):
        raise network.mismatch(pack, expected)
    check_floats(network, pack, expected)
    return _Embedder(network, network.outputs[0].name, size, pixels)


class ArcFace:
    """InsightFace's recognition networks: w600k_r50 of buffalo_l, w600k_mbf of buffalo_s."""

    @staticmethod
    def fit(network: Network, options: PackOptions) -> _Embedder:
        """Raises UnsuitableModel when the network is another."""
        return _fit(network, "arcface", 512, Pixels((127.5, 127.5, 127.5), 1 / 127.5))


class SFace:
    """The OpenCV zoo's SFace, which brings its own normalisation."""

    @staticmethod
    def fit(network: Network, options: PackOptions) -> _Embedder:
        """Raises UnsuitableModel when the network is another."""
        return _fit(network, "sface", 128, Pixels())
