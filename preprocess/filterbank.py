"""Filters over the bins of a spectrum, applied bin by bin, and those of the mel scale most models were trained with.

A bank's matrix is nearly empty, and a product with it wakes the threads of the linear algebra library, which then spin for a tenth of a second
in case there is more to do: cores that a render needs.
"""

import math

import numpy as np
from numpy.typing import NDArray

_KNEE_MEL, _MELS_PER_E = 15.0, 27.0 / math.log(6.4)
"""Slaney's scale is linear below 1 kHz (200/3 Hz a mel), then has 27 mels to a factor of 6.4."""


class Filterbank:
    """F filters, each over neighbouring bins of B."""

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        """Take the (F, B) weights apart."""
        filters = [np.flatnonzero(row) if row.any() else np.zeros(1, np.intp) for row in matrix]
        self._bins = np.concatenate(filters)
        self._weights = np.concatenate([row[bins] for row, bins in zip(matrix, filters, strict=True)])[:, None]
        self._starts = np.cumsum([0, *(len(bins) for bins in filters[:-1])])

    def apply(self, spectrum: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (F, T) energies of a (B, T) spectrum."""
        return np.asarray(np.add.reduceat(spectrum[self._bins] * self._weights, self._starts, axis=0), np.float32)


def slaney_edges_hz(low_hz: float, high_hz: float, count: int) -> NDArray[np.float64]:
    """Return (`count` + 2,) frequencies at equal distances on Slaney's mel scale: where each filter begins, has its middle, and ends, Hz."""
    low, high = (hz / (200.0 / 3.0) if hz < 1000.0 else _KNEE_MEL + math.log(hz / 1000.0) * _MELS_PER_E for hz in (low_hz, high_hz))
    mels = np.linspace(low, high, count + 2)
    return np.where(mels < _KNEE_MEL, mels * (200.0 / 3.0), 1000.0 * np.exp((mels - _KNEE_MEL) / _MELS_PER_E))


def slaney_filters(low_hz: float, high_hz: float, count: int, n_fft: int, sample_rate_hz: int) -> NDArray[np.float32]:
    """Return the (`count`, `n_fft` / 2 + 1) Slaney mel filters, area-normalised, as librosa's `filters.mel` makes them."""
    edges_hz = slaney_edges_hz(low_hz, high_hz, count)
    bins_hz = np.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1)
    widths = np.diff(edges_hz)
    ramps = edges_hz[:, None] - bins_hz[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None], np.float32)
