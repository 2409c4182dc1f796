"""Filters over the bins of a spectrum, applied bin by bin.

A bank's matrix is nearly empty, and a product with it wakes the threads of the linear algebra library, which then spin for a tenth of a second
in case there is more to do: cores that a render needs.
"""

import numpy as np
from numpy.typing import NDArray


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
