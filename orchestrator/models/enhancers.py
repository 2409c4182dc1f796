"""GFPGAN and CodeFormer as the `face_enhancer` role: an aligned face in, the same face with finer detail out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.errors import InvalidOption
from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels, draw_uint8, read_uint8
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats

CODEFORMER_WEIGHT = 0.5
"""CodeFormer's balance: 0 most detail, 1 closest to the input."""

_EXPECTED = ["input FLOAT [N, 3, 512, 512]", "optional input weight (CodeFormer)", "output FLOAT [N, 3, 512, 512]"]


@dataclass(frozen=True, slots=True)
class Enhancer(Wrapping):
    """A restoration network on faces aligned as in FFHQ."""

    network: Network
    size_px: int
    image: str
    """Name of the network's input."""
    weight: float
    shared_inputs: tuple[str, ...]

    pixels = Pixels((127.5, 127.5, 127.5), 1 / 127.5)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "Enhancer":
        """Raises UnsuitableModel when the network is another."""
        images = [tensor for tensor in network.inputs if len(tensor.shape) == 4 and tensor.shape[1] in (3, "?")]
        others = [tensor for tensor in network.inputs if tensor not in images]
        outputs = [tensor for tensor in network.outputs if len(tensor.shape) == 4]
        weights_fit = [tensor.name in ("weight", "w", "fidelity") and tensor.shape in ((), (1,)) for tensor in others]
        if len(images) != 1 or len(others) > 1 or not all(weights_fit) or not outputs or outputs[0].shape[1] not in (3, "?"):
            raise network.mismatch("gfpgan", _EXPECTED)
        sides = {side for side in images[0].shape[2:] if isinstance(side, int) and side > 0}
        if len(sides) > 1 or sides - {256, 512, 1024}:
            raise network.mismatch("gfpgan", _EXPECTED, "its picture is not square, or not of 256, 512 or 1024 px")
        if sides and options.size_px not in (None, *sides):
            raise InvalidOption(f"{network.file} takes faces of {next(iter(sides))} px and no others; leave out --size.")
        size_px = next(iter(sides), options.size_px or 512)
        if any(side != size_px for side in outputs[0].shape[2:] if isinstance(side, int) and side > 0):
            raise network.mismatch("gfpgan", _EXPECTED, "its output has another size than its input")
        known = network.with_outputs(outputs[0].name)
        check_floats(known, "gfpgan", _EXPECTED, shared=tuple(tensor.name for tensor in others))
        weight = CODEFORMER_WEIGHT if options.weight is None else options.weight
        if not 0.0 <= weight <= 1.0:
            raise InvalidOption(f"The weight {weight} cannot be used; give one between 0 and 1.")
        return Enhancer(known, size_px, images[0].name, weight, tuple(tensor.name for tensor in others))

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            role="face_enhancer",
            inputs=(Tensor("face", "TYPE_UINT8", (self.size_px, self.size_px, 3)),),
            outputs=(Tensor("enhanced", "TYPE_UINT8", (self.size_px, self.size_px, 3)),),
            max_batch_size=4,
            queue_delay_us=1000,
            parameters={"crop_template": "ffhq_512"},
        )

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for tensor in self.network.inputs:
            shapes[tensor.name] = (1, 3, self.size_px, self.size_px) if tensor.name == self.image else tuple(1 for _ in tensor.shape)
        return shapes

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", self.size_px, self.size_px, 3])
        weights = {name: graph.constant(np.full(self.input_shapes[name], self.weight)) for name in self.shared_inputs}
        outputs = run({self.image: self.pixels.draw(graph, face), **weights})
        planar = outputs[self.output_name] * 127.5 + 127.5
        graph.output(draw_uint8(graph, planar, self.size_px, bgr=False), "enhanced", 2, ["N", self.size_px, self.size_px, 3])

    def feed(self, item: Arrays) -> Arrays:
        weights = {name: np.full(self.input_shapes[name], self.weight, np.float32) for name in self.shared_inputs}
        return {self.image: self.pixels.feed(item["face"]), **weights}

    def read(self, outputs: Arrays) -> Arrays:
        planar = (outputs[self.output_name] + np.float32(1)) * np.float32(127.5)
        return {"enhanced": read_uint8(planar, self.size_px, bgr=False)}
