"""Read from a mel window, inside an ONNX graph, how far the mouth opens and how wide it gets.

How far lips are apart and how wide for the sound that is heard, a small convolutional network tells, which `tests/motion` trains on synthetic
speech; how far they open follows above all how loud the speech is, as viewers expect.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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

WEIGHTS = Path(__file__).with_suffix(".npz")
"""The network's weights, float16; `python -m tests.motion` makes them."""

_DB_PER_FEATURE = 12.5
_DB_OFFSET = -50.0

_LEVEL_RANGE_DB = (-34.0, 1.0)
"""Levels, dB relative to loud speech, at which the mouth begins to open and at which it is fully open."""

FRAME_COLUMN = 9.5
"""Column the motion is centred on: 19 ms after the frame's time, since a picture stays for a frame's length."""

_LEVEL_COLUMNS = 8.0
"""Half the width of the window in which power is averaged, columns of 12.5 ms: it bridges the pitch of a voice and the silence of a stop."""

_EARLY_SHARE = 0.2
"""How much faster than in proportion to the level (dB) the lips part: a slit is seen less than a change between open and wide."""

_LIPS_MEET = (0.05, 0.17)
"""What the network says of lips that meet and of lips that do not: it has learned the mean of what may be meant, so it hardly says 0."""

_LIPS_PART = (0.1, 0.6)
"""What it says of the narrowest sounds and of the widest."""

_NARROWEST = 0.6
"""How far the narrowest sounds open the mouth, of the widest that are as loud."""


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
    # The same in all 16 columns: ONNX Runtime takes logarithms several at a time, and what is left over by a rounding of its own, so that a lone
    # value an item would depend on how many items are in its batch.
    around_frame = np.repeat(_hann(columns - FRAME_COLUMN, _LEVEL_COLUMNS)[:, None], 16, 1)
    loudness = (_decibels(whole @ around_frame).slice(2, 0, 1) - LOUD_LEVEL_DBFS).ramp(*_LEVEL_RANGE_DB)
    loudness = loudness * (1.0 + _EARLY_SHARE - loudness * _EARLY_SHARE)
    apart, spread = _articulation(audio)
    opening = loudness * apart.ramp(*_LIPS_MEET) * (_NARROWEST + (1.0 - _NARROWEST) * apart.ramp(*_LIPS_PART))
    spread = spread * loudness.smoothstep(0.0, 0.3)
    return MouthMotion(graph.label(opening, "mouth_opening"), graph.label(spread, "mouth_spread"))


@cache
def _layers() -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return the network's convolutions, weights (out, in, 1, columns) and offsets (out,) each; the last one gives opening and spread."""
    with np.load(WEIGHTS) as file:
        return [(file[f"weights_{layer}"].astype(np.float32), file[f"offsets_{layer}"].astype(np.float32)) for layer in range(len(file) // 2)]


def _articulation(audio: Value) -> tuple[Value, Value]:
    """Return what the lips do for the sound that is heard: opening 0..1 and spread -1..1, each [N,1,1]."""
    graph = audio.graph
    *hidden, (weights, offsets) = _layers()
    heard = audio.reshape(0, 80, 1, 16) * (1 / 4)
    for layer in hidden:
        heard = graph.op("Relu", graph.op("Conv", heard, *layer))
    # Each output 16 times, for the reason above.
    heard = graph.op("Tanh", graph.op("Conv", heard, np.repeat(weights, 16, 0), np.repeat(offsets, 16))).reshape(0, 2, 16)
    opening, spread = (heard.cut((1, 2), (output, 0), (output + 1, 1)) for output in range(2))
    return opening * 0.5 + 0.5, spread


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
