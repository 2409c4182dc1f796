"""From probabilities of speech to spans and a gain that is soft, early enough, and quiet where nobody speaks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocess.voice import FADE_S, speech_gain, speech_spans, spoken_s

CHUNK_S = 0.032


def chunks(*parts: tuple[float, float]) -> NDArray[np.float32]:
    """Probabilities: (seconds, value) each."""
    return np.concatenate([np.full(round(seconds / CHUNK_S), value, np.float32) for seconds, value in parts])


def test_speech_is_found_with_its_soft_ends_and_nothing_else_is() -> None:
    voice = chunks((0.96, 0.05), (0.096, 0.35), (0.96, 0.9), (0.096, 0.35), (0.96, 0.1), (0.64, 0.35), (0.96, 0.0))
    assert speech_spans(voice, CHUNK_S) == [pytest.approx((0.96, 2.112))], "what is never likely to be speech is none"


def test_short_pause_is_part_of_the_speech_and_a_click_is_none() -> None:
    voice = chunks((0.32, 0.0), (0.64, 0.9), (0.256, 0.0), (0.64, 0.9), (0.64, 0.0), (0.064, 0.9), (0.64, 0.0))
    assert speech_spans(voice, CHUNK_S) == [pytest.approx((0.32, 1.856))]


def test_track_without_speech_has_no_span_and_no_gain() -> None:
    assert speech_spans(np.zeros(0, np.float32), CHUNK_S) == speech_spans(chunks((3.2, 0.1)), CHUNK_S) == []
    assert not speech_gain([], 80, 80).any()


def test_gain_is_whole_before_the_first_sound_and_after_the_last_and_zero_half_a_second_away() -> None:
    gain = speech_gain([(2.0, 3.0)], 400, 80)
    assert (gain[int(1.9 * 80) : int(3.1 * 80)] == 1).all()
    assert not gain[: int(1.5 * 80)].any() and not gain[int(3.5 * 80) :].any()
    assert np.abs(np.diff(gain)).max() < 1.6 / (FADE_S * 80), "no step: a cosine's steepest slope is pi / 2 of its mean"


@given(st.lists(st.floats(0, 1, width=32), max_size=200))
def test_gain_covers_every_chunk_of_every_span_and_spans_are_in_order(values: list[float]) -> None:
    spans = speech_spans(np.array(values, np.float32), CHUNK_S)
    assert all(first[1] < second[0] for first, second in pairwise(spans))
    duration_s = len(values) * CHUNK_S
    assert 0 <= spoken_s(spans, duration_s) <= duration_s + 1e-9
    gain = speech_gain(spans, int(duration_s * 80) + 1, 80)
    times = np.arange(len(gain)) / 80
    for start_s, end_s in spans:
        assert (gain[(times >= start_s) & (times <= end_s)] == 1).all()
    assert ((gain >= 0) & (gain <= 1)).all()
