"""Ranges of flags."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pipeline.report import frame_ranges


@given(st.lists(st.booleans(), max_size=60))
def test_ranges_cover_exactly_the_frames_that_are_set(flags: list[bool]) -> None:
    ranges = frame_ranges(np.array(flags, np.bool_))
    covered = [frame for first, stop in ranges for frame in range(first, stop)]
    assert covered == [frame for frame, flag in enumerate(flags) if flag]
    assert all(first < stop for first, stop in ranges)
    assert all(stop < following for (_, stop), (following, _) in pairwise(ranges)), "neighbours are one range"


def test_ranges_of_nothing_and_of_everything() -> None:
    assert frame_ranges(np.zeros(0, np.bool_)) == ()
    assert frame_ranges(np.zeros(5, np.bool_)) == ()
    assert frame_ranges(np.ones(5, np.bool_)) == ((0, 5),)
    assert all(type(number) is int for number in frame_ranges(np.ones(5, np.bool_))[0]), "they go into JSON"
