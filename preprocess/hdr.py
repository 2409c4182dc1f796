"""HDR pictures as the models know pictures: curves between HDR signals and SDR ones, both ways."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

REFERENCE_WHITE_NITS = 203.0
"""Luminance of diffuse white in HDR programmes (ITU-R BT.2408), shown as SDR white."""

_KNEE = 0.7
"""Share of SDR white up to which linear light is kept; highlights above share the rest."""

_SDR_GAMMA = 2.4
"""ITU-R BT.1886."""

_STEPS = 4096


@dataclass(frozen=True, slots=True)
class SdrCurve:
    """A rising curve from an HDR signal to an SDR one, the same for red, green and blue, 0..255 each."""

    sdr: NDArray[np.float32]
    """(n,) the SDR signal of evenly spaced HDR signals from 0 to 255."""

    def to_sdr(self, rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return an HDR picture as an SDR one, of the same shape."""
        places = np.clip(rgb * np.float32((len(self.sdr) - 1) / 255), 0, len(self.sdr) - 1)
        return np.asarray(np.rint(self.sdr)[np.rint(places).astype(np.int32)], np.uint8)

    def from_sdr(self, rgb: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an SDR picture as an HDR one, of the same shape; equal samples stay equal."""
        return np.interp(rgb, self.sdr, np.linspace(0, 255, len(self.sdr))).astype(np.float32)


@cache
def sdr_curve(transfer: Literal["pq", "hlg"]) -> SdrCurve:
    """Return the curve for SMPTE ST 2084 (PQ) or ARIB STD-B67 (HLG, on a display of 1000 nits)."""
    signal = np.linspace(0, 1, _STEPS)
    linear = (_pq_nits(signal) if transfer == "pq" else _hlg_nits(signal)) / REFERENCE_WHITE_NITS
    room = 1 - _KNEE
    shown = np.where(linear <= _KNEE, linear, 1 - room * np.exp(-(np.maximum(linear, _KNEE) - _KNEE) / room))
    return SdrCurve((255 * shown ** (1 / _SDR_GAMMA)).astype(np.float32))


def _pq_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the luminance of a PQ signal, 0..1 (ITU-R BT.2100 table 4)."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def _hlg_nits(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the luminance of an HLG signal, 0..1, of a grey (ITU-R BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return np.asarray(1000 * scene**1.2)
