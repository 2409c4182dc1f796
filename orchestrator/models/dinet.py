"""HeyGem's (Duix.Avatar's) DINet as the `lip_sync` role: a face and 0.8 s of WeNet features in, the face with another mouth out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.models.config import ModelConfig
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.lip_networks import lip_config
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels, draw_uint8, read_uint8, upper_half
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats

SIZE_PX = 256
"""Side of the crop."""

AUDIO_SHAPE = (256, 20)
"""Size and number of the WeNet features of a frame, 25 a second."""

WINDOW_START_S = -0.4
"""The twenty features lie around the frame."""

_EXPECTED = [
    "input FLOAT [N, 256, 20] (audio)",
    "input mask_B FLOAT [N, 3, 256, 256]",
    "input B_img FLOAT [N, 3, 256, 256]",
    "output FLOAT [N, 3, 256, 256]",
]


@dataclass(frozen=True, slots=True)
class Dinet(Wrapping):
    """The generator alone; its audio front end is the `audio_encoder` role."""

    network: Network
    audio: str

    pixels = Pixels(scale=1 / 255)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "Dinet":
        """Raises UnsuitableModel when the network is another."""
        audio = [tensor for tensor in network.inputs if tensor.shape[1:] == AUDIO_SHAPE]
        pictures = [network.find_input("mask_B"), network.find_input("B_img")]
        if len(network.inputs) != 3 or len(audio) != 1 or any(tensor is None or tensor.shape[1:] != (3, SIZE_PX, SIZE_PX) for tensor in pictures):
            raise network.mismatch("dinet", _EXPECTED)
        check_floats(network, "dinet", _EXPECTED)
        return Dinet(network, audio[0].name)

    @property
    def config(self) -> ModelConfig:
        more = {"audio_window_start_s": str(WINDOW_START_S), "audio_layout": "channels", "encoder_frontend": "wenet_fbank"}
        return lip_config(SIZE_PX, AUDIO_SHAPE, "wav2lip_box", "audio_encoder", (0.02, 0.46, 0.98, 1.0), **more)

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        picture = (1, 3, SIZE_PX, SIZE_PX)
        return {tensor.name: (1, *AUDIO_SHAPE) if tensor.name == self.audio else picture for tensor in self.network.inputs}

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", SIZE_PX, SIZE_PX, 3])
        audio = graph.input("audio", FLOAT, ["N", *AUDIO_SHAPE])
        whole = self.pixels.draw(graph, face)
        outputs = run({self.audio: audio, "mask_B": whole * upper_half(SIZE_PX), "B_img": whole})
        planar = outputs[self.output_name] * 255.0
        graph.output(draw_uint8(graph, planar, SIZE_PX, bgr=False), "mouth", 2, ["N", SIZE_PX, SIZE_PX, 3])

    def feed(self, item: Arrays) -> Arrays:
        whole = self.pixels.feed(item["face"])
        return {self.audio: item["audio"][None], "mask_B": whole * upper_half(SIZE_PX), "B_img": whole}

    def read(self, outputs: Arrays) -> Arrays:
        return {"mouth": read_uint8(outputs[self.output_name] * np.float32(255), SIZE_PX, bgr=False)}
