"""What an encoder is told so that an output in segments has the bit rate that is asked for."""

from fractions import Fraction

import pytest

from orchestrator.media.rate import FIRST_TOLD, MOST_TOLD, Spent, next_told

WANTED = 1_000_000


def spent(told: int, used: float, duration_s: Fraction = Fraction(2)) -> Spent:
    """A segment that used so many bits a second."""
    return Spent(told, round(used * duration_s / 8), duration_s)


def test_first_segments_are_told_what_is_wanted_or_what_an_encoder_that_begins_cautiously_needs() -> None:
    assert next_told(WANTED, "libx264", []) == WANTED
    assert next_told(WANTED, "libx265", []) == FIRST_TOLD["libx265"] * WANTED
    assert next_told(WANTED, "libx264", [spent(WANTED, 3 * WANTED, Fraction(1, 2))]) == WANTED, "a key frame says little of other pictures"


def test_encoder_that_does_as_it_is_told_is_told_the_same() -> None:
    assert next_told(WANTED, "libx264", [spent(WANTED, WANTED)] * 3) == WANTED


@pytest.mark.parametrize("share", [0.5, 0.7, 1.2, 1.5])
def test_encoder_that_uses_a_share_of_what_it_is_told_comes_to_what_is_wanted(share: float) -> None:
    segments: list[Spent] = []
    for _ in range(20):
        told = next_told(WANTED, "libx264", segments)
        segments.append(spent(told, share * told))
    used = [8 * one.size_bytes / float(one.duration_s) for one in segments]
    assert used[-1] == pytest.approx(WANTED, rel=0.02) and sum(used) / len(used) == pytest.approx(WANTED, rel=0.03)
    assert max(used) <= max(share, 1.2) * WANTED, "what was missing is made up for slowly"


@pytest.mark.parametrize("used", [0, 1_000, 50 * WANTED])
def test_what_is_told_has_bounds(used: int) -> None:
    told = next_told(WANTED, "libx264", [spent(WANTED, used)] * 3)
    assert told == (MOST_TOLD * WANTED if used < WANTED else WANTED / MOST_TOLD)
