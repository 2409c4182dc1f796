"""PFLD and the MediaPipe face mesh as the `face_landmarks` role: points on a square cut around a face box."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from orchestrator.errors import InvalidOption
from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats, resolve_outputs


@dataclass(frozen=True, slots=True)
class LandmarkFamily:
    """What a family of landmark networks has in common."""

    pack: str
    point_count: int
    coordinates: int
    """Numbers a point in the network's output; those behind x and y are left out."""
    size_px: int
    pixels: Pixels
    in_pixels: bool
    """Whether the network's coordinates are px of its input; otherwise 0..1."""
    crop_scale: float
    """Side of the square the network is used to, relative to the longer side of a face box (hairline to chin, cheek to cheek)."""

    @property
    def expected(self) -> list[str]:
        """What `models install` says it needs."""
        side = self.size_px
        return [f"input FLOAT [N, 3, {side}, {side}] or [N, {side}, {side}, 3]", f"output FLOAT [N, {self.point_count * self.coordinates}]"]


PFLD98 = LandmarkFamily("pfld98", 98, 2, 112, Pixels((127.5, 127.5, 127.5), 1 / 127.5), in_pixels=False, crop_scale=1.1)
"""PFLD with WFLW's 98 points (AnthonyF333/PFLD_GhostOne): (x / 255 - 0.5) / 0.5, RGB, a square of the face box."""

FACEMESH468 = LandmarkFamily("facemesh468", 468, 3, 192, Pixels(scale=1 / 255), in_pixels=True, crop_scale=1.5)
"""MediaPipe's face mesh: RGB / 255, the face box times 1.5; x, y and depth in px of the input."""


@dataclass(frozen=True, slots=True)
class LandmarkNetwork(Wrapping):
    """A landmark network of one family."""

    network: Network
    family: LandmarkFamily
    image_shape: tuple[int, int, int]
    """Of the network's input without its batch axis: channels first, or last as in exports from TensorFlow."""

    @staticmethod
    def fit(network: Network, options: PackOptions, family: LandmarkFamily) -> "LandmarkNetwork":
        """Raises UnsuitableModel when the network is another."""
        count = family.point_count * family.coordinates
        side = family.size_px
        layouts = [layout for layout in ((3, side, side), (side, side, 3)) if len(network.inputs) == 1 and network.inputs[0].fits(*layout)]
        if not layouts:
            raise network.mismatch(family.pack, family.expected)
        network = resolve_outputs(network, {network.inputs[0].name: (1, *layouts[0])})
        shapes = {tensor.name: [size for size in tensor.shape[1:] if isinstance(size, int)] for tensor in network.outputs}
        found = [name for name, rest in shapes.items() if prod(rest) == count]
        if not found:
            raise network.mismatch(family.pack, family.expected)
        if options.size_px not in (None, family.size_px):
            raise InvalidOption(f"{family.pack} takes crops of {family.size_px} px and no others; leave out --size.")
        known = network.with_outputs(found[0])
        check_floats(known, family.pack, family.expected)
        return LandmarkNetwork(known, family, layouts[0])

    @property
    def config(self) -> ModelConfig:
        size_px = self.family.size_px
        return ModelConfig(
            role="face_landmarks",
            inputs=(Tensor("face", "TYPE_UINT8", (size_px, size_px, 3)),),
            outputs=(Tensor("landmarks", "TYPE_FP32", (self.family.point_count, 2)),),
            max_batch_size=32,
            queue_delay_us=1000,
            parameters={"scheme": str(self.family.point_count), "crop_scale": str(self.family.crop_scale)},
        )

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, *self.image_shape)}

    def draw(self, graph: Graph, run: Run) -> None:
        family = self.family
        face = graph.input("face", 2, ["N", family.size_px, family.size_px, 3])
        planar = family.pixels.draw(graph, face)
        outputs = run({self.input_name: planar if self.image_shape[0] == 3 else planar.transpose(0, 2, 3, 1)})
        points = outputs[self.output_name].reshape(-1, family.point_count, family.coordinates).slice(2, 0, 2)
        if family.in_pixels:
            points = points * (1 / family.size_px)
        graph.output(points, "landmarks", FLOAT, ["N", family.point_count, 2])

    def feed(self, item: Arrays) -> Arrays:
        planar = self.family.pixels.feed(item["face"])
        return {self.input_name: planar if self.image_shape[0] == 3 else planar.transpose(0, 2, 3, 1)}

    def read(self, outputs: Arrays) -> Arrays:
        points = outputs[self.output_name].reshape(self.family.point_count, self.family.coordinates)[:, :2]
        return {"landmarks": np.asarray(points / self.family.size_px if self.family.in_pixels else points, np.float32)}
