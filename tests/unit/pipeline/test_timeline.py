"""Time arithmetic."""

from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InvalidOption
from orchestrator.media.limits import Lengths
from orchestrator.media.times import SourceTimes, source_times
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import expected_frame_count
from orchestrator.pipeline.timeline import (
    Stretch,
    SyncMode,
    at_rate,
    frame_order,
    kept_timeline,
    lay_out,
    shows_whole_source,
    speech_frame_count,
    total_s,
)

SNAPPED = Fraction(1, 1000) + Fraction(1, 60_000)
"""How far a frame of a constant rate may be from its place: times are rounded to milliseconds, s."""

counts = st.integers(1, 40), st.integers(1, 300)
RATES = [Fraction(rate) for rate in ("24000/1001", "25", "30000/1001", "50", "60000/1001", "120")]
rates = st.sampled_from(RATES)
lengths_ms = st.lists(st.integers(5, 400), min_size=1, max_size=40)


def shown(mode: SyncMode, source_count: int, speech_frames: int) -> list[int]:
    order: list[int] = frame_order(mode, source_count, speech_frames).tolist()
    return order


def constant(frame_count: int, rate: Fraction = Fraction(25)) -> SourceTimes:
    stamps = [round(k / rate * 90_000) for k in range(frame_count)]
    return source_times(np.array(stamps, np.int64), rate, Fraction(1, 90_000), may_jump=False)


def variable(lengths: list[int]) -> SourceTimes:
    return source_times(np.array([*accumulate([0, *lengths])], np.int64), Fraction(25), Fraction(1, 1000), may_jump=False)


def walk(source_count: int, count: int) -> list[int]:
    """Go back and forth step by step, turning at the ends."""
    place, step, places = 0, 1, []
    for _ in range(count):
        places.append(place)
        if source_count > 1:
            step = 1 if place == 0 else -1 if place == source_count - 1 else step
            place += step
    return places


@given(*counts)
def test_bounce_walks_back_and_forth_over_the_source(source_count: int, speech_frames: int) -> None:
    assert shown("bounce", source_count, speech_frames) == walk(source_count, speech_frames)


@given(*counts)
def test_loop_begins_again_at_the_first_frame(source_count: int, speech_frames: int) -> None:
    assert shown("loop", source_count, speech_frames) == (list(range(source_count)) * (speech_frames // source_count + 1))[:speech_frames]


@given(*counts)
def test_cut_off_lasts_as_long_as_the_shorter(source_count: int, speech_frames: int) -> None:
    assert shown("cut_off", source_count, speech_frames) == list(range(min(source_count, speech_frames)))


@given(*counts)
def test_silence_shows_the_whole_video_and_holds_its_last_frame(source_count: int, speech_frames: int) -> None:
    assert shown("silence", source_count, speech_frames) == [*range(source_count), *[source_count - 1] * (speech_frames - source_count)]


@given(*counts)
def test_remap_spreads_the_video_evenly_over_the_speech(source_count: int, speech_frames: int) -> None:
    frames = shown("remap", source_count, speech_frames)
    # Each shows the source frame that lies at the same part of its video, to half a frame.
    assert all(abs((frame + 0.5) / source_count - (k + 0.5) / speech_frames) <= 0.5 / source_count + 1e-12 for k, frame in enumerate(frames))
    if speech_frames >= source_count:
        assert set(frames) == set(range(source_count))
    if speech_frames == source_count:
        assert frames == list(range(source_count))


@given(lengths_ms, st.fractions("0.1", 20, max_denominator=1000), rates)
def test_remapped_frame_is_the_one_on_screen_in_the_middle_of_its_stretched_time(lengths: list[int], speech_s: Fraction, rate: Fraction) -> None:
    for source in (variable(lengths), constant(len(lengths), Fraction(50))):
        frames = lay_out("remap", rate, source, speech_s, is_whole=True).source
        stretch = source.duration_s / len(frames)
        ends = [*(int(tick) * source.tick_s for tick in source.ticks[1:]), source.duration_s]
        for place, frame in enumerate(frames):
            middle = (place + Fraction(1, 2)) * stretch
            assert int(source.ticks[frame]) * source.tick_s <= middle + SNAPPED and middle <= ends[frame] + SNAPPED


def test_modes_that_show_the_whole_video_ask_for_it() -> None:
    assert {mode for mode in get_args(SyncMode) if shows_whole_source(mode)} == {"silence", "remap"}


def test_output_needs_a_source_and_a_speech() -> None:
    for source_count, speech_frames in ((0, 1), (1, 0), (-1, 5)):
        with pytest.raises(ValueError, match="at least one"):
            frame_order("bounce", source_count, speech_frames)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("mode", get_args(SyncMode))
def test_an_hour_never_drifts(mode: SyncMode, rate: Fraction) -> None:
    """The place of every frame in the speech is its number over the rate: exact, so its error does not grow."""
    source = constant(round(4000 * rate) if mode == "cut_off" else 500, rate)
    laid_out = lay_out(mode, "source", source, Fraction(3600), is_whole=True)
    assert laid_out.frame_count == laid_out.speech_frames == round(3600 * rate)
    for frame in (0, 1, 12_345, laid_out.frame_count - 1):
        assert laid_out.clock.time_s(frame) == frame / rate
    assert abs(laid_out.duration_s - 3600) <= 1 / rate / 2


def test_an_hour_has_the_exact_number_of_frames() -> None:
    assert speech_frame_count(Fraction(3600), Fraction(30000, 1001)) == 107892
    assert speech_frame_count(Fraction(3600), Fraction(24000, 1001)) == 86314
    assert speech_frame_count(Fraction(1, 1000), Fraction(25)) == 1


@given(st.fractions(0, 7200), rates)
def test_output_is_never_more_than_half_a_frame_off_its_sound(duration_s: Fraction, frame_rate: Fraction) -> None:
    count = speech_frame_count(duration_s, frame_rate)
    assert count == 1 or abs(count / frame_rate - duration_s) <= 1 / frame_rate / 2


@given(lengths_ms, rates)
def test_converted_frame_is_the_one_on_screen_in_the_middle_of_its_time(lengths: list[int], rate: Fraction) -> None:
    source = variable(lengths)
    starts = [int(tick) * source.tick_s for tick in source.ticks]
    for place, frame in enumerate(at_rate(source, rate)):
        middle = (place + Fraction(1, 2)) / rate
        if not source.is_constant:
            assert starts[frame] <= middle and (frame == len(starts) - 1 or middle < starts[frame + 1])
    assert abs(len(at_rate(source, rate)) / rate - source.duration_s) <= 1 / rate / 2 or len(at_rate(source, rate)) == 1


@given(st.integers(1, 200), rates, rates)
def test_constant_source_is_converted_to_any_rate_without_drift(frame_count: int, own: Fraction, rate: Fraction) -> None:
    frames = at_rate(constant(frame_count, own), rate)
    assert len(frames) == max(1, round(frame_count / own * rate))
    for place, frame in enumerate(frames):
        middle = (place + Fraction(1, 2)) / rate
        assert frame / own <= middle and (frame == frame_count - 1 or middle < (frame + 1) / own)


@given(st.sampled_from(get_args(SyncMode)), lengths_ms, st.fractions(Fraction(1, 100), 10), rates)
def test_every_mode_has_its_length_at_any_rate(mode: SyncMode, lengths: list[int], speech_s: Fraction, rate: Fraction) -> None:
    source = variable(lengths)
    speech, video = speech_frame_count(speech_s, rate), speech_frame_count(source.duration_s, rate)
    laid_out = lay_out(mode, rate, source, speech_s, is_whole=True)
    assert laid_out.frame_count == {"cut_off": min(speech, video), "silence": max(speech, video)}.get(mode, speech)
    assert laid_out.source.min() >= 0 and laid_out.source.max() < len(source)


@given(lengths_ms, st.fractions(Fraction(1, 10), 4), rates)
def test_source_of_which_only_the_beginning_was_looked_at_is_laid_out_alike(lengths: list[int], speech_s: Fraction, rate: Fraction) -> None:
    """What lies behind the speech's end makes no difference, where the rate is given."""
    whole = variable(lengths)
    seen = int(np.searchsorted(whole.ticks, float(speech_s / whole.tick_s)))
    part = SourceTimes(whole.ticks[:seen], whole.tick_s, whole.frame_rate, whole.is_constant)
    if seen < len(whole):
        for mode in ("bounce", "loop", "cut_off"):
            expected = lay_out(mode, rate, whole, speech_s, is_whole=True)
            assert np.array_equal(lay_out(mode, rate, part, speech_s, is_whole=False).source, expected.source)


def kept(mode: SyncMode, speech_s: str, lengths: list[int]) -> list[tuple[int, int]]:
    """Return each frame with its start, ms, of a source whose last frame lasts as long as most."""
    laid_out = kept_timeline(mode, variable(lengths), Fraction(speech_s), is_whole=True)
    assert laid_out.clock.time_base == Fraction(1, 1000) and laid_out.clock.starts is not None
    return [*zip(laid_out.source.tolist(), laid_out.clock.starts.tolist(), strict=False)]


LENGTHS = [40, 40, 100, 20, 40, 40]
"""Frames 0 to 5; the seventh lasts 40 ms as most do. 320 ms together."""


def test_kept_frames_last_as_long_as_in_the_source_forwards_and_backwards() -> None:
    once = [(0, 0), (1, 40), (2, 80), (3, 180), (4, 200), (5, 240), (6, 280)]
    assert kept("bounce", "0.32", LENGTHS) == once
    assert kept("bounce", "0.6", LENGTHS) == [*once, (5, 320), (4, 360), (3, 400), (2, 420), (1, 520), (0, 560)]
    assert kept("loop", "0.5", LENGTHS) == [*once, (0, 320), (1, 360), (2, 400)]
    assert kept("loop", "0.44", LENGTHS) == [*once, (0, 320), (1, 360)], "less than half of the next frame lies within the speech"
    assert kept("cut_off", "9", LENGTHS) == once
    assert kept("cut_off", "0.1", LENGTHS) == once[:2]
    assert kept("silence", "0.1", LENGTHS) == once
    assert kept("silence", "0.41", LENGTHS) == [*once, (6, 320), (6, 360)]
    assert kept("remap", "0.64", LENGTHS) == [(frame, 2 * start) for frame, start in once]


@given(st.sampled_from(get_args(SyncMode)), lengths_ms, st.fractions(Fraction(1, 100), 10))
def test_kept_times_rise_and_end_with_the_speech(mode: SyncMode, lengths: list[int], speech_s: Fraction) -> None:
    source = variable(lengths)
    laid_out = kept_timeline(mode, source, speech_s, is_whole=True)
    starts = laid_out.clock.starts
    assert starts is not None and len(starts) == laid_out.frame_count + 1 and starts[0] == 0 and (np.diff(starts) > 0).all()
    last_s = laid_out.duration_s - laid_out.clock.time_s(laid_out.frame_count - 1)
    if mode in ("bounce", "loop") and laid_out.frame_count > 1:
        longest_s = Fraction(max([*lengths, 40]), 1000) + Fraction(1, 1000)
        assert laid_out.duration_s - last_s / 2 <= speech_s + Fraction(1, 1000) and speech_s - laid_out.duration_s <= longest_s / 2
    if mode == "remap":
        assert abs(laid_out.duration_s - speech_s) <= Fraction(len(source) + 1, 1000)


def test_constant_source_has_no_times_to_keep() -> None:
    assert lay_out("loop", "keep", constant(50), Fraction(1), is_whole=True).clock.starts is None


def test_loop_fades_from_its_end_into_its_beginning() -> None:
    laid_out = lay_out("loop", "source", constant(10), Fraction(22, 25), is_whole=True, loop_crossfade_s=Fraction(2, 25))
    assert laid_out.source.tolist() == [*range(10), *range(2, 10), *range(2, 6)]
    assert laid_out.incoming.tolist() == [*[-1] * 8, 0, 1, *[-1] * 6, 0, 1, *[-1] * 4]
    np.testing.assert_allclose(laid_out.incoming_weight[8:10], [1 / 3, 2 / 3])
    # From one frame to the next every part of the picture goes on by one frame: nothing jumps.
    tracks = [
        [(int(a), 1 - float(w)), (int(b), float(w))] for a, b, w in zip(laid_out.source, laid_out.incoming, laid_out.incoming_weight, strict=True)
    ]
    for before, after in pairwise(tracks):
        gone_on = {frame + 1: weight for frame, weight in before if weight}
        assert sum(weight for frame, weight in after if frame in gone_on or not weight) >= 0.66


def test_loop_that_never_begins_again_has_no_seam() -> None:
    laid_out = lay_out("loop", "source", constant(10), Fraction(10, 25), is_whole=True, loop_crossfade_s=Fraction(1, 5))
    assert laid_out.source.tolist() == [*range(10)] and (laid_out.incoming == -1).all()


def test_cross_fade_takes_at_most_half_of_the_video() -> None:
    with pytest.raises(InvalidOption, match="at most half"):
        lay_out("loop", "source", constant(10), Fraction(1), is_whole=True, loop_crossfade_s=Fraction(6, 25))


def test_kept_loop_fades_at_the_times_of_its_beginning() -> None:
    laid_out = lay_out("loop", "keep", variable(LENGTHS), Fraction("0.7"), is_whole=True, loop_crossfade_s=Fraction("0.09"))
    assert laid_out.clock.starts is not None and laid_out.round_s == Fraction("0.24"), "0.09 s before the end is nearest to where frame 5 begins"
    assert laid_out.clock.starts.tolist() == [0, 40, 80, 180, 200, 240, 280, 320, 420, 440, 480, 520, 560, 660, 680, 720]
    assert laid_out.source.tolist() == [0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 6, 2, 3, 4]
    assert laid_out.incoming.tolist() == [-1] * 5 + [0, 1, -1, -1, -1] * 2
    np.testing.assert_allclose(laid_out.incoming_weight[[5, 6, 10, 11]], [0.25, 0.75] * 2)
    assert kept("loop", "0.32", LENGTHS)[-1] == (6, 280), "what does not begin again does not fade"


@given(lengths_ms, st.fractions(0, 1), st.fractions(1, 5))
def test_kept_loop_never_drifts_and_fades_as_long_as_asked_to_half_a_frame(lengths: list[int], share: Fraction, rounds: Fraction) -> None:
    starts_ms, lengths = [*accumulate([0, *lengths])], [*lengths, 40]
    fade_ms = share * max(0, sum(lengths) - max(lengths)) / 2
    source = SourceTimes(np.array(starts_ms, np.int64), Fraction(1, 1000), Fraction(25), is_constant=False)
    laid_out = kept_timeline("loop", source, rounds * sum(lengths) / 1000, True, fade_ms / 1000)
    if rounds == 1:
        assert laid_out.round_s is None and (laid_out.incoming == -1).all()
        return
    assert laid_out.round_s is not None and abs(sum(lengths) - 1000 * laid_out.round_s - fade_ms) <= Fraction(max(lengths), 2)
    in_round = [*starts_ms, sum(lengths)].index(int(1000 * laid_out.round_s))
    own = np.where(laid_out.incoming < 0, laid_out.source, laid_out.incoming)
    assert own.tolist() == [place % in_round for place in range(laid_out.frame_count)]
    for place, number in enumerate(own.tolist()):
        exact_s = place // in_round * laid_out.round_s + Fraction(starts_ms[number], 1000)
        assert abs(laid_out.clock.time_s(place) - exact_s) <= Fraction(1, 180_000), "rounded to the output's ticks once"
    weights = laid_out.incoming_weight[in_round : 2 * in_round]
    assert (np.diff(weights[weights > 0]) > 0).all() and (weights < 1).all()


def test_kept_cross_fade_takes_at_most_half_of_the_video() -> None:
    with pytest.raises(InvalidOption, match="at most half"):
        lay_out("loop", "keep", variable(LENGTHS), Fraction(1), is_whole=True, loop_crossfade_s=Fraction("0.21"))


def test_loop_begins_again_after_the_frames_it_shows() -> None:
    source = variable([41, 40, 45, 40, 40])
    assert lay_out("loop", "source", source, Fraction(1), is_whole=True).round_s == Fraction(6, 25)
    assert lay_out("loop", "keep", source, Fraction(1), is_whole=True).round_s == Fraction("0.246")
    assert lay_out("loop", "source", source, Fraction(1), is_whole=True, loop_crossfade_s=Fraction("0.05")).round_s == Fraction(5, 25)
    assert lay_out("loop", "source", source, Fraction("0.2"), is_whole=True).round_s is None
    assert lay_out("bounce", "source", source, Fraction(1), is_whole=True).round_s is None


def test_digest_tells_timelines_apart() -> None:
    source = variable(LENGTHS)
    laid_out = [lay_out("loop", choice, source, Fraction(1), is_whole=True) for choice in ("source", "keep", Fraction(25), Fraction(30))]
    assert len({timeline.digest() for timeline in laid_out}) == 3, "25 is what the source comes to"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 100),
        ({"sync_mode": "loop"}, 100),
        ({"sync_mode": "remap"}, 100),
        ({"sync_mode": "cut_off"}, 50),
        ({"sync_mode": "silence"}, 100),
        ({"frame_rate": "12.5"}, 50),
        ({"segments": [{"start": 1, "end": 2}]}, 50),
    ],
)
def test_frames_are_foreseen_by_how_long_the_inputs_are(options: dict[str, Any], count: int) -> None:
    rate = Fraction(25)
    assert expected_frame_count(RenderOptions.model_validate(options), Lengths(Fraction(2), Fraction(4), rate)) == count
    assert expected_frame_count(RenderOptions.model_validate(options), Lengths(Fraction(0), Fraction(4), rate)) == (
        50 if "frame_rate" in options else 100
    )


def unchanged(from_s: Fraction, until_s: Fraction) -> Stretch:
    return Stretch(from_s, until_s - from_s, until_s - from_s)


@pytest.mark.parametrize(
    ("mode", "lasts_s", "shown"),
    [
        ("bounce", "0.4", [4, 5, 6, 7, 6, 5, 4, 5, 6, 7]),
        ("loop", "0.4", [4, 5, 6, 7, 4, 5, 6, 7, 4, 5]),
        ("silence", "0.4", [4, 5, 6, 7, 7, 7, 7, 7, 7, 7]),
        ("remap", "0.4", [4, 4, 5, 5, 5, 6, 6, 7, 7, 7]),
        ("remap", "0.08", [5, 7]),
        ("bounce", "0.08", [4, 5]),
        ("cut_off", "0.08", [4, 5]),
        ("bounce", "0.01", []),
    ],
)
def test_stretch_of_a_source_lasts_as_long_as_it_is_told_to(mode: SyncMode, lasts_s: str, shown: list[int]) -> None:
    """Of ten frames, those from the fifth to the eighth."""
    times = SourceTimes(np.arange(10), Fraction(1, 25), Fraction(25), is_constant=True)
    first_s, stop_s = Fraction(4, 25), Fraction(8, 25)
    own = Stretch(first_s, stop_s - first_s, Fraction(lasts_s), mode)
    stretches = [unchanged(Fraction(0), first_s), own, unchanged(stop_s, times.duration_s)]
    timeline = lay_out("silence", "source", times, Fraction(10), True, stretches=stretches)
    assert timeline.source.tolist() == [0, 1, 2, 3, *shown, 8, 9]
    assert timeline.sound_s == timeline.duration_s == Fraction(6 + len(shown), 25)


def test_frames_behind_a_stretch_that_ends_between_two_are_shown_in_order_all_the_same() -> None:
    times = SourceTimes(np.arange(2000), Fraction(1001, 30_000), Fraction(30_000, 1001), is_constant=True)
    stretches = [
        Stretch(Fraction(0), Fraction(1), Fraction(104_729, 48_000), "bounce"),
        unchanged(Fraction(1), Fraction(20)),
        Stretch(Fraction(20), Fraction(7, 3), Fraction(31_337, 16_000), "remap"),
        unchanged(Fraction(67, 3), times.duration_s),
    ]
    timeline = lay_out("silence", "source", times, Fraction(10), True, stretches=stretches)
    assert timeline.frame_count == speech_frame_count(total_s(stretches), times.frame_rate)
    steps = np.diff(timeline.source)
    edges = np.cumsum([float(stretch.lasts_s * times.frame_rate) for stretch in stretches]).round().astype(int)
    assert set(steps[edges[0] + 1 : edges[1] - 1]) == set(steps[edges[2] + 1 :]) == {1}
    assert timeline.source[-1] == 1999
    behind = np.arange(edges[2] + 1, timeline.frame_count)
    late = behind - timeline.source[behind] - float((total_s(stretches) - times.duration_s) * times.frame_rate)
    assert np.abs(late).max() <= 0.5, "sound and pictures of the source stay together"


def test_stretches_of_a_variable_rate_go_by_what_is_on_screen() -> None:
    times = SourceTimes(np.array([0, 1, 5, 6]), Fraction(1, 10), Fraction(10), is_constant=False)
    stretches = [Stretch(Fraction(0), Fraction(1, 2), Fraction(1), "remap"), unchanged(Fraction(1, 2), Fraction(7, 10))]
    timeline = lay_out("silence", Fraction(10), times, Fraction(10), True, stretches=stretches)
    assert timeline.source.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3]


def test_output_of_stretches_has_at_least_one_frame() -> None:
    times = SourceTimes(np.arange(10), Fraction(1, 25), Fraction(25), is_constant=True)
    stretches = [Stretch(Fraction(0), times.duration_s, Fraction(1, 1000), "remap")]
    assert lay_out("silence", "source", times, Fraction(10), True, stretches=stretches).source.tolist() == [9]
