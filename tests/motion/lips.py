"""How far lips are apart and how wide they are in speech whose sounds are known.

Each sound has a target and a weight for either; neighbours share the lips in proportion to their weights, which fall off exponentially around a
sound: Cohen and Massaro, Modeling coarticulation in synthetic visual speech, 1993. So an s closes the teeth whatever comes next, and a k leaves
the lips to the vowel behind it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Sound(NamedTuple):
    """What a sound asks of the lips."""

    opening: float
    """0 lips that meet .. 1 an ah."""
    opening_weight: float
    spread: float
    """-1 rounded .. 1 spread."""
    spread_weight: float


class Phone(NamedTuple):
    """A sound in speech, from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    ipa: str
    """One or several letters (diphthongs, affricates), with whatever marks; empty in a pause."""


SILENCE = Sound(0.0, 1.5, 0.0, 0.1)


def _vowel(opening: float, spread: float) -> Sound:
    return Sound(opening, 1.0, spread, 1.0)


_SOUNDS = {
    "aɑ": _vowel(1.0, 0.0),
    "æ": _vowel(0.95, 0.35),
    "ɐ": _vowel(0.85, 0.1),
    "ɒ": _vowel(0.85, -0.35),
    "ʌ": _vowel(0.75, 0.0),
    "ɛε": _vowel(0.7, 0.4),
    "ɔ": _vowel(0.7, -0.6),
    "œ": _vowel(0.6, -0.6),
    "e": _vowel(0.55, 0.55),
    "ɜ": _vowel(0.5, -0.1),
    "o": _vowel(0.5, -0.85),
    "əɘ": _vowel(0.45, 0.05),
    "ɚɝ": _vowel(0.42, -0.25),
    "øɵ": _vowel(0.42, -0.75),
    "ɪ": _vowel(0.38, 0.45),
    "ʊʏ": _vowel(0.33, -0.7),
    "i": _vowel(0.32, 0.8),
    "ɨᵻ": _vowel(0.32, 0.2),
    "ɯ": _vowel(0.25, 0.1),
    "uyʉ": _vowel(0.22, -0.95),
    "pbmɓ": Sound(0.0, 12.0, 0.0, 0.05),
    "fvɸβʋ": Sound(0.06, 6.0, 0.1, 0.3),
    "wɥʍ": Sound(0.12, 4.0, -1.0, 3.0),
    "ʃʒʂʐɕʑ": Sound(0.22, 2.5, -0.45, 1.2),
    "sz": Sound(0.18, 2.5, 0.3, 0.5),
    "θð": Sound(0.25, 1.5, 0.15, 0.3),
    "tdʈɖɟcɗ": Sound(0.25, 1.0, 0.1, 0.25),
    "nɳɲ": Sound(0.3, 0.6, 0.1, 0.2),
    "lɭɫʎ": Sound(0.4, 0.6, 0.05, 0.2),
    "ɹɻ": Sound(0.32, 1.0, -0.4, 0.7),
    "rɾɽ": Sound(0.35, 0.7, -0.1, 0.3),
    "jʝ": Sound(0.32, 0.8, 0.6, 0.8),
    "kgɡŋqɢxɣçχʁhɦħʕʔ": Sound(0.4, 0.15, 0.0, 0.1),
}
SOUNDS = {letter: sound for letters, sound in _SOUNDS.items() for letter in letters}

_FADE_S = 0.022
"""Time in which a sound's influence falls to 1/e outside it."""

_EDGE_WEIGHT = 0.55
"""Its influence at its ends, of that in its middle, which it has from 22 ms inside on."""

_ANOTHER_LANGUAGE = re.compile(r"\(.*\)")


@dataclass(frozen=True, slots=True)
class LipMotion:
    """What the lips do at some times, (n,) each."""

    opening: NDArray[np.float64]
    spread: NDArray[np.float64]
    known: NDArray[np.bool_]
    """False around a sound that is in no table."""


def lip_motion(phones: Sequence[Phone], times_s: NDArray[np.float64]) -> LipMotion:
    """Return what the lips do at the times (n,) while the phones are said."""
    known = np.ones(len(times_s), bool)
    parts: list[tuple[float, float, Sound]] = []
    for start_s, end_s, ipa in phones:
        letters = _ANOTHER_LANGUAGE.sub("", ipa)
        sounds = [SOUNDS[letter] for letter in letters if letter in SOUNDS] if letters else [SILENCE]
        if not sounds:
            known &= (times_s < start_s - 0.05) | (times_s > end_s + 0.05)
        ends = np.linspace(start_s, end_s, len(sounds) + 1)
        parts += zip(ends[:-1], ends[1:], sounds, strict=True)
    starts, stops = (np.array([part[side] for part in parts])[:, None] for side in (0, 1))
    opening, opening_weight, spread, spread_weight = np.array([part[2] for part in parts]).T[:, :, None]
    inside = np.minimum(times_s - starts, stops - times_s)
    influence = np.where(inside >= 0, np.clip(_EDGE_WEIGHT + inside / 0.05, None, 1.0), _EDGE_WEIGHT * np.exp(np.minimum(inside, 0.0) / _FADE_S))

    def shared(target: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
        weight = influence * weight
        return np.asarray((weight * target).sum(0) / (weight.sum(0) + 1e-9))

    return LipMotion(shared(opening, opening_weight), shared(spread, spread_weight), known)


def correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return how what lips do, (n,), goes along with what they should: Pearson's coefficient."""
    return float(np.corrcoef(one, other)[0, 1])
