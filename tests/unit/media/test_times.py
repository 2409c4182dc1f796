"""Time stamps made into times: whatever comes out of a container, and the rate it is meant to have."""

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.media.times import MISSING_PTS, STANDARD_RATES, SourceTimes, exact_rate, header_rate, source_times

MS = Fraction(1, 1000)


def times(pts: list[int], rate: Fraction | int = 25, time_base: Fraction = MS, may_jump: bool = False) -> SourceTimes:
    return source_times(np.array(pts, np.int64), Fraction(rate), time_base, may_jump)


def seconds(found: SourceTimes) -> list[Fraction]:
    return [int(tick) * found.tick_s for tick in found.ticks]


@pytest.mark.parametrize("rate", [*STANDARD_RATES, Fraction(30000, 1121), Fraction(15), Fraction(240)])
@pytest.mark.parametrize("time_base", [MS, Fraction(1, 90_000), Fraction(1, 600), Fraction(1, 15_360)])
@pytest.mark.parametrize("rounding", [round, int])
def test_constant_rate_is_found_behind_the_containers_rounding(rate: Fraction, time_base: Fraction, rounding: type[int]) -> None:
    """Forty seconds, where the header tells a rate that is slightly off, as average rates of Matroska files are."""
    pts = [7777 + rounding(k / rate / time_base) for k in range(round(40 * rate))]
    found = times(pts, rate * Fraction(997, 1000), time_base)
    assert found.is_constant
    assert abs(found.frame_rate / rate - 1) < Fraction(1, 20_000)
    if rate in STANDARD_RATES:
        assert found.frame_rate == rate
    exactly = times(pts, rate, time_base)
    assert exactly.is_constant and exactly.frame_rate == rate
    assert exactly.duration_s == len(pts) / rate


@pytest.mark.parametrize(
    ("lengths_ms", "rate"),
    [
        ([33, 33, 34] * 20 + [100] + [33, 33, 34] * 20, Fraction(30)),  # a phone that missed two frames
        ([30, 50, 40] * 20, Fraction(25)),  # jitter
        ([17, 16, 17] * 30 + [3000, 17, 17, 16] * 4, Fraction(60)),  # a screen that was still for long
        ([42, 41, 42] * 20 + [83], Fraction(24)),
        ([57] * 10 + [200] + [57] * 10, Fraction(1000, 57)),
    ],
)
def test_variable_rate_is_named_by_the_frames_that_are_most(lengths_ms: list[int], rate: Fraction) -> None:
    pts = [*accumulate([0, *lengths_ms])]
    found = times(pts, 27)
    assert not found.is_constant
    assert found.frame_rate == rate
    assert seconds(found) == [ms * MS for ms in pts]
    assert found.duration_s == pts[-1] * MS + 1 / rate


def test_frames_without_stamps_are_counted() -> None:
    found = times([MISSING_PTS] * 50)
    assert found.is_constant and found.frame_rate == 25
    assert seconds(found) == [Fraction(k, 25) for k in range(50)]


def test_frame_without_stamp_follows_the_one_before() -> None:
    assert seconds(times([MISSING_PTS, 1000, MISSING_PTS, 1080, 1120])) == [Fraction(k, 25) for k in range(5)]


def test_stamp_that_repeats_shifts_nothing_behind_it() -> None:
    found = seconds(times([0, 40, 40, 80, 120, 160]))
    assert [found[k] for k in (0, 1, 3, 4, 5)] == [0, *(k * Fraction(1, 25) for k in (1, 2, 3, 4))]
    assert found[1] < found[2] < found[3]


def test_stamps_that_are_all_the_same_say_nothing() -> None:
    found = times([700] * 40)
    assert found.is_constant and found.unstamped_count == 40
    assert seconds(found) == [Fraction(k, 25) for k in range(40)]


def test_stamps_that_stand_still_are_counted_on() -> None:
    found = times([*[0] * 40, 1600])
    assert found.unstamped_count == 39
    assert Fraction(34, 25) <= seconds(found)[-2] <= Fraction(39, 25)
    assert seconds(found) == sorted(seconds(found))


def test_rate_of_ticks_is_no_frame_rate() -> None:
    found = times([*range(30)], time_base=Fraction(1, 12_800))
    assert not found.is_constant and found.frame_rate == 120
    assert found.duration_s == Fraction(29, 12_800) + Fraction(1, 120)


def test_joined_recordings_go_on_where_the_first_ended() -> None:
    found = times([*range(0, 4000, 40), *range(0, 4000, 40)])
    assert found.is_constant and seconds(found) == [Fraction(k, 25) for k in range(200)]


def test_long_gap_is_a_pause_but_in_mpeg_streams_a_new_clock() -> None:
    pts = [*range(0, 1000, 40), *range(61_000, 62_000, 40)]
    assert seconds(times(pts))[-1] == Fraction(61_960, 1000)
    assert seconds(times(pts, may_jump=True))[-1] == Fraction(49, 25)


@given(st.lists(st.one_of(st.just(MISSING_PTS), st.integers(-(10**7), 10**7)), min_size=1, max_size=60), st.booleans())
def test_times_begin_at_zero_and_never_fall(pts: list[int], may_jump: bool) -> None:
    ticks = times(pts, may_jump=may_jump).ticks
    assert ticks[0] == 0 and (np.diff(ticks) >= 0).all() and len(ticks) == len(pts)


def test_digits_of_ntsc_rates_mean_those_rates() -> None:
    given_and_meant = {
        "29.97": "30000/1001",
        "23.976": "24000/1001",
        "23.98": "24000/1001",
        "59.94": "60000/1001",
        "30": "30",
        "24": "24",
        "12.5": "12.5",
    }
    assert {text: exact_rate(Fraction(text)) for text in given_and_meant} == {text: Fraction(meant) for text, meant in given_and_meant.items()}


def test_rate_of_a_header_stands_for_the_standard_one_that_ffmpeg_had_no_numbers_for() -> None:
    given_and_meant = {
        "7001/146": "48000/1001",
        "19001/317": "60000/1001",
        "29011/242": "120000/1001",
        "25": "25",
        "2997/100": "2997/100",
        "59.94": "59.94",
        "999/10": "999/10",
    }
    assert {text: header_rate(Fraction(text)) for text in given_and_meant} == {text: Fraction(meant) for text, meant in given_and_meant.items()}
