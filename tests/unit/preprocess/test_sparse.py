"""Which frames a detector is asked about, and how far from it the others may be."""

from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocess.sparse import STILL_SHARE, TOLERANCE_SHARE, SparseWindow, in_whole_windows, step_frames, window_lengths
from tests.unit.preprocess.test_track import row, rows

Frames = list[NDArray[np.float32]]
CALM = 0.001


def searched(truth: Frames, changes: list[float] | None = None) -> tuple[Frames, list[int]]:
    """Return the faces of each frame of a window, and the frames that were asked about."""
    window = SparseWindow(changes or [CALM] * len(truth), 4)
    asked: list[int] = []
    while window.wanted:
        assert not set(window.wanted) & set(asked), "no frame is asked about twice"
        asked.extend(window.wanted)
        window.put([truth[frame] for frame in window.wanted])
    return window.rows(), sorted(asked)


def test_face_at_rest_is_looked_for_in_every_fourth_frame() -> None:
    truth = [rows(row(10 + 0.1 * (frame % 2), 10)) for frame in range(29)]
    found, asked = searched(truth)
    assert asked == list(range(0, 29, 4))
    assert max(np.abs(a - b).max() for a, b in zip(found, truth, strict=True)) < 0.2


def test_even_movement_takes_one_more_detection_in_the_middle() -> None:
    truth = [rows(row(4.0 * frame, 10), row(300, 2.0 * frame)) for frame in range(29)]
    found, asked = searched(truth)
    assert asked == list(range(0, 29, 2))
    np.testing.assert_allclose(np.stack(found), np.stack(truth), atol=1e-3)


def test_sudden_movement_is_looked_at_frame_by_frame_and_only_there() -> None:
    truth = [rows(row(0 if frame < 10 else 50, 0)) for frame in range(29)]
    found, asked = searched(truth)
    assert {8, 9, 10, 12} <= set(asked) and len(asked) <= 10
    np.testing.assert_allclose(np.stack(found), np.stack(truth), atol=1e-3)


def test_face_that_comes_or_goes_is_found_to_the_frame() -> None:
    truth = [rows(row(0, 0)) if 7 <= frame < 18 else rows() for frame in range(29)]
    found, _ = searched(truth)
    assert [len(faces) for faces in found] == [len(faces) for faces in truth]


def test_nothing_is_interpolated_across_a_cut() -> None:
    changes = [CALM] * 29
    changes[14] = 0.6
    _, asked = searched([rows(row(0, 0))] * 29, changes)
    assert {13, 14} <= set(asked)


def test_short_windows_end_with_a_detection() -> None:
    for count in range(1, 9):
        found, asked = searched([rows(row(0, 0))] * count)
        assert len(found) == count and asked[-1] == count - 1


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 29), st.floats(0, 6))
def test_whatever_moves_no_point_is_far_from_where_it_was_last_or_next_seen(seed: int, count: int, speed: float) -> None:
    noise = np.random.default_rng(seed)
    places = np.cumsum(noise.normal(0, speed, (count, 2)), axis=0)
    truth = [rows(row(200 + x, 200 + y)) for x, y in places]
    found, asked = searched(truth)
    for frame in asked:
        np.testing.assert_array_equal(found[frame], truth[frame])
    for frame in set(range(count)) - set(asked):
        before, after = max(at for at in asked if at < frame), min(at for at in asked if at > frame)
        share = (frame - before) / (after - before)
        np.testing.assert_allclose(found[frame], truth[before] + share * (truth[after] - truth[before]), atol=1e-3)


def test_steps_are_a_time_and_not_a_number_of_frames() -> None:
    assert [step_frames(rate) for rate in (1.0, 12.5, 25.0, 29.97, 60.0)] == [1, 2, 4, 5, 10]
    assert list(islice(window_lengths(25.0), 6)) == [13, 13, 13, 13, 29, 29]
    assert [in_whole_windows(count, 25.0) for count in (0, 1, 13, 14, 52, 53, 81, 82)] == [0, 13, 13, 26, 52, 81, 81, 110]
    assert TOLERANCE_SHARE < STILL_SHARE < 0.05
