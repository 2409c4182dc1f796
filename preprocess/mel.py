"""The Wav2Lip audio front end: log-mel columns of a track, and the window of columns that belongs to a frame.

Parameters and formula are those of the published Wav2Lip models (hparams.py and audio.py of Rudrabha/Wav2Lip).
"""

from fractions import Fraction
from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from preprocess.filterbank import Filterbank

SAMPLE_RATE_HZ = 16_000
"""Sample rate the features are computed at."""

N_FFT = 800
"""Window and transform length, samples (50 ms)."""

HOP = 200
"""Samples between two columns: 80 columns a second."""

COLUMNS_PER_S = SAMPLE_RATE_HZ // HOP

N_MELS = 80
"""Mel bands between `MEL_LOW_HZ` and `MEL_HIGH_HZ`."""

MEL_LOW_HZ = 55.0
MEL_HIGH_HZ = 7600.0

WINDOW_COLUMNS = 16
"""Columns a lip model sees for one frame (200 ms)."""

PRE_EMPHASIS = 0.97
REFERENCE_DB = 20.0
MIN_DB = -100.0
MAX_ABS = 4.0
"""Features are scaled to -4 (at `MIN_DB`) .. 4 (at 0 dB) and clipped."""

UNITS_PER_DB = 2 * MAX_ABS / -MIN_DB
"""How far one decibel moves a feature: 0.08."""

MIN_AMPLITUDE = 1e-7
"""Floor under the logarithm, so far below `MIN_DB` that silence is clipped to it even where a quiet track is raised by `MAX_GAIN_DB`."""


_BLOCK_COLUMNS = 1024
_BLOCK_SAMPLES = (_BLOCK_COLUMNS - 1) * HOP + N_FFT


@cache
def mel_filterbank() -> NDArray[np.float32]:
    """Return the (80, 401) float32 Slaney mel filters, area-normalised, as librosa's `filters.mel` makes them."""
    low_mel, high_mel = _hz_to_mel(np.array([MEL_LOW_HZ, MEL_HIGH_HZ]))
    edges_hz = _mel_to_hz(np.linspace(low_mel, high_mel, N_MELS + 2))
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, N_FFT // 2 + 1)
    widths = np.diff(edges_hz)
    ramps = edges_hz[:, None] - bins_hz[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, None], np.float32)


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    # Slaney's scale: linear below 1 kHz (200/3 Hz a mel), then 27 mels to a factor of 6.4.
    linear = hz / (200.0 / 3.0)
    log = 15.0 + np.log(np.maximum(hz, 1e-9) / 1000.0) * (27.0 / np.log(6.4))
    return np.where(hz < 1000.0, linear, log)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = mel * (200.0 / 3.0)
    exponential = 1000.0 * np.exp((mel - 15.0) * (np.log(6.4) / 27.0))
    return np.where(mel < 15.0, linear, exponential)


class MelStream:
    """Turns a waveform that arrives in pieces into mel columns, holding little more than one block of it.

    The result does not depend on how the waveform was cut, to the last bit: columns are always computed in the same blocks. Column `i` is
    centred on sample `200 * i`; beyond its ends the track is silent.
    """

    def __init__(self) -> None:
        self._previous_sample = np.float32(0.0)
        self._pending = [np.zeros(N_FFT // 2, np.float32)]
        self._pending_count = N_FFT // 2
        self._columns: list[NDArray[np.float32]] = []
        self.sample_count = 0
        """Samples at 16 kHz given so far."""

    def push(self, waveform: NDArray[np.float32]) -> None:
        """Add (n,) float32 samples, mono, 16 kHz, -1..1."""
        if waveform.ndim != 1:
            raise ValueError(f"expected a mono waveform (n,), got shape {waveform.shape}")
        if not len(waveform):
            return
        self.sample_count += len(waveform)
        emphasised = np.empty(len(waveform), np.float32)
        emphasised[0] = waveform[0] - np.float32(PRE_EMPHASIS) * self._previous_sample
        emphasised[1:] = waveform[1:] - np.float32(PRE_EMPHASIS) * waveform[:-1]
        self._previous_sample = np.float32(waveform[-1])
        self._pending.append(emphasised)
        self._pending_count += len(emphasised)
        if self._pending_count >= _BLOCK_SAMPLES:
            samples = np.concatenate(self._pending)
            while len(samples) >= _BLOCK_SAMPLES:
                self._columns.append(_columns(samples[:_BLOCK_SAMPLES]))
                samples = samples[_BLOCK_COLUMNS * HOP :]
            self._pending, self._pending_count = [samples], len(samples)

    def finish(self) -> NDArray[np.float32]:
        """Return the features of everything pushed: (80, T) float32, T = 1 + samples // 200.

        They are not clipped yet: a quiet track's detail lies below `MIN_DB` until it is raised (`with_loud_level`, `clipped`).
        """
        rest = np.concatenate([*self._pending, np.zeros(N_FFT // 2, np.float32)])
        return np.concatenate([*self._columns, _columns(rest)], axis=1)


@cache
def _hann() -> NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT), np.float32)


@cache
def _filterbank() -> Filterbank:
    return Filterbank(mel_filterbank())


def _columns(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (80, n) features of every whole window in (m,) pre-emphasised samples, n = (m - 800) // 200 + 1."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
    spectrum = np.abs(scipy.fft.rfft(windows * _hann(), axis=1))
    amplitude = _filterbank().apply(spectrum.T.astype(np.float32))
    decibel = 20.0 * np.log10(np.maximum(MIN_AMPLITUDE, amplitude)) - REFERENCE_DB
    return np.asarray((decibel - MIN_DB) * UNITS_PER_DB - MAX_ABS, np.float32)


def clipped(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features within the range lip models know, -4 (silence) to 4."""
    return np.asarray(np.clip(mel, -MAX_ABS, MAX_ABS), np.float32)


def mel_of(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (80, T) float32 features of a whole mono 16 kHz waveform, -4..4: its level as it is."""
    stream = MelStream()
    stream.push(waveform)
    return clipped(stream.finish())


def mel_window(mel: NDArray[np.float32], time: Fraction, window_start_s: Fraction) -> NDArray[np.float32]:
    """Return the (80, 16) columns that belong to the frame shown at `time`.

    Args:
        mel: (80, T) features of the track.
        time: the frame's time on the track, s.
        window_start_s: where the window begins, relative to the frame, s (0 in Wav2Lip's own inference script; negative looks back).

    What lies before or behind the track is silence (-4).
    """
    start = round((time + window_start_s) * COLUMNS_PER_S)
    first, last = max(0, start), min(mel.shape[1], start + WINDOW_COLUMNS)
    window = np.full((N_MELS, WINDOW_COLUMNS), -MAX_ABS, np.float32)
    if last > first:
        window[:, first - start : last - start] = mel[:, first:last]
    return window


MAX_GAIN_DB = 50.0
"""Most that a quiet track is raised: speech that peaks at -40 dB needs 45. Beyond, it is noise that would be made to speak; that of 16 bits stays
38 dB below loud speech."""


def loud_gain_db(mel: NDArray[np.float32], loud_level_db: float) -> float:
    """Return the gain that brings a track's loud speech to the given level, dB.

    A column's level is the mean of its bands as power, dB; loud speech is the 95th percentile over all columns.

    Args:
        mel: (80, T) features, clipped or not.
        loud_level_db: level loud speech should have, on the features' own dB scale (-100..0).
    """
    decibel = (mel + MAX_ABS) / UNITS_PER_DB + MIN_DB
    level = 10.0 * np.log10(np.mean(10.0 ** (decibel / 10.0), axis=0))
    return min(MAX_GAIN_DB, loud_level_db - float(np.percentile(level, 95)))


def with_loud_level(mel: NDArray[np.float32], loud_level_db: float, speech: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the features as if the track's loud speech had the given level: that of `speech`, by default all of `mel`. See `loud_gain_db`."""
    gain_db = loud_gain_db(mel if speech is None else speech, loud_level_db)
    return clipped(mel + np.float32(gain_db * UNITS_PER_DB))


CONTRAST_SWING = 0.15
"""How far the strongest or weakest mouth is from the usual one, in parts of the features' distance from silence: about 10 dB for loud speech.
Measured with mouth-warp: the mouth opens 0.6 times as far at one end, 1.25 times at the other; a greater swing only shuts it or keeps it open."""


def with_temperature(mel: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the features as of somebody who articulates more or less: their distance from silence is stretched.

    Silence stays silence, so that a mouth at rest stays there.

    Args:
        mel: (80, T) features.
        temperature: 0 least, 0.5 as it is, 1 most.
    """
    stretch = np.float32(1.0 + CONTRAST_SWING * (2.0 * temperature - 1.0))
    return clipped((mel + MAX_ABS) * stretch - MAX_ABS)


def with_gain(mel: NDArray[np.float32], gain: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the features as if the track had been made louder or softer: (T,) `gain` has a factor for each column, 0 for silence."""
    decibel = 20.0 * np.log10(np.maximum(gain, MIN_AMPLITUDE))
    return clipped(mel + np.asarray(decibel * UNITS_PER_DB, np.float32))
