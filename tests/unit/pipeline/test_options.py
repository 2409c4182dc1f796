"""Options that no single field shows to be wrong."""

import time
from fractions import Fraction

import pytest

from orchestrator.errors import InvalidOption
from orchestrator.pipeline.options import RenderOptions


@pytest.mark.parametrize(
    ("asked", "rate"),
    [("25", Fraction(25)), (25.0, Fraction(25)), ("29.97", Fraction(30000, 1001)), ("30000/1001", Fraction(30000, 1001)), (" 24. ", Fraction(24))],
)
def test_frame_rate_is_a_number_or_a_fraction(asked: str | float, rate: Fraction) -> None:
    assert RenderOptions.model_validate({"frame_rate": asked}).rate == rate


@pytest.mark.parametrize("asked", ["1e100000000", "1e-100000000", "0", "1/0", "-25", "nan", "inf", "1000", "25/", "", "25 frames"])
def test_frame_rate_that_is_none_is_refused_at_once(asked: str) -> None:
    began = time.monotonic()
    with pytest.raises(InvalidOption, match="frame_rate is"):
        RenderOptions(frame_rate=asked).check()
    assert time.monotonic() - began < 5
