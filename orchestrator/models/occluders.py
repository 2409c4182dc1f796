"""XSeg and BiSeNet face parsing as the `face_occluder` role: an aligned face in, what of it is face and not a hand or a microphone out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats, resolve_outputs

XSEG_SIZE_PX = 256
PARSER_SIZE_PX = 512
PARSER_CLASSES = 19

FACE_CLASSES = (1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14)
"""Classes of CelebAMask-HQ that are the face's own: skin, brows, eyes, glasses, nose, mouth, lips, and the neck a jaw opens over. Hair, hats,
cloth and the background are in front or beside."""

_XSEG_EXPECTED = ["input FLOAT [N, 256, 256, 3]", "output FLOAT [N, 256, 256, 1]"]
_PARSER_EXPECTED = ["input FLOAT [N, 3, 512, 512]", "first output FLOAT [N, 19, 512, 512]"]


def _config(size_px: int) -> ModelConfig:
    return ModelConfig(
        role="face_occluder",
        inputs=(Tensor("face", "TYPE_UINT8", (size_px, size_px, 3)),),
        outputs=(Tensor("mask", "TYPE_FP32", (size_px, size_px)),),
        max_batch_size=8,
        queue_delay_us=1000,
        parameters={"crop_template": "ffhq_512"},
    )


@dataclass(frozen=True, slots=True)
class XSeg(Wrapping):
    """DeepFaceLab's XSeg as it is exported for face swapping: pixels last, BGR / 255; one number a pixel, 1 for the face."""

    network: Network

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "XSeg":
        """Raises UnsuitableModel when the network is another."""
        wanted = (XSEG_SIZE_PX, XSEG_SIZE_PX)
        if len(network.inputs) != 1 or not network.inputs[0].fits(*wanted, 3) or isinstance(network.inputs[0].shape[3], str):
            raise network.mismatch("xseg", _XSEG_EXPECTED)
        network = resolve_outputs(network, {network.inputs[0].name: (1, *wanted, 3)})
        if not network.outputs[0].fits(*wanted, 1):
            raise network.mismatch("xseg", _XSEG_EXPECTED)
        check_floats(network, "xseg", _XSEG_EXPECTED)
        return XSeg(network.with_outputs(network.outputs[0].name))

    @property
    def config(self) -> ModelConfig:
        return _config(XSEG_SIZE_PX)

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, XSEG_SIZE_PX, XSEG_SIZE_PX, 3)}

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", XSEG_SIZE_PX, XSEG_SIZE_PX, 3])
        bgr = graph.op("Gather", face.cast(FLOAT) * (1 / 255), graph.integers([2, 1, 0]), axis=3)
        mask = run({self.input_name: bgr})[self.output_name].reshape(-1, XSEG_SIZE_PX, XSEG_SIZE_PX)
        graph.output(mask.clip(0.0, 1.0), "mask", FLOAT, ["N", XSEG_SIZE_PX, XSEG_SIZE_PX])

    def feed(self, item: Arrays) -> Arrays:
        return {self.input_name: item["face"][None, :, :, ::-1].astype(np.float32) * np.float32(1 / 255)}

    def read(self, outputs: Arrays) -> Arrays:
        return {"mask": np.clip(outputs[self.output_name].reshape(XSEG_SIZE_PX, XSEG_SIZE_PX), 0, 1).astype(np.float32)}


@dataclass(frozen=True, slots=True)
class FaceParser(Wrapping):
    """BiSeNet trained on CelebAMask-HQ: 19 classes a pixel, of which `FACE_CLASSES` are the face."""

    network: Network

    pixels = Pixels((123.675, 116.28, 103.53), 1 / 57.5)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "FaceParser":
        """Raises UnsuitableModel when the network is another."""
        wanted = (PARSER_SIZE_PX, PARSER_SIZE_PX)
        if len(network.inputs) != 1 or not network.inputs[0].fits(3, *wanted):
            raise network.mismatch("face-parser", _PARSER_EXPECTED)
        network = resolve_outputs(network, {network.inputs[0].name: (1, 3, *wanted)})
        # The network's further outputs are for training.
        if network.outputs[0].shape[1:] != (PARSER_CLASSES, *wanted):
            raise network.mismatch("face-parser", _PARSER_EXPECTED)
        check_floats(network, "face-parser", _PARSER_EXPECTED)
        return FaceParser(network.with_outputs(network.outputs[0].name))

    @property
    def config(self) -> ModelConfig:
        return _config(PARSER_SIZE_PX)

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, 3, PARSER_SIZE_PX, PARSER_SIZE_PX)}

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", PARSER_SIZE_PX, PARSER_SIZE_PX, 3])
        logits = run({self.input_name: self.pixels.draw(graph, face) * _CHANNEL_SCALE})[self.output_name]
        shares = graph.op("Softmax", logits.reshape(-1, PARSER_CLASSES, PARSER_SIZE_PX * PARSER_SIZE_PX), axis=1)
        mask = (shares * _is_face()[None, :, None]).sum([1]).reshape(-1, PARSER_SIZE_PX, PARSER_SIZE_PX)
        graph.output(mask, "mask", FLOAT, ["N", PARSER_SIZE_PX, PARSER_SIZE_PX])

    def feed(self, item: Arrays) -> Arrays:
        return {self.input_name: self.pixels.feed(item["face"]) * _CHANNEL_SCALE}

    def read(self, outputs: Arrays) -> Arrays:
        logits = outputs[self.output_name].reshape(PARSER_CLASSES, PARSER_SIZE_PX, PARSER_SIZE_PX)
        shares = np.exp(logits - logits.max(0))
        return {"mask": np.asarray((shares * _is_face()[:, None, None]).sum(0) / shares.sum(0), np.float32)}


_CHANNEL_SCALE = np.asarray(57.5 / (np.array([0.229, 0.224, 0.225]) * 255), np.float32).reshape(1, 3, 1, 1)
"""ImageNet's standard deviations, relative to their mean, which `Pixels` scales by."""


def _is_face() -> NDArray[np.float32]:
    weights = np.zeros(PARSER_CLASSES, np.float32)
    weights[list(FACE_CLASSES)] = 1.0
    return weights
