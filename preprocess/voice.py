"""From the probability of speech to a gain: 1 where somebody speaks, 0 where nobody does, soft in between."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SPEECH_BEGINS_AT = 0.4
"""Probability at which speech begins. silero-vad's own `get_speech_timestamps` takes 0.5; measured, that lost 0.2 s of soft syllables in 11 s of
an old recording, which 0.4 keeps, while noise, drums and chords stay below 0.1 and a sweep of a sine below 0.35."""

SPEECH_ENDS_BELOW = 0.3
"""Probability below which speech ends: a threshold of its own keeps a weak syllable from chopping it. Lower ones hold on for a second longer
where loud noise follows a voice at once, because the network's memory of the voice fades slowly then."""

SHORTEST_SPEECH_S = 0.09
"""Shorter spans are a knock or a click, not a syllable, s."""

SHORTEST_PAUSE_S = 0.3
"""Shorter pauses are part of the speech, s: the mouth does not come to rest between two words."""

BEFORE_S = 0.16
"""How much earlier than the probability tells speech is taken to begin, s: lips part before the voice, and the network needs to hear some of it."""

BEHIND_S = 0.16
"""How much later it is taken to end, s: last consonants are weak."""

FADE_S = 0.12
"""Length of the soft passage outside either end, s: three frames at 25 Hz."""

Spans = Sequence[tuple[float, float]]
"""From when to when somebody speaks, s, in order."""


def speech_spans(voice: NDArray[np.float32], chunk_s: float) -> list[tuple[float, float]]:
    """Return when somebody speaks.

    Args:
        voice: (T,) probability of speech of each chunk, 0..1.
        chunk_s: length of a chunk, s.

    A span holds at least one chunk of `SPEECH_BEGINS_AT` and reaches, both ways, as far as no chunk is below `SPEECH_ENDS_BELOW`; spans that
    only a short pause parts are one.
    """
    maybe = np.concatenate([[False], voice >= SPEECH_ENDS_BELOW, [False]])
    edges = np.flatnonzero(np.diff(maybe.astype(np.int8)))
    spans: list[tuple[float, float]] = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if voice[first:last].max() < SPEECH_BEGINS_AT:
            continue
        start_s, end_s = float(first) * chunk_s, float(last) * chunk_s
        if spans and start_s - spans[-1][1] < SHORTEST_PAUSE_S:
            spans[-1] = spans[-1][0], end_s
        else:
            spans.append((start_s, end_s))
    return [span for span in spans if span[1] - span[0] >= SHORTEST_SPEECH_S]


def speech_gain(spans: Spans, count: int, rate_hz: int) -> NDArray[np.float32]:
    """Return the gain at `count` times, `rate_hz` a second from 0 on: (count,) float32.

    It is 1 from `BEFORE_S` before each span to `BEHIND_S` behind it, 0 elsewhere, with a cosine ramp of `FADE_S` outside.
    """
    gain = np.zeros(count, np.float32)
    for start_s, end_s in spans:
        low_s, high_s = start_s - BEFORE_S, end_s + BEHIND_S
        first, last = max(0, int((low_s - FADE_S) * rate_hz)), min(count, int((high_s + FADE_S) * rate_hz) + 2)
        times = np.arange(first, last) / rate_hz
        inside = np.clip(np.minimum(times - low_s, high_s - times) / FADE_S + 1.0, 0.0, 1.0)
        gain[first:last] = np.maximum(gain[first:last], 0.5 - 0.5 * np.cos(np.pi * inside))
    return gain


def spoken_s(spans: Spans, duration_s: float) -> float:
    """Return how long somebody speaks on a track of `duration_s`, s."""
    return sum(min(end_s, duration_s) - start_s for start_s, end_s in spans)
