"""Ranges of flags."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pipeline.report import frame_ranges, reasons_of, speaker_report
from preprocess.face_track import FaceTrack
from preprocess.pose import Presence


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


def track(*presence: Presence) -> FaceTrack:
    count = len(presence)
    points = np.zeros((count, 5, 2), np.float32)
    return FaceTrack(0, points, points[:, :0], np.ones(count, np.float32), np.array(presence, np.uint8))


def test_reason_of_a_frame_is_that_of_the_face_nearest_to_being_edited() -> None:
    here, away, small, aside = Presence.EDITABLE, Presence.NO_FACE, Presence.TOO_SMALL, Presence.PROFILE
    one, other = track(here, here, away, away, aside, here), track(away, small, small, away, small, away)
    edited = np.array([True, False, False, False, False, False, False, False])
    source = np.array([0, 1, 2, 3, 4, 4, 3, 2])
    reasons = {"at_rest": ((1, 2),), "too_small": ((2, 3),), "no_face": ((3, 4), (6, 7)), "profile": ((4, 6),)}
    speaking = np.arange(8)[None] < 7
    assert reasons_of(edited, source, speaking, (one, other)) == {**reasons, "after_speech": ((7, 8),)}
    assert reasons_of(edited, source, speaking, (one, other), is_cut_up=True) == {**reasons, "outside_segments": ((7, 8),)}


def test_face_of_somebody_who_does_not_speak_gives_no_reason() -> None:
    speaker, listener = track(Presence.PROFILE, Presence.PROFILE), replace(track(Presence.EDITABLE, Presence.EDITABLE), speaker=1)
    speaking = np.array([[True, True], [False, True]])
    assert reasons_of(np.zeros(2, np.bool_), np.arange(2), speaking, (speaker, listener)) == {"profile": ((0, 1),), "at_rest": ((1, 2),)}


def test_speaker_is_told_with_where_he_is_and_why_not() -> None:
    report = speaker_report(track(Presence.NO_FACE, Presence.EDITABLE, Presence.EDITABLE, Presence.PROFILE, Presence.NOT_THE_SPEAKER))
    assert report.seen == ((1, 3),)
    assert report.left_alone == {"no_face": ((0, 1),), "not_the_speaker": ((4, 5),), "profile": ((3, 4),)}
