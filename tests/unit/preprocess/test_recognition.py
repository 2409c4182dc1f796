"""A person's tracks, by how alike their faces are."""

import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.recognition import BEST_FRAMES, mean_direction, sightings, tracks_of_people
from preprocess.smoothing import SeenFace, SeenFrame
from preprocess.speaker import ChosenFrame, KnownTracks, Selection


def face(track: int, side: float = 50.0, score: float = 0.9) -> SeenFace:
    return SeenFace(track, np.array([0.0, 0.0, side, side]), score, np.zeros((5, 2), np.float32))


def frames(*tracks: set[int]) -> list[SeenFrame]:
    return [SeenFrame(index, index == 0, {number: face(number) for number in sorted(numbers)}) for index, numbers in enumerate(tracks)]


def test_best_frames_are_the_largest_and_surest_of_each_part_of_a_track() -> None:
    faces = [face(7, 10), face(7, 40), face(7, 40), face(7, 90, score=0.1), face(7, 35), face(7, 20), face(7, 30)]
    seen = [SeenFrame(index, index == 0, {7: one}) for index, one in enumerate(faces)]
    assert [index for index, _ in sightings(seen)[7].best] == [1, 2, 4] and BEST_FRAMES == 3
    assert [index for index, _ in sightings(seen[:2])[7].best] == [0, 1]


def test_what_was_never_surely_a_face_is_no_sighting() -> None:
    assert not sightings([SeenFrame(0, True, {1: face(1, score=0.3)})])


def test_what_was_chosen_is_a_sighting_however_unsure() -> None:
    assert sightings([SeenFrame(0, True, {1: face(1, score=0.3)})], {1}).keys() == {1}


def at(angle_deg: float) -> NDArray[np.float64]:
    return np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))])


def test_mean_of_a_track_is_compared() -> None:
    assert mean_direction(np.array([[1, 0], [0, 1]], np.float32)) == pytest.approx(at(45))


def test_most_similar_of_those_seen_together_is_the_person_and_comes_back_under_another_number() -> None:
    found = sightings(frames({1, 2}, {1, 2}, {3}, {4}))
    directions = {1: at(53), 2: at(37), 3: at(-60), 4: at(61)}
    assert tracks_of_people(found, directions, [at(0)], 0.5) == (frozenset({2, 3}),)


def test_track_that_is_like_two_people_is_the_more_similar_ones() -> None:
    found = sightings(frames({1, 2}, {3}, {4}, {5}))
    directions = {1: at(0), 2: at(40), 3: at(15), 4: at(25), 5: at(120)}
    assert tracks_of_people(found, directions, [directions[1], directions[2]], 0.5) == (frozenset({1, 3}), frozenset({2, 4}))


def test_choice_takes_the_persons_face_and_nobody_elses() -> None:
    selection = Selection(KnownTracks(frozenset({2, 3})), 25.0)
    chosen: list[ChosenFrame] = [one for frame in frames({1, 2}, {1}, {3}) for one in selection.push(frame)]
    chosen += selection.finish()
    assert [None if frame.faces[0] is None else frame.faces[0].track for frame in chosen] == [2, None, 3]
