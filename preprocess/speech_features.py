"""Front ends of speech encoders: log-mel features of a whole track, and the window of encoded features that belongs to a frame."""

from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from preprocess.filterbank import Filterbank, slaney_filters

SAMPLE_RATE_HZ = 16_000
"""Sample rate the features are computed at."""

HOP = 160
"""Samples between two columns, in both front ends: 100 columns a second."""

COLUMNS_PER_S = SAMPLE_RATE_HZ // HOP

N_MELS = 80

WHISPER_SEGMENT_COLUMNS = 3000
"""Columns Whisper looks at together: 30 s."""

_WHISPER_N_FFT = 400
_WHISPER_FLOOR = 1e-10
_KALDI_WINDOW = 400
_KALDI_N_FFT = 512


def whisper_log_mel(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (80, 3000) features of at most 30 s of mono 16 kHz sound, as openai/whisper's `log_mel_spectrogram` makes them.

    What is missing to 30 s is silence. Values are (log10(power) + 4) / 4, at most 2 below the loudest.
    """
    length = WHISPER_SEGMENT_COLUMNS * HOP
    if waveform.ndim != 1 or len(waveform) > length:
        raise ValueError(f"expected at most {length} mono samples, got shape {waveform.shape}")
    padded = np.pad(np.pad(waveform, (0, length - len(waveform))), _WHISPER_N_FFT // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WHISPER_N_FFT)[::HOP][:WHISPER_SEGMENT_COLUMNS]
    hann = np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WHISPER_N_FFT) / _WHISPER_N_FFT), np.float32)
    power = np.abs(np.fft.rfft(windows * hann, axis=1)) ** 2
    log = np.log10(np.maximum(_whisper_filters().apply(power.T.astype(np.float32)), _WHISPER_FLOOR))
    return np.asarray((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0, np.float32)


def kaldi_fbank(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (T, 80) log filter bank energies of mono 16 kHz sound, as Kaldi and WeNet compute them, without dither.

    Frames of 25 ms every 10 ms that lie whole within the track; samples on the 16-bit scale; DC removed, pre-emphasis 0.97, Povey window.
    """
    if len(waveform) < _KALDI_WINDOW:
        return np.zeros((0, N_MELS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(waveform * np.float32(32768), _KALDI_WINDOW)[::HOP].astype(np.float32)
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames - np.float32(0.97) * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_KALDI_WINDOW) / (_KALDI_WINDOW - 1))
    power = np.abs(np.fft.rfft(frames * np.asarray(hann**0.85, np.float32), _KALDI_N_FFT, axis=1)) ** 2
    energies = _kaldi_filters().apply(power.T[: _KALDI_N_FFT // 2].astype(np.float32)).T
    return np.asarray(np.log(np.maximum(energies, np.finfo(np.float32).eps)), np.float32)


@cache
def _whisper_filters() -> Filterbank:
    return Filterbank(slaney_filters(0.0, SAMPLE_RATE_HZ / 2, N_MELS, _WHISPER_N_FFT, SAMPLE_RATE_HZ))


@cache
def _kaldi_filters() -> Filterbank:
    """Return Kaldi's (80, 256) filters: triangles on the HTK mel scale from 20 Hz to 8 kHz, straight in mel."""

    low, high = (1127.0 * np.log(1.0 + hz / 700.0) for hz in (20.0, SAMPLE_RATE_HZ / 2))
    edges = np.linspace(low, high, N_MELS + 2)
    bins = 1127.0 * np.log(1.0 + np.arange(_KALDI_N_FFT // 2) * (SAMPLE_RATE_HZ / _KALDI_N_FFT) / 700.0)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return Filterbank(np.asarray(np.maximum(0.0, np.minimum(rising, falling)), np.float32))


def feature_window(
    features: NDArray[np.float32], time: Fraction, window_start_s: Fraction, features_per_s: Fraction, count: int
) -> NDArray[np.float32]:
    """Return the (count, D) encoded features that belong to the frame shown at `time`.

    Args:
        features: (T, D) features of the track.
        time: the frame's time on the track, s.
        window_start_s: where the window begins, relative to the frame, s.
        features_per_s: rate of the features, Hz.
        count: features in a window.

    What lies before or behind the track is zero.
    """
    start = int((time + window_start_s) * features_per_s // 1)
    first, last = max(0, start), min(len(features), start + count)
    window = np.zeros((count, features.shape[1]), np.float32)
    if last > first:
        window[first - start : last - start] = features[first:last]
    return window
