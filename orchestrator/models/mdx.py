"""MDX-Net as the `voice_separator` role: sound in, the voice in it out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import Network
from orchestrator.models.options import PackOptions
from orchestrator.models.spectrum import Spectrum
from orchestrator.models.wrapping import Arrays, Run, Wrapping, check_floats

SAMPLE_RATE_HZ = 44_100

HOP = 1024
"""Samples from one spectrum to the next, as all published networks have it."""

N_FFT: Mapping[int, int] = {3072: 7680, 2048: 6144}
"""Length of the transform by the bins that the network reads (UVR's model_data.json, of the networks whose primary stem is the vocals)."""

USUAL_FRAMES = 256
"""Spectra in a chunk where the file leaves it open."""

_EXPECTED = ["input FLOAT [N, 4, 3072 or 2048, 256]: real and imaginary parts, left and right", "output FLOAT of that shape"]


@dataclass(frozen=True, slots=True)
class Mdx(Wrapping):
    """A vocal network of MDX-Net (UVR): spectra of both channels in, those of the voice out.

    The two channels are the one that the lips hear. Samples at either end of a chunk, `n_fft` each, are heard and not answered: there the
    voice would lack spectra that lie on it.
    """

    network: Network
    spectrum: Spectrum

    @staticmethod
    def fit(network: Network, options: PackOptions) -> "Mdx":
        """Raises UnsuitableModel when the network is another."""
        shape = network.inputs[0].shape if len(network.inputs) == 1 else ()
        bins = shape[2] if len(shape) == 4 and shape[1] == 4 else None
        if not isinstance(bins, int) or bins not in N_FFT or len(network.outputs) != 1 or network.outputs[0].shape[1:3] not in ((4, bins), ()):
            raise network.mismatch("mdx", _EXPECTED)
        check_floats(network, "mdx", _EXPECTED)
        frames = shape[3] if isinstance(shape[3], int) and shape[3] > 0 else USUAL_FRAMES
        spectrum = Spectrum(N_FFT[bins], HOP, bins, frames)
        if spectrum.sample_count <= 2 * spectrum.n_fft:
            raise network.mismatch("mdx", _EXPECTED, "its chunks are too short")
        return Mdx(network, spectrum)

    @property
    def voice_count(self) -> int:
        """Samples of the voice in an answer."""
        return self.spectrum.sample_count - 2 * self.spectrum.n_fft

    @property
    def config(self) -> ModelConfig:
        return ModelConfig(
            role="voice_separator",
            inputs=(Tensor("samples", "TYPE_FP32", (self.spectrum.sample_count,)),),
            outputs=(Tensor("voice", "TYPE_FP32", (self.voice_count,)),),
            max_batch_size=2,
            queue_delay_us=1000,
            parameters={"sample_rate_hz": str(SAMPLE_RATE_HZ), "context_samples": str(self.spectrum.n_fft)},
        )

    @property
    def input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {self.input_name: (1, 4, self.spectrum.bins, self.spectrum.frames)}

    def draw(self, graph: Graph, run: Run) -> None:
        samples = graph.input("samples", FLOAT, ["N", self.spectrum.sample_count])
        shape = (0, 1, self.spectrum.bins, self.spectrum.frames)
        channel = [part.reshape(*shape) for part in self.spectrum.analysed(graph, samples)]
        voice = run({self.input_name: graph.concat([*channel, *channel], axis=1)})[self.output_name]
        mean = (voice.slice(1, 0, 2) + voice.slice(1, 2, 4)) * 0.5
        real, imaginary = (mean.slice(1, part, part + 1).reshape(0, *shape[2:]) for part in (0, 1))
        kept = self.spectrum.synthesised(graph, real, imaginary).slice(1, self.spectrum.n_fft, self.spectrum.n_fft + self.voice_count)
        graph.output(kept, "voice", FLOAT, ["N", self.voice_count])

    def feed(self, item: Arrays) -> Arrays:
        spectrum = self.spectrum
        framed = np.lib.stride_tricks.sliding_window_view(item["samples"], spectrum.n_fft)[:: spectrum.hop] * spectrum.window
        bins = np.fft.rfft(framed)[:, : spectrum.bins].T
        return {self.input_name: np.stack([bins.real, bins.imag] * 2).astype(np.float32)[None]}

    def read(self, outputs: Arrays) -> Arrays:
        spectrum = self.spectrum
        left_real, left_imaginary, right_real, right_imaginary = outputs[self.output_name][0].astype(np.float64)
        bins = (left_real + right_real + 1j * (left_imaginary + right_imaginary)) / 2
        framed = np.fft.irfft(bins.T, spectrum.n_fft) * spectrum.window
        voice = np.zeros(spectrum.sample_count)
        for frame, samples in enumerate(framed):
            voice[frame * spectrum.hop :][: spectrum.n_fft] += samples
        kept = slice(spectrum.n_fft, spectrum.n_fft + self.voice_count)
        return {"voice": np.asarray(voice[kept] / spectrum.overlapped_windows()[kept], np.float32)}
