"""The output's clock."""

from fractions import Fraction

import numpy as np

from orchestrator.media.clock import OutputClock


def test_constant_clock_is_exact_after_three_hours() -> None:
    clock = OutputClock.constant(Fraction(30000, 1001))
    assert clock.time_s(323_676) == Fraction(323_676 * 1001, 30000)
    assert clock.tick(-2) == -2


def test_clock_of_given_times_keeps_its_distance_outside_them() -> None:
    clock = OutputClock(Fraction(25), Fraction(1, 1000), np.array([0, 30, 90, 100]))
    assert [clock.tick(frame) for frame in range(-2, 6)] == [-80, -40, 0, 30, 90, 100, 140, 180]
    assert clock.time_s(2) == Fraction(9, 100)


def test_frame_is_found_again_by_a_rounded_time() -> None:
    clock = OutputClock(Fraction(25), Fraction(1, 90_000), np.array([0, 2970, 8100, 9000, 12_600]))
    assert [clock.nearest(Fraction(ms, 1000)) for ms in (0, 33, 90, 100, 140, 32, 34, 91, 99)] == [0, 1, 2, 3, 4, 1, 1, 2, 3]
    assert OutputClock.constant(Fraction(30000, 1001)).nearest(Fraction(3337, 1000)) == 100


def test_no_frame_is_shown_before_it_is_decoded() -> None:
    clock = OutputClock(Fraction(25), Fraction(1, 1000), np.array([0, 10, 20, 500, 510, 550]))
    lag = clock.lag_ticks(2)
    assert all(clock.tick(place) - lag <= clock.tick(place - 2) for place in range(2, 6)) and clock.lag_ticks(0) == 0
    assert OutputClock.constant(Fraction(25)).lag_ticks(2) == 2
