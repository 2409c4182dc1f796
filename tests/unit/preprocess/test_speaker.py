"""Who is followed, where cuts, crossings, sizes and profiles come in, and how far ahead that has to look."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocess.cuts import REACH
from preprocess.face_track import FaceTrack, Followed, follow
from preprocess.pose import Presence
from preprocess.smoothing import MAX_GAP_S
from preprocess.speaker import CHOICE_S, EveryFace, FaceAt, FaceBoxes, LargestFace, SpeakerChoice
from preprocess.track import TrackedFrame, Tracker
from tests.unit.preprocess.test_track import FACE, row, rows

RATE = 25.0
NO_CHANGE = np.full(REACH, 0.001, np.float32)
CUT = np.full(REACH, 0.6, np.float32)

Frames = list[NDArray[np.float32]]


def changes_of(count: int, cuts: tuple[int, ...] = ()) -> NDArray[np.float32]:
    """Return the changes of a video with cuts: what lies on both sides of one differs, however many frames apart."""
    changes = np.tile(NO_CHANGE, (count, 1))
    for cut in cuts:
        changes[cut] = CUT
        for before in range(1, REACH):
            changes[cut - before, before:] = 0.6
    return changes


def followed(frames: Frames, *choices: SpeakerChoice, cuts: tuple[int, ...] = ()) -> Followed:
    return follow(frames, changes_of(len(frames), cuts), RATE, choices or (LargestFace(),))


def tracked(frames: Frames, *choices: SpeakerChoice, cuts: tuple[int, ...] = ()) -> FaceTrack:
    return followed(frames, *choices, cuts=cuts).tracks[0]


def left_of(track: FaceTrack) -> NDArray[np.float32]:
    """Return where the box of the face begins in each frame, by its nose; not a number where there is none."""
    return np.where(track.is_present, track.landmarks5[:, 2, 0] - 50, np.nan)


def pushed(frames: Frames, changes: NDArray[np.float32], *choices: SpeakerChoice) -> tuple[list[TrackedFrame], int]:
    """Return the frames that are final before the end, and how far ahead the tracker looks."""
    tracker = Tracker(RATE, choices or (LargestFace(),))
    final: list[TrackedFrame] = []
    for number, (faces, change) in enumerate(zip(frames, changes, strict=True)):
        final.extend(tracker.push(faces, change))
        assert number + 1 - len(final) <= tracker.look_ahead, "a frame waits no longer than is said"
    return final, tracker.look_ahead


def assert_same(one: list[TrackedFrame], other: list[TrackedFrame]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a.index, a.starts_shot, len(a.faces)) == (b.index, b.starts_shot, len(b.faces))
        for face, twin in zip(a.faces, b.faces, strict=True):
            assert (face.speaker, face.slot, face.presence, face.strength) == (twin.speaker, twin.slot, twin.presence, twin.strength)
            assert np.array_equal(face.landmarks5, twin.landmarks5)


video = st.lists(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200), st.integers(5, 150), st.floats(0.3, 1.0)), max_size=3), max_size=90)


@settings(max_examples=30)
@given(video, st.sets(st.integers(4, 80), max_size=3), st.integers(0, 60), st.sampled_from([LargestFace(), EveryFace()]))
def test_what_is_final_does_not_depend_on_what_comes_later(
    faces: list[list[tuple[int, int, int, float]]], cuts: set[int], known: int, choice: SpeakerChoice
) -> None:
    frames = [rows(*(row(*face) for face in frame)) for frame in faces]
    changes = changes_of(max(len(frames), 90), tuple(sorted(cuts)))
    whole, look_ahead = pushed(frames, changes[: len(frames)], choice)
    part, _ = pushed(frames[:known], changes[: min(known, len(frames))], choice)
    assert_same(part, whole[: len(part)])
    assert len(part) >= min(known, len(frames)) - look_ahead


def test_speaker_follows_the_largest_face_of_each_shot_and_nothing_smears_across_a_cut() -> None:
    first = [rows(row(10, 10, 100), row(300, 10, 80))] * 40
    second = [rows(row(12, 10, 70), row(310, 20, 110))] * 40
    track = tracked(first + second, cuts=(40,))
    assert track.is_present.all() and (track.strength == 1).all()
    np.testing.assert_allclose(track.landmarks5[:40], np.broadcast_to(FACE + 10, (40, 5, 2)), atol=1e-3)
    np.testing.assert_allclose(track.landmarks5[40:], np.broadcast_to(FACE * 1.1 + [310, 20], (40, 5, 2)), atol=1e-3)


def test_jump_within_a_shot_smears_nothing_and_changes_nobody() -> None:
    """A jump cut: both people sit a little elsewhere at once, and the other one is now the larger one."""
    frames = [rows(row(10, 10, 100), row(300, 10, 96))] * 40 + [rows(row(26, 14, 96), row(310, 20, 100))] * 40
    changes = changes_of(80)
    changes[40] = 0.02
    for before in range(1, REACH):
        changes[40 - before, before:] = 0.02
    found = follow(frames, changes, RATE)
    assert found.cuts == () and found.tracks[0].is_present.all() and (found.tracks[0].strength == 1).all()
    np.testing.assert_allclose(found.tracks[0].landmarks5[:40], np.broadcast_to(FACE + 10, (40, 5, 2)), atol=1e-3)
    np.testing.assert_allclose(found.tracks[0].landmarks5[40:], np.broadcast_to(FACE * 0.96 + [26, 14], (40, 5, 2)), atol=1e-3)


def test_gap_across_a_cut_is_not_bridged() -> None:
    frames = [rows(row(0, 0))] * 20 + [rows()] * 4 + [rows(row(6, 0))] * 20
    assert tracked(frames).is_present.all()
    found = followed(frames, cuts=(22,))
    assert np.flatnonzero(~found.tracks[0].is_present).tolist() == [20, 21, 22, 23]
    assert found.cuts == (22,)


def test_people_who_cross_keep_their_own_tracks() -> None:
    """Of the same size, one hidden behind the other for half a second."""
    frames = []
    for frame in range(75):
        left, right = row(8.0 * frame, 0), row(600 - 8.0 * frame, 6, 95)
        frames.append(rows(left) if 33 <= frame <= 42 else rows(left, right))
    for x, expected in ((50, 8.0 * np.arange(75)), (650, 600 - 8.0 * np.arange(75))):
        place = left_of(tracked(frames, FaceAt(0, x, 50)))
        error = np.nanmax(np.abs(place - expected))
        assert error < 8, "half a step of the movement at most, and never the other one"
        assert np.isfinite(place).sum() >= 63


def test_hidden_speaker_who_comes_back_is_followed_and_not_who_hid_him() -> None:
    speaker = row(300, 0)
    passing = [row(12.0 * (frame - 20), 0, 95) for frame in range(90)]
    frames = [rows(speaker)] * 20 + [rows(speaker, other) for other in passing[20:42]]
    frames += [rows(other) for other in passing[42:63]] + [rows(speaker, other) for other in passing[63:]]
    place = left_of(tracked(frames))
    np.testing.assert_allclose(place[np.isfinite(place)], 300, atol=1.5)
    assert np.isfinite(place[:42]).all() and np.isfinite(place[66:]).all()


@pytest.mark.parametrize(("together", "drift_px"), [(12, 0.0), (25, 1.5), (36, 0.5)])
def test_dissolve_into_another_shot_gives_way_to_its_face(together: int, drift_px: float) -> None:
    """Both faces are seen for a while, each in its own place; the camera of the second shot moves."""
    speaker, next_one = row(0, 0), [row(300 + drift_px * frame, 20, 90) for frame in range(90)]
    track = tracked([rows(speaker)] * 40 + [rows(speaker, face) for face in next_one[:together]] + [rows(face) for face in next_one[together:]])
    place = left_of(track)
    assert track.is_present.all()
    assert place[39 + together] < 10 and place[40 + together] > 290


@pytest.mark.parametrize(
    "listening",
    [
        pytest.param([True] * 20, id="from the start"),
        pytest.param([False] * 40 + [True] * 40, id="for long"),
        pytest.param([True] * 40 + [False] * 15 + [True] * 10, id="turns away for a moment"),
    ],
)
def test_listener_does_not_speak_when_the_speaker_leaves(listening: list[bool]) -> None:
    speaker, listener = row(0, 0), row(300, 20, 60)
    track = tracked([rows(speaker, listener) if there else rows(speaker) for there in listening] + [rows(listener)] * 50)
    assert track.is_present[: len(listening)].all() and not track.is_present[len(listening) :].any()


def test_someone_much_larger_who_stays_becomes_the_speaker_and_one_who_passes_does_not() -> None:
    poster = row(0, 0, 40)
    passing = [rows(poster)] * 30 + [rows(poster, row(200, 0, 150))] * 20 + [rows(poster)] * 40
    staying = [rows(poster)] * 30 + [rows(poster, row(200, 0, 150))] * 60
    assert np.nanmax(left_of(tracked(passing))) < 0
    assert np.nanmin(left_of(tracked(staying))[32:]) > 200


def test_face_chosen_by_point_is_followed_in_every_shot_by_place_and_size() -> None:
    first = [rows(row(0, 0, 120), row(300, 0, 100))] * 30
    second = [rows(row(0, 0, 120))] * 30
    third = [rows(row(320, 10, 100), row(20, 0, 140))] * 30
    track = tracked(first + second + third, FaceAt(70, 340, 30), cuts=(30, 60))
    assert track.is_present.tolist() == [True] * 30 + [False] * 30 + [True] * 30
    assert np.nanmin(left_of(track)) >= 300


def test_nothing_is_final_before_the_frame_that_chooses() -> None:
    frames = [rows(row(0, 0, 120), row(300, 0, 100))] * 100
    tracker = Tracker(RATE, (FaceAt(90, 350, 50),))
    handed_out = [len(list(tracker.push(faces, NO_CHANGE))) for faces in frames]
    assert sum(handed_out[:90]) == 0
    assert sum(handed_out) + len(list(tracker.finish())) == 100
    assert not tracker.missing


@pytest.mark.parametrize("choice", [FaceAt(5, 700, 300), FaceAt(500, 50, 50)])
def test_point_at_which_there_is_no_face_is_told(choice: FaceAt) -> None:
    found = followed([rows(row(0, 0))] * 30, choice)
    assert found.missing == (0,)
    assert not found.tracks[0].is_present.any() and len(found.tracks[0]) == 30


def test_boxes_choose_frame_by_frame_and_none_is_nobody() -> None:
    frames = [rows(row(0, 0), row(300, 0))] * 40
    boxes = [(0.0, 0.0, 100.0, 100.0)] * 10 + [None] * 10 + [(290.0, 0.0, 410.0, 110.0)] * 10
    place = left_of(tracked(frames, FaceBoxes(tuple(boxes))))
    np.testing.assert_allclose(place[:10], 0, atol=1e-3)
    np.testing.assert_allclose(place[20:30], 300, atol=1e-3)
    assert not np.isfinite(place[10:20]).any() and not np.isfinite(place[30:]).any()


def test_every_face_has_a_track_and_slots_are_used_again() -> None:
    frames = [rows(row(0, 0), row(300, 0))] * 30 + [rows(row(0, 0))] * 30 + [rows(row(0, 0), row(300, 200))] * 30
    tracks = followed(frames, EveryFace()).tracks
    assert [int(track.is_present.sum()) for track in tracks] == [90, 60]
    assert np.isfinite(left_of(tracks[1])[[0, 89]]).all()


def test_two_speakers_have_their_own_tracks_and_a_shared_face_is_the_first_ones() -> None:
    frames = [rows(row(0, 0, 120), row(300, 0, 100))] * 30
    one, other, third = followed(frames, FaceAt(0, 350, 50), FaceAt(10, 50, 50), FaceAt(3, 355, 55)).tracks
    assert np.nanmin(left_of(one)) >= 299 and np.nanmax(left_of(other)) < 20
    assert (one.speaker, other.speaker) == (0, 1)
    assert not third.is_present.any()


def test_edit_fades_where_a_face_comes_and_goes_but_not_at_the_ends() -> None:
    frames = [rows(row(0, 0))] * 30 + [rows()] * 20 + [rows(row(0, 0))] * 30
    strength = tracked(frames).strength
    np.testing.assert_allclose(strength[24:33], [1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0])
    np.testing.assert_allclose(strength[48:56], [0, 0, 0.25, 0.5, 0.75, 1, 1, 1])
    assert (strength[:27] == 1).all() and (strength[53:] == 1).all()


def turned(yaw_deg: float, size: float = 100.0) -> NDArray[np.float32]:
    """Return a head turned to the side: points on a face whose nose lies before the eyes, seen from far away."""
    points = np.array([[-20, -10, 0], [20, -10, 0], [0, 10, -23], [-15, 30, -4], [15, 30, -4]]) * size / 100
    angle = np.radians(yaw_deg)
    seen = points[:, :2].copy()
    seen[:, 0] = points[:, 0] * np.cos(angle) - points[:, 2] * np.sin(angle)
    return np.concatenate([[0, 0, size, size, 0.9], (seen + size / 2).ravel()]).astype(np.float32)


def test_profile_is_left_alone_and_does_not_flicker_at_the_limit() -> None:
    yaw = np.concatenate([np.linspace(0, 80, 50), 48 + 3 * np.sin(np.arange(50)), np.linspace(48, 0, 50)])
    track = tracked([rows(turned(angle)) for angle in yaw])
    ranges = np.flatnonzero(np.diff(track.presence.astype(int)))
    assert len(ranges) == 2, "out once and in once"
    assert 48 < yaw[ranges[0]] < 52 and 38 < yaw[ranges[1]] < 44
    assert track.presence[40] == Presence.PROFILE


def test_size_limit_does_not_flicker_either() -> None:
    size = np.concatenate([np.linspace(40, 16, 50), 20 + 1.5 * np.sin(np.arange(50)), np.linspace(20, 40, 50)])
    presence = tracked([rows(row(0, 0, float(value))) for value in size]).presence
    assert (presence == Presence.TOO_SMALL).any()
    assert np.count_nonzero(np.diff(presence.astype(int))) == 2


def test_look_ahead_is_what_it_says() -> None:
    assert Tracker(RATE).look_ahead / RATE < MAX_GAP_S + CHOICE_S + 0.6


def test_frames_of_one_who_stays_wait_for_the_smoothing_alone() -> None:
    frames = [rows(row(100, 100))] * 100
    final, _ = pushed(frames, changes_of(100))
    assert len(frames) - len(final) == Tracker(RATE).usual_look_ahead < CHOICE_S * RATE
