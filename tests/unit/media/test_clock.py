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
