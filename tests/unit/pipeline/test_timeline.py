"""Time arithmetic."""

from fractions import Fraction

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
