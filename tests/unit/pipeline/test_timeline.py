"""Time arithmetic."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pipeline.timeline import bounce_runs, output_frame_count


@given(st.integers(1, 40), st.integers(1, 300))
def test_bounce_is_the_triangle_wave_over_the_source(source_count: int, output_count: int) -> None:
    frames = [run.start + run.step * k for run in bounce_runs(source_count, output_count) for k in range(run.count)]
    period = max(1, 2 * source_count - 2)
    assert frames == [min(k % period, period - k % period) if source_count > 1 else 0 for k in range(output_count)]


def test_an_hour_has_the_exact_number_of_frames() -> None:
    assert output_frame_count(Fraction(3600), Fraction(30000, 1001)) == 107892
    assert output_frame_count(Fraction(3600), Fraction(24000, 1001)) == 86314
    assert output_frame_count(Fraction(1, 1000), Fraction(25)) == 1


@given(st.integers(1, 40), st.integers(1, 300))
def test_runs_stay_inside_the_source_and_no_frame_is_shown_twice_in_a_row(source_count: int, output_count: int) -> None:
    runs = list(bounce_runs(source_count, output_count))
    frames = [run.start + run.step * k for run in runs for k in range(run.count)]
    assert all(0 <= frame < source_count for frame in frames)
    assert all(run.count > 0 for run in runs)
    if source_count > 1:
        assert all(abs(after - before) == 1 for before, after in pairwise(frames))


def test_runs_need_a_source_and_an_output() -> None:
    for counts in ((0, 1), (1, 0), (-1, 5)):
        with pytest.raises(ValueError, match="at least one"):
            list(bounce_runs(*counts))


@given(st.fractions(0, 7200), st.sampled_from([Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25), Fraction(60)]))
def test_output_is_never_more_than_half_a_frame_off_its_sound(audio_duration_s: Fraction, frame_rate: Fraction) -> None:
    count = output_frame_count(audio_duration_s, frame_rate)
    assert count == 1 or abs(count / frame_rate - audio_duration_s) <= 1 / frame_rate / 2
