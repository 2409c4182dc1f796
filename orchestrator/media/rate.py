"""The bit rate of an output in segments: each has an encoder of its own, which begins without knowing what the pictures take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

FIRST_TOLD: Mapping[str, float] = MappingProxyType({"libx265": 1.3})
"""By encoder, how many times the bits that are wanted it is told while nothing is known; once for the others. x265 begins cautiously, and a segment
ends before it has learnt: measured at 720p, it uses 45 to 87 % of what it is told. (Told of a decoder's buffer, it met 100 % on noisy pictures, and 7
to 28 % on a person who sits still, whatever it was told.)"""

KNOWN_SEGMENTS = 4
"""Segments by which the next one is told: more than one, since pictures differ, and few, since they change."""

MOST_TOLD = 2.0
"""Most times what it is told at first that an encoder is told: where a still picture takes few bits, motion must not find a flood of them."""

CORRECTED = 0.8
"""How far an error is corrected at once, as an exponent: an encoder that is told twice as much may use more than that."""

MOST_MADE_UP = 0.15
"""Largest part of a segment's bits by which it makes up for what others used too few or too many."""

_LEAST_S = 1
"""Shorter segments, as an output's first one and often its last, are mostly a key frame, and say little of others."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the pictures of a segment used."""

    told: int
    """What the encoder was told to use, bits/s."""
    size_bytes: int
    duration_s: Fraction


def next_told(wanted: int, encoder_name: str, spent: Sequence[Spent]) -> int:
    """Return what the encoder of the next segment is told to use so that the output has `wanted` bits/s, given the segments before it."""
    at_first = FIRST_TOLD.get(encoder_name, 1.0)
    whole = [one for one in spent[-KNOWN_SEGMENTS:] if one.duration_s >= _LEAST_S]
    if not whole:
        return round(at_first * wanted)
    told_bits = float(sum(one.told * one.duration_s for one in whole))
    wanted_bits = float(sum(wanted * one.duration_s for one in whole))
    used_bits = max(1, 8 * sum(one.size_bytes for one in whole))
    missing_bits = float(sum(wanted * one.duration_s - 8 * one.size_bytes for one in spent))
    made_up = missing_bits / float(wanted * whole[-1].duration_s)
    corrected = told_bits / wanted_bits * math.pow(wanted_bits / used_bits, CORRECTED)
    share = corrected * (1 + min(max(made_up, -MOST_MADE_UP), MOST_MADE_UP))
    return round(wanted * min(max(share, at_first / MOST_TOLD), at_first * MOST_TOLD))
