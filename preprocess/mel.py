"""The Wav2Lip audio front end: log-mel columns of a track, and the window of columns that belongs to a frame.

Parameters and formula are those of the published Wav2Lip models (hparams.py and audio.py of Rudrabha/Wav2Lip).
"""

from collections.abc import Iterable
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from preprocess.filterbank import Filterbank, slaney_filters

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


class MelStream:
    """Turns a waveform that arrives in pieces into mel columns, holding little more than one block of it.

    The result does not depend on how the waveform was cut, to the last bit: columns are always computed in the same blocks. Column `i` is
    centred on sample `200 * i`; beyond its ends the track is silent. There are 1 + samples // 200 of them.

    They are not clipped yet: a quiet track's detail lies below `MIN_DB` until it is raised (`with_level`, `clipped`).
    """

    def __init__(self) -> None:
        self._previous_sample = np.float32(0.0)
        self._pending = [np.zeros(N_FFT // 2, np.float32)]
        self._pending_count = N_FFT // 2
        self.sample_count = 0
        """Samples at 16 kHz given so far."""

    def push(self, waveform: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Add (n,) float32 samples, mono, 16 kHz, -1..1; return the next columns as far as they are known now, blocks of (80, 1024)."""
        if waveform.ndim != 1:
            raise ValueError(f"expected a mono waveform (n,), got shape {waveform.shape}")
        if not len(waveform):
            return []
        self.sample_count += len(waveform)
        emphasised = np.empty(len(waveform), np.float32)
        emphasised[0] = waveform[0] - np.float32(PRE_EMPHASIS) * self._previous_sample
        emphasised[1:] = waveform[1:] - np.float32(PRE_EMPHASIS) * waveform[:-1]
        self._previous_sample = np.float32(waveform[-1])
        self._pending.append(emphasised)
        self._pending_count += len(emphasised)
        blocks: list[NDArray[np.float32]] = []
        if self._pending_count >= _BLOCK_SAMPLES:
            samples = np.concatenate(self._pending)
            while len(samples) >= _BLOCK_SAMPLES:
                blocks.append(_columns(samples[:_BLOCK_SAMPLES]))
                samples = samples[_BLOCK_COLUMNS * HOP :]
            self._pending, self._pending_count = [samples], len(samples)
        return blocks

    def finish(self) -> NDArray[np.float32]:
        """Return the (80, n) columns that are left."""
        return _columns(np.concatenate([*self._pending, np.zeros(N_FFT // 2, np.float32)]))


@cache
def _hann() -> NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT), np.float32)


@cache
def _filterbank() -> Filterbank:
    return Filterbank(slaney_filters(MEL_LOW_HZ, MEL_HIGH_HZ, N_MELS, N_FFT, SAMPLE_RATE_HZ))


def _columns(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (80, n) features of every whole window in (m,) pre-emphasised samples, n = (m - 800) // 200 + 1."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
    spectrum = np.abs(np.fft.rfft(windows * _hann(), axis=1))
    amplitude = _filterbank().apply(spectrum.T.astype(np.float32))
    decibel = 20.0 * np.log10(np.maximum(MIN_AMPLITUDE, amplitude)) - REFERENCE_DB
    return np.asarray((decibel - MIN_DB) * UNITS_PER_DB - MAX_ABS, np.float32)


def clipped(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features within the range lip models know, -4 (silence) to 4."""
    return np.asarray(np.clip(mel, -MAX_ABS, MAX_ABS), np.float32)


class MelWindows:
    """The windows of columns that belong to the frames of a video, out of columns that arrive in blocks. It holds little more than one block."""

    def __init__(self, blocks: Iterable[NDArray[np.float32]], window_start_s: Fraction) -> None:
        """Begin at the track's start.

        Args:
            blocks: (80, n) features, in order.
            window_start_s: where a window begins, relative to its frame, s (0 in Wav2Lip's own inference script; negative looks back).
        """
        self._blocks = iter(blocks)
        self._window_start_s = window_start_s
        self._mel = np.empty((N_MELS, 0), np.float32)
        self._first = 0
        """Which column of the track `_mel` begins with."""
        self._start = 0

    def __call__(self, time: Fraction) -> NDArray[np.float32]:
        """Return the (80, 16) columns that belong to the frame shown at `time`, s, which never goes back.

        What lies before or behind the track is silence (-4).
        """
        start = round((time + self._window_start_s) * COLUMNS_PER_S)
        first = max(0, start)
        if first < self._start:
            raise ValueError(f"column {first} was let go of: the last window began with {self._start}")
        self._start = first
        self._read_up_to(start + WINDOW_COLUMNS)
        last = min(self._first + self._mel.shape[1], start + WINDOW_COLUMNS)
        window = np.full((N_MELS, WINDOW_COLUMNS), -MAX_ABS, np.float32)
        if last > first:
            window[:, first - start : last - start] = self._mel[:, first - self._first : last - self._first]
        return window

    def _read_up_to(self, stop: int) -> None:
        while self._first + self._mel.shape[1] < stop and (block := next(self._blocks, None)) is not None:
            passed = min(self._mel.shape[1], self._start - self._first)
            self._mel = np.concatenate([self._mel[:, passed:], block], axis=1)
            self._first += passed


MAX_GAIN_DB = 50.0
"""Most that a quiet track is raised: speech that peaks at -40 dB needs 45. Beyond, it is noise that would be made to speak; that of 16 bits stays
38 dB below loud speech."""


def levels_db(mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the level of each column, (T,) dB: the mean of its bands as power.

    Args:
        mel: (80, T) features, clipped or not.
    """
    decibel = (mel + MAX_ABS) / UNITS_PER_DB + MIN_DB
    return np.asarray(10.0 * np.log10(np.mean(10.0 ** (decibel / 10.0), axis=0)), np.float32)


def loud_gain_db(levels: NDArray[np.float32], loud_level_db: float) -> float:
    """Return the gain that brings a track's loud speech to the given level, dB: loud speech is the 95th percentile over all columns.

    Args:
        levels: (T,) of the track's columns, dB, see `levels_db`.
        loud_level_db: level loud speech should have, on the features' own dB scale (-100..0).
    """
    return min(MAX_GAIN_DB, loud_level_db - float(np.percentile(levels, 95)))


def with_level(mel: NDArray[np.float32], gain_db: float) -> NDArray[np.float32]:
    """Return the (80, T) features as if the track had been made louder."""
    return clipped(mel + np.float32(gain_db * UNITS_PER_DB))


CONTRAST_SWING = 0.15
"""How far the strongest or weakest mouth is from the usual one, in parts of the features' distance from silence: about 10 dB for loud speech.
Measured with mouth-warp: the mouth opens 0.5 to 0.6 times as far at one end, 1.3 to 1.45 times at the other."""


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
