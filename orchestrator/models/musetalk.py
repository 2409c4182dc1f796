"""MuseTalk 1.5 as the `lip_sync` role: four networks, three of them a Triton ensemble (VAE encode, UNet, VAE decode).

The latents, their scale and the position code of the audio are those of the published inference (TMElyralab/MuseTalk). The fourth
network, Whisper's encoder, fills the `audio_encoder` role.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.ensemble import Ensemble, EnsembleStep
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.pixels import Pixels, draw_uint8, read_uint8, upper_half
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats, resolve_outputs

SIZE_PX = 256
"""Side of the crop."""

LATENT_SHAPE = (4, 32, 32)
"""Of one picture."""

LATENT_SCALE = 0.18215
"""What the VAE's latents are multiplied with for the UNet (Stable Diffusion's VAE)."""

AUDIO_SHAPE = (50, 384)
"""Ten features of 20 ms, five layers of Whisper each."""

WINDOW_START_S = -0.08
"""Where the ten features begin relative to the frame, s: two frames of 25 Hz before it (audio_processor.py)."""

MAX_BATCH = 8


@dataclass(frozen=True, slots=True)
class VaeEncoder(Wrapping):
    """From a crop to the latents of the crop with its lower half blanked, and of the crop itself."""

    network: Network
    mean_only: bool
    """Whether the network answers the mean alone, not mean and variance."""

    pixels = Pixels((127.5, 127.5, 127.5), 1 / 127.5)

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "VaeEncoder":
        """Raises UnsuitableModel when the network is another."""
        expected = ["input FLOAT [N, 3, 256, 256]", "output FLOAT [N, 4, 32, 32] or [N, 8, 32, 32]"]
        if len(network.inputs) != 1 or not network.inputs[0].fits(3, SIZE_PX, SIZE_PX):
            raise network.mismatch("musetalk (VAE encoder)", expected)
        network = resolve_outputs(network, {network.inputs[0].name: (1, 3, SIZE_PX, SIZE_PX)})
        output = network.outputs[0]
        if not (output.fits(4, 32, 32) or output.fits(8, 32, 32)):
            raise network.mismatch("musetalk (VAE encoder)", expected)
        check_floats(network, "musetalk (VAE encoder)", expected)
        return VaeEncoder(network, output.shape[1] == 4)

    @property
    def config(self) -> ModelConfig:
        return _member("musetalk_vae_encoder", [Tensor("face", "TYPE_UINT8", (SIZE_PX, SIZE_PX, 3))], Tensor("latents", "TYPE_FP32", (8, 32, 32)))

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, 3, SIZE_PX, SIZE_PX)}

    def draw(self, graph: Graph, run: Run) -> None:
        face = graph.input("face", 2, ["N", SIZE_PX, SIZE_PX, 3])
        whole = self.pixels.draw(graph, face)
        # Blanked pixels are black, which is -1 for the network. Both pictures go through it as one batch.
        both = graph.concat([(whole + 1.0) * upper_half(SIZE_PX) - 1.0, whole], axis=0)
        latents = run({self.input_name: both})[self.output_name]
        latents = latents.reshape(2, -1, 4 if self.mean_only else 8, 32, 32).slice(2, 0, 4).transpose(1, 0, 2, 3, 4)
        graph.output(latents.reshape(-1, 8, 32, 32) * LATENT_SCALE, "latents", FLOAT, ["N", 8, 32, 32])

    def feed(self, item: Arrays) -> Arrays:
        whole = self.pixels.feed(item["face"])
        blanked = whole.copy()
        blanked[:, :, SIZE_PX // 2 :] = -1
        return {self.input_name: np.concatenate([blanked, whole])}

    def read(self, outputs: Arrays) -> Arrays:
        mean = outputs[self.output_name][:, :4]
        return {"latents": (mean.reshape(8, 32, 32) * LATENT_SCALE).astype(np.float32)}


def position_code() -> NDArray[np.float32]:
    """Return the (50, 384) sines and cosines that MuseTalk adds to the audio (Vaswani et al. 2017)."""
    position = np.arange(AUDIO_SHAPE[0])[:, None]
    frequency = np.exp(np.arange(0, AUDIO_SHAPE[1], 2) * (-np.log(10000.0) / AUDIO_SHAPE[1]))
    code = np.zeros(AUDIO_SHAPE, np.float32)
    code[:, 0::2], code[:, 1::2] = np.sin(position * frequency), np.cos(position * frequency)
    return code


@dataclass(frozen=True, slots=True)
class UNet(Wrapping):
    """From latents and audio to the latents of the face that speaks, in one step."""

    network: Network
    latent: str
    audio: str
    shared_inputs: tuple[str, ...]
    """The time step, always 0."""

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "UNet":
        """Raises UnsuitableModel when the network is another."""
        expected = [
            "input latent FLOAT [N, 8, 32, 32]",
            "input timestep [1]",
            "input audio FLOAT [N, 50, 384]",
            "output FLOAT [N, 4, 32, 32]",
        ]
        latent = [tensor for tensor in network.inputs if tensor.fits(8, 32, 32)]
        audio = [tensor for tensor in network.inputs if tensor.fits(*AUDIO_SHAPE)]
        steps = [tensor for tensor in network.inputs if tensor.shape in ((), (1,))]
        if len(latent) != 1 or len(audio) != 1 or len(network.inputs) != 2 + len(steps) or len(steps) > 1:
            raise network.mismatch("musetalk (UNet)", expected)
        if not network.outputs[0].fits(*LATENT_SHAPE):
            raise network.mismatch("musetalk (UNet)", expected)
        return UNet(network, latent[0].name, audio[0].name, tuple(tensor.name for tensor in steps))

    @property
    def config(self) -> ModelConfig:
        inputs = [Tensor("latents", "TYPE_FP32", (8, 32, 32)), Tensor("audio", "TYPE_FP32", AUDIO_SHAPE)]
        return _member("musetalk_unet", inputs, Tensor("mouth_latents", "TYPE_FP32", LATENT_SHAPE))

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        known = {self.latent: (1, 8, 32, 32), self.audio: (1, *AUDIO_SHAPE)}
        return {tensor.name: known.get(tensor.name, tuple(1 for _ in tensor.shape)) for tensor in self.network.inputs}

    def draw(self, graph: Graph, run: Run) -> None:
        latents = graph.input("latents", FLOAT, ["N", 8, 32, 32])
        audio = graph.input("audio", FLOAT, ["N", *AUDIO_SHAPE])
        steps = {name: graph.constant(np.zeros(self.input_shapes[name])) for name in self.shared_inputs}
        outputs = run({self.latent: latents, self.audio: audio + position_code()[None], **steps})
        graph.output(outputs[self.output_name].reshape(-1, *LATENT_SHAPE), "mouth_latents", FLOAT, ["N", *LATENT_SHAPE])

    def feed(self, item: Arrays) -> Arrays:
        steps = {name: np.zeros(self.input_shapes[name], np.float32) for name in self.shared_inputs}
        return {self.latent: item["latents"][None], self.audio: (item["audio"] + position_code())[None], **steps}

    def read(self, outputs: Arrays) -> Arrays:
        return {"mouth_latents": outputs[self.output_name].reshape(LATENT_SHAPE).astype(np.float32)}


@dataclass(frozen=True, slots=True)
class VaeDecoder(Wrapping):
    """From latents to the crop with its new mouth."""

    network: Network

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "VaeDecoder":
        """Raises UnsuitableModel when the network is another."""
        expected = ["input FLOAT [N, 4, 32, 32]", "output FLOAT [N, 3, 256, 256]"]
        if len(network.inputs) != 1 or not network.inputs[0].fits(*LATENT_SHAPE) or not network.outputs[0].fits(3, SIZE_PX, SIZE_PX):
            raise network.mismatch("musetalk (VAE decoder)", expected)
        check_floats(network, "musetalk (VAE decoder)", expected)
        return VaeDecoder(network)

    @property
    def config(self) -> ModelConfig:
        latents = Tensor("mouth_latents", "TYPE_FP32", LATENT_SHAPE)
        return _member("musetalk_vae_decoder", [latents], Tensor("mouth", "TYPE_UINT8", (SIZE_PX, SIZE_PX, 3)))

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, *LATENT_SHAPE)}

    def draw(self, graph: Graph, run: Run) -> None:
        latents = graph.input("mouth_latents", FLOAT, ["N", *LATENT_SHAPE])
        planar = run({self.input_name: latents * (1.0 / LATENT_SCALE)})[self.output_name]
        graph.output(draw_uint8(graph, planar * 127.5 + 127.5, SIZE_PX, bgr=False), "mouth", 2, ["N", SIZE_PX, SIZE_PX, 3])

    def feed(self, item: Arrays) -> Arrays:
        return {self.input_name: item["mouth_latents"][None] / np.float32(LATENT_SCALE)}

    def read(self, outputs: Arrays) -> Arrays:
        planar = outputs[self.output_name] * np.float32(127.5) + np.float32(127.5)
        return {"mouth": read_uint8(planar, SIZE_PX, bgr=False)}


def _member(name: str, inputs: list[Tensor], output: Tensor) -> ModelConfig:
    return ModelConfig(role=name, inputs=tuple(inputs), outputs=(output,), max_batch_size=MAX_BATCH, queue_delay_us=1000)


ENSEMBLE = Ensemble(
    ModelConfig(
        role="lip_sync",
        inputs=(Tensor("face", "TYPE_UINT8", (SIZE_PX, SIZE_PX, 3)), Tensor("audio", "TYPE_FP32", AUDIO_SHAPE)),
        outputs=(Tensor("mouth", "TYPE_UINT8", (SIZE_PX, SIZE_PX, 3)),),
        max_batch_size=MAX_BATCH,
        queue_delay_us=0,
        parameters={
            "crop_template": "musetalk_box",
            "audio_frontend": "audio_encoder",
            "encoder_frontend": "whisper_log_mel",
            "audio_window_start_s": str(WINDOW_START_S),
            "paste_region": "0.02,0.44,0.98,1.0",
        },
    ),
    (
        EnsembleStep("musetalk_vae_encoder", ("face",), "latents"),
        EnsembleStep("musetalk_unet", ("latents", "audio"), "mouth_latents"),
        EnsembleStep("musetalk_vae_decoder", ("mouth_latents",), "mouth"),
    ),
)
"""The `lip_sync` role, made of three networks."""
