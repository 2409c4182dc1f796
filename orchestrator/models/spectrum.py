"""Short-time Fourier transforms of sound as ONNX graphs, of matrix products alone: every provider has those, and few have ONNX's own STFT."""

from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.graph import Graph, Value

_FIRST = 64
"""First factor of the transform's length; the second one is the rest of it."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Hann-windowed frames and their lowest bins.

    A transform of n = a * b numbers is two of a and of b with a factor between them (Cooley and Tukey 1965), so its matrices stay small:
    of all n * bins factors only a * a and b * bins / a are in the file.
    """

    n_fft: int
    hop: int
    bins: int
    """Lowest bins that are kept; the rest counts as silence."""
    frames: int

    def __post_init__(self) -> None:
        if self.n_fft % _FIRST or self.bins % _FIRST or not 0 < self.bins <= self.n_fft // 2 or not 0 < self.hop <= self.n_fft:
            raise ValueError(f"expected n_fft and bins (up to half of it) multiples of {_FIRST}, found {self}")

    @property
    def sample_count(self) -> int:
        """Samples that the frames lie on."""
        return self.hop * (self.frames - 1) + self.n_fft

    @property
    def window(self) -> NDArray[np.float64]:
        """(n_fft,) the periodic Hann window."""
        return np.asarray(np.hanning(self.n_fft + 1)[:-1])

    def analysed(self, graph: Graph, samples: Value) -> tuple[Value, Value]:
        """Append the transform.

        Args:
            graph: to append to.
            samples: (N, `sample_count`).

        Returns:
            Real and imaginary part, (N, bins, frames) each.
        """
        block, columns = gcd(self.n_fft, self.hop), self.bins // _FIRST
        step, per_frame = self.hop // block, self.n_fft // block
        blocks = samples.reshape(0, -1, block)
        ends = [index + step * (self.frames - 1) + 1 for index in range(per_frame)]
        parts = [graph.op("Slice", blocks, *(graph.integers([n]) for n in (index, end, 1, step))) for index, end in enumerate(ends)]
        framed = graph.concat(parts, axis=2) * self.window  # (N, frames, n_fft): block by block
        rows = framed.reshape(0, self.frames, _FIRST, self.n_fft // _FIRST)
        outer, inner = _turns(_FIRST, _FIRST, _FIRST), _turns(self.n_fft // _FIRST, columns, self.n_fft // _FIRST)
        twiddle = _turns(_FIRST, self.n_fft // _FIRST, self.n_fft)
        real, imaginary = _times(outer.real @ rows, outer.imag @ rows, twiddle)
        real, imaginary = real @ inner.real - imaginary @ inner.imag, real @ inner.imag + imaginary @ inner.real
        return tuple(part.transpose(0, 3, 2, 1).reshape(0, self.bins, self.frames) for part in (real, imaginary))  # type: ignore[return-value]

    def synthesised(self, graph: Graph, real: Value, imaginary: Value) -> Value:
        """Append the inverse: (N, `sample_count`) samples from (N, bins, frames) parts, right where `n_fft` / `hop` frames lie on each other."""
        columns, count = self.bins // _FIRST, self.n_fft // _FIRST
        weight = np.full((_FIRST, columns), 2.0 / self.n_fft)
        weight[0, 0] = 1.0 / self.n_fft
        real, imaginary = (part.reshape(0, columns, _FIRST, self.frames).transpose(0, 3, 2, 1) * weight for part in (real, imaginary))
        outer, inner = _turns(_FIRST, _FIRST, _FIRST).conj(), _turns(columns, count, count).conj()
        real, imaginary = real @ inner.real - imaginary @ inner.imag, real @ inner.imag + imaginary @ inner.real
        real, imaginary = _times(real, imaginary, _turns(_FIRST, count, self.n_fft).conj())
        framed = (outer.real @ real - outer.imag @ imaginary).reshape(0, self.frames, self.n_fft) * self.window
        return self._overlapped(graph, framed) * (1.0 / np.maximum(self.overlapped_windows(), 1e-8))

    def overlapped_windows(self) -> NDArray[np.float64]:
        """Return (sample_count,) the squares of all windows, added up where they lie."""
        total = np.zeros(self.sample_count)
        for frame in range(self.frames):
            total[frame * self.hop : frame * self.hop + self.n_fft] += self.window**2
        return total

    def _overlapped(self, graph: Graph, framed: Value) -> Value:
        """Add (N, frames, n_fft) up where they lie: blocks that lie equally far from their frame's start move as one."""
        block = gcd(self.n_fft, self.hop)
        step, per_frame = self.hop // block, self.n_fft // block
        depth = -(-per_frame // step)
        lanes = []
        for lane in range(step):
            moved = [
                graph.op("Pad", framed.slice(2, at * block, (at + 1) * block), graph.integers([0, shift, 0, 0, depth - 1 - shift, 0]))
                for shift, at in enumerate(range(lane, per_frame, step))
            ]
            lanes.append(graph.op("Sum", *moved))
        return graph.concat(lanes, axis=2).reshape(0, -1).slice(1, 0, self.sample_count)


def _turns(rows: int, columns: int, period: int) -> NDArray[np.complex128]:
    """Return (rows, columns) exp(-2 pi i * row * column / period)."""
    return np.asarray(np.exp(-2j * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % period) / period))


def _times(real: Value, imaginary: Value, factor: NDArray[np.complex128]) -> tuple[Value, Value]:
    """Return a complex product, number by number."""
    return real * factor.real - imaginary * factor.imag, real * factor.imag + imaginary * factor.real
