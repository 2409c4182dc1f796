"""Time arithmetic."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.media.reader import Run
from orchestrator.pipeline.timeline import ALL_FRAMES, SYNC_MODES, SyncMode, runs_from, source_frames_needed, speech_frame_count, timeline

counts = st.integers(1, 40), st.integers(1, 300)


def shown(mode: SyncMode, source_count: int, speech_frames: int) -> list[int]:
    laid_out = timeline(mode, source_count, speech_frames)
    frames = [run[place] for run in laid_out.runs for place in range(run.count)]
    assert len(frames) == laid_out.frame_count
    return frames


@given(*counts)
def test_bounce_is_the_triangle_wave_over_the_source(source_count: int, speech_frames: int) -> None:
    period = max(1, 2 * source_count - 2)
    wave = [min(k % period, period - k % period) if source_count > 1 else 0 for k in range(speech_frames)]
    assert shown("bounce", source_count, speech_frames) == wave


@given(*counts)
def test_loop_begins_again_at_the_first_frame(source_count: int, speech_frames: int) -> None:
    assert shown("loop", source_count, speech_frames) == [k % source_count for k in range(speech_frames)]


@given(*counts)
def test_cut_off_lasts_as_long_as_the_shorter(source_count: int, speech_frames: int) -> None:
    assert shown("cut_off", source_count, speech_frames) == list(range(min(source_count, speech_frames)))


@given(*counts)
def test_silence_shows_the_whole_video_and_holds_its_last_frame(source_count: int, speech_frames: int) -> None:
    assert shown("silence", source_count, speech_frames) == [min(k, source_count - 1) for k in range(max(source_count, speech_frames))]


@given(*counts)
def test_remap_spreads_the_video_evenly_over_the_speech(source_count: int, speech_frames: int) -> None:
    frames = shown("remap", source_count, speech_frames)
    # Each shows the source frame that lies at the same part of its video, to half a frame.
    assert all(abs((frame + 0.5) / source_count - (k + 0.5) / speech_frames) <= 0.5 / source_count + 1e-12 for k, frame in enumerate(frames))
    if speech_frames >= source_count:
        assert set(frames) == set(range(source_count))
    if speech_frames == source_count:
        assert frames == list(range(source_count))


@given(st.sampled_from(SYNC_MODES), *counts)
def test_frames_stay_inside_the_source(mode: SyncMode, source_count: int, speech_frames: int) -> None:
    known = min(source_count, source_frames_needed(mode, speech_frames))
    assert all(0 <= frame < known for frame in shown(mode, known, speech_frames))
    assert all(run.count > 0 for run in timeline(mode, known, speech_frames).runs)


@given(st.sampled_from(SYNC_MODES), *counts, st.integers(0, 300))
def test_what_follows_a_frame_is_the_rest_of_the_output(mode: SyncMode, source_count: int, speech_frames: int, first: int) -> None:
    rest = [run[place] for run in runs_from(timeline(mode, source_count, speech_frames).runs, first) for place in range(run.count)]
    assert rest == shown(mode, source_count, speech_frames)[first:]


@given(st.integers(2, 40), st.integers(1, 300))
def test_bounce_shows_no_frame_twice_in_a_row(source_count: int, speech_frames: int) -> None:
    assert all(abs(after - before) == 1 for before, after in pairwise(shown("bounce", source_count, speech_frames)))


def test_modes_that_show_the_whole_video_ask_for_it() -> None:
    asked = {mode: source_frames_needed(mode, 50) for mode in SYNC_MODES}
    assert asked == {"bounce": 50, "loop": 50, "cut_off": 50, "silence": ALL_FRAMES, "remap": ALL_FRAMES}


def test_run_of_a_fraction_shows_each_frame_as_often_as_it_says() -> None:
    run = Run(Fraction(1, 4), Fraction(1, 2), 6)
    assert [run[place] for place in range(run.count)] == [0, 0, 1, 1, 2, 2]


def test_an_hour_has_the_exact_number_of_frames() -> None:
    assert speech_frame_count(Fraction(3600), Fraction(30000, 1001)) == 107892
    assert speech_frame_count(Fraction(3600), Fraction(24000, 1001)) == 86314
    assert speech_frame_count(Fraction(1, 1000), Fraction(25)) == 1


def test_output_needs_a_source_and_a_speech() -> None:
    for source_count, speech_frames in ((0, 1), (1, 0), (-1, 5)):
        with pytest.raises(ValueError, match="at least one"):
            timeline("bounce", source_count, speech_frames)


@given(st.fractions(0, 7200), st.sampled_from([Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25), Fraction(60)]))
def test_output_is_never_more_than_half_a_frame_off_its_sound(duration_s: Fraction, frame_rate: Fraction) -> None:
    count = speech_frame_count(duration_s, frame_rate)
    assert count == 1 or abs(count / frame_rate - duration_s) <= 1 / frame_rate / 2
