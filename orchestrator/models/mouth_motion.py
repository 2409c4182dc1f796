"""Read from a mel window, inside an ONNX graph, how far the mouth opens and how wide it gets."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.graph import Value

AUDIO_WINDOW_START_S = -0.1
"""Start of the 16 mel columns relative to the frame's time, s: column 8 is centred on it."""

LOUD_LEVEL_DBFS = -30.0
"""Level loud speech must have in the features, dB.

The level of a mel column is 10 * log10(mean over its 80 bands of 10 ** (S / 10)), where S is the band in dB as the Wav2Lip features
hold it (S = 12.5 * feature - 50). The caller adds one constant gain to all S of a track, before they are clipped to -100..0 dB, so that
the 95th percentile of its columns' levels becomes `LOUD_LEVEL_DBFS`.
"""

_DB_PER_FEATURE = 12.5
_DB_OFFSET = -50.0

_LEVEL_RANGE_DB = (-34.0, 1.0)
"""Levels, dB relative to loud speech, at which the mouth begins to open and at which it is fully open."""

_ENVELOPE_COLUMNS = 6.0
"""Half the width of the window in which power is averaged, columns of 12.5 ms: long enough to bridge the pitch of a voice."""

_VOWEL_BAND_HZ = (550.0, 3200.0)
"""Where the formants of open vowels lie."""

_VOWEL_SHARE_DB = (-20.0, -6.0)
"""Level of that band relative to the whole sound, dB, at which the lips are closed and at which loudness alone says how far they open: lips that
meet, as for m, b and p, or nearly, as for oo and w, leave little in it, however loud the voice is below; ee lies between."""

_SMOOTHING_COLUMNS = 4.0
"""Half the width of the window in which the opening is then smoothed, columns: it takes out flutter without blurring syllables."""

_FRAME_COLUMN = 9.5
"""Column the motion is centred on: 19 ms after the frame's time, since a picture stays for a frame's length."""

_EARLY_SHARE = 0.2
"""How much faster than in proportion to the level (dB) the lips part: a slit is seen less than a change between open and wide."""

_BAND_TILT_DB = (-10.0, 8.0)
"""Usual balance of the bands that tell spread from rounded vowels in speech, and how far it swings, dB."""


@dataclass(frozen=True, slots=True)
class MouthMotion:
    """Each [N,1,1]."""

    opening: Value
    """0 closed .. 1 as far as loud speech opens."""
    spread: Value
    """-1 rounded (oo) .. 1 spread (ee)."""


def mouth_motion(audio: Value) -> MouthMotion:
    """Return the motion that belongs to `audio` [N,1,80,16], Wav2Lip features at the level `LOUD_LEVEL_DBFS` asks for."""
    graph = audio.graph
    power = graph.op("Exp", (audio.reshape(0, 80, 16) * _DB_PER_FEATURE + _DB_OFFSET) * (math.log(10.0) / 10.0))
    columns = np.arange(16.0)
    whole = _level_weights()[None, :] @ power
    envelope = np.stack([_hann(columns - c, _ENVELOPE_COLUMNS) for c in columns], 1)
    loudness = (_decibels(whole @ envelope) - LOUD_LEVEL_DBFS).ramp(*_LEVEL_RANGE_DB)
    loudness = loudness * (1.0 + _EARLY_SHARE - loudness * _EARLY_SHARE)
    # Against no less than what opens the mouth, so that it stays closed until a sound begins and closes in the silence of a p.
    least = LOUD_LEVEL_DBFS + _LEVEL_RANGE_DB[0]
    vowels = _decibels(_band(*_VOWEL_BAND_HZ)[None, :] @ power) - graph.op("Max", _decibels(whole), least)
    apart = vowels.ramp(*_VOWEL_SHARE_DB)
    opening = (loudness * apart) @ _hann(columns - _FRAME_COLUMN, _SMOOTHING_COLUMNS)[:, None]
    # The same in all 16 columns: ONNX Runtime takes logarithms eight at a time, and what is left over by a rounding of its own, so that a lone
    # value an item would depend on how many items are in its batch.
    slow = np.repeat(_hann(columns - _FRAME_COLUMN, 8.0)[:, None], 16, 1)
    low, high = (_decibels((_band(a, b)[None, :] @ power) @ slow).slice(2, 0, 1) for a, b in ((200.0, 900.0), (1600.0, 3600.0)))
    centre, swing = _BAND_TILT_DB
    spread = graph.op("Tanh", (high - low - centre) * (1.0 / swing)) * opening.smoothstep(0.0, 0.5)
    return MouthMotion(graph.label(opening, "mouth_opening"), graph.label(spread, "mouth_spread"))


def _decibels(power: Value) -> Value:
    return power.graph.op("Log", power + 1e-10) * (10.0 / math.log(10.0))


def _hann(distance: NDArray[np.floating], half_width: float) -> NDArray[np.float64]:
    weights = np.where(abs(distance) < half_width, np.cos(distance / half_width * np.pi / 2) ** 2, 0.0)
    return np.asarray(weights / weights.sum())


def _band_centres_hz() -> NDArray[np.float64]:
    """Return the centres of the 80 bands: equal steps on Slaney's mel scale from 55 to 7600 Hz (linear below 1 kHz, logarithmic above)."""
    step = math.log(6.4) / 27.0
    mels = np.linspace(55.0 * 3 / 200, 15.0 + math.log(7.6) / step, 82)[1:-1]
    return np.where(mels < 15.0, mels * 200 / 3, 1000.0 * np.exp((mels - 15.0) * step))


def _level_weights() -> NDArray[np.float64]:
    """Return weights (80,) that undo the pre-emphasis of 0.97, so that vowels move the jaw and hiss does not."""
    turns = np.exp(-2j * np.pi * _band_centres_hz() / 16_000)
    weights = 1.0 / abs(1.0 - 0.97 * turns) ** 2
    return np.asarray(weights / weights.sum())


def _band(low_hz: float, high_hz: float) -> NDArray[np.float64]:
    centres = _band_centres_hz()
    weights = ((centres >= low_hz) & (centres < high_hz)).astype(np.float64)
    return np.asarray(weights / weights.sum())
