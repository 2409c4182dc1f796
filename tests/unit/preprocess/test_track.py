"""The speaker's track, from made-up detections."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocess.cuts import REACH
from preprocess.face_track import FaceTrack, follow
from preprocess.linking import box_overlap

FACE = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)
"""Five points of a face in a box of 100 px."""


def row(x: float, y: float, size: float = 100.0, score: float = 0.9) -> NDArray[np.float32]:
    points = FACE * (size / 100) + [x, y]
    return np.concatenate([[x, y, x + size, y + size, score], points.ravel()]).astype(np.float32)


def rows(*faces: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack(faces) if faces else np.zeros((0, 15), np.float32)


def choose_speaker(detections: list[NDArray[np.float32]], frame_rate: float) -> FaceTrack:
    (track,) = follow(detections, np.zeros((len(detections), REACH), np.float32), frame_rate).tracks
    return track


def test_largest_face_over_time_is_the_speaker_even_where_it_is_not_the_best_detection() -> None:
    track = choose_speaker([rows(row(400, 0, 60, 0.99), row(10, 10, 100, 0.7)) for _ in range(20)], 25.0)
    assert track.is_present.all()
    np.testing.assert_allclose(track.landmarks5[10], FACE + 10, atol=0.01)


def test_face_that_walks_across_does_not_take_the_track_over() -> None:
    frames = [rows(row(200, 100), row(25 * frame, 150, 90)) for frame in range(25)]
    np.testing.assert_allclose(choose_speaker(frames, 25.0).landmarks5 - FACE, np.broadcast_to([200, 100], (25, 5, 2)), atol=0.5)


def test_short_gap_is_bridged_on_the_straight_line_and_a_long_one_is_not() -> None:
    def seen(gap: range) -> NDArray[np.bool_]:
        frames = [rows() if frame in gap else rows(row(2.0 * frame, 0)) for frame in range(60)]
        track = choose_speaker(frames, 25.0)
        present = track.is_present
        np.testing.assert_allclose(track.landmarks5[present][:, 2, 0], 2.0 * np.flatnonzero(present) + 50, atol=0.6)
        return present

    assert seen(range(20, 25)).all()
    assert np.flatnonzero(~seen(range(20, 40))).tolist() == list(range(20, 40))


def test_speaker_who_comes_back_elsewhere_is_followed_again() -> None:
    frames = [rows(row(0, 0))] * 20 + [rows()] * 20 + [rows(row(500, 0, 110))] * 20
    present = choose_speaker(frames, 25.0).is_present
    assert present.tolist() == [True] * 20 + [False] * 20 + [True] * 20


def test_jitter_is_taken_out_without_lag() -> None:
    rng = np.random.default_rng(3)
    truth = np.stack([row(3.0 * frame, 0) for frame in range(100)])
    noisy = truth.copy()
    noisy[:, 5:] += rng.normal(0, 1, (100, 10))
    found = choose_speaker([rows(item) for item in noisy], 25.0).landmarks5.reshape(100, 10)
    error, before = found - truth[:, 5:], noisy[:, 5:] - truth[:, 5:]
    assert error[10:-10].std() < 0.5 * before.std()
    assert abs(error[10:-10, 0::2].mean()) < 0.15, "a moving face is not behind"


def test_one_wild_frame_leaves_little_trace() -> None:
    frames = [rows(row(0, 0)) for _ in range(30)]
    frames[15] = rows(row(30, 0))
    assert np.abs(choose_speaker(frames, 25.0).landmarks5 - FACE).max() < 1


def test_no_faces_small_faces_and_weak_faces_are_absent() -> None:
    assert not choose_speaker([rows()] * 5, 25.0).is_present.any()
    assert not choose_speaker([rows(row(0, 0, 15))] * 5, 25.0).is_present.any()
    assert not choose_speaker([rows(row(0, 0, score=0.4))] * 5, 25.0).is_present.any()
    assert choose_speaker([rows(row(0, 0))], 25.0).is_present.tolist() == [True]


def test_speaker_who_leaves_does_not_become_a_bystander() -> None:
    """Someone far smaller in the background is not the speaker come back."""
    frames = [rows(row(0, 0, 200))] * 20 + [rows()] * 20 + [rows(row(500, 0, 60))] * 20
    assert choose_speaker(frames, 25.0).is_present.tolist() == [True] * 20 + [False] * 40


def test_track_is_as_long_as_the_video_and_zero_where_nobody_is() -> None:
    frames = [rows()] * 30 + [rows(row(0, 0))] * 10 + [rows()] * 30
    track = choose_speaker(frames, 25.0)
    assert len(track) == 70
    assert track.landmarks5.shape == (70, 5, 2)
    assert not track.landmarks5[~track.is_present].any()
    assert np.flatnonzero(track.is_present).tolist() == list(range(30, 40)), "nothing is made up before the first and behind the last detection"


def test_no_frames_at_all_are_an_empty_track() -> None:
    assert len(choose_speaker([], 25.0)) == 0


@pytest.mark.parametrize("frame_rate", [1.0, 5.0, 23.976, 60.0, 240.0])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 50])
def test_straight_movement_is_kept_to_its_very_ends(frame_rate: float, count: int) -> None:
    truth = np.stack([row(2.0 * frame, 1.0 * frame) for frame in range(count)])
    track = choose_speaker([rows(item) for item in truth], frame_rate)
    assert track.is_present.all()
    np.testing.assert_allclose(track.landmarks5.reshape(count, 10), truth[:, 5:], atol=1e-3)


@settings(max_examples=30)
@given(st.lists(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(5, 150), st.floats(0.3, 1.0)), max_size=3), max_size=25))
def test_whatever_is_detected_the_track_stays_among_the_detections(faces: list[list[tuple[int, int, int, float]]]) -> None:
    frames = [rows(*(row(x, y, size, score) for x, y, size, score in frame)) for frame in faces]
    track = choose_speaker(frames, 25.0)
    assert len(track) == len(frames)
    assert np.isfinite(track.landmarks5).all()
    if track.is_present.any():
        seen = np.concatenate([frame for frame in frames if len(frame)])
        reach = np.ptp(seen[:, 5:], axis=0).max()
        points = track.landmarks5[track.is_present].reshape(-1, 10)
        assert (points >= seen[:, 5:].min(0) - reach - 1).all() and (points <= seen[:, 5:].max(0) + reach + 1).all()


def test_boxes_overlap_as_their_areas_say() -> None:
    square = (0, 0, 10, 10)
    assert box_overlap(square, (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert box_overlap(square, (0, 0, 2, 2)) == pytest.approx(4 / 100)
    assert box_overlap(square, square) == 1
    assert box_overlap(square, (20, 20, 30, 30)) == box_overlap((3, 3, 3, 3), (3, 3, 3, 3)) == 0
