"""A person's tracks, by how alike their faces are."""

import numpy as np
import pytest

from preprocess.recognition import BEST_FRAMES, MIN_SIMILARITY, sightings, similarity, tracks_of_person
from preprocess.smoothing import SeenFace, SeenFrame
from preprocess.speaker import ChosenFrame, KnownTracks, Selection


def face(track: int, side: float = 50.0, score: float = 0.9) -> SeenFace:
    return SeenFace(track, np.array([0.0, 0.0, side, side]), score, np.zeros((5, 2), np.float32))


def frames(*tracks: set[int]) -> list[SeenFrame]:
    return [SeenFrame(index, index == 0, {number: face(number) for number in sorted(numbers)}) for index, numbers in enumerate(tracks)]


def test_best_frames_are_large_and_sure_and_of_the_first_second_alone() -> None:
    sides = [10, 40, 20, 30, 35, 90]
    seen = [SeenFrame(index, index == 0, {7: face(7, side)}) for index, side in enumerate(sides)]
    assert [index for index, _ in sightings(seen, 5.0)[7].best] == [1, 3, 4] and BEST_FRAMES == 3


def test_what_was_never_surely_a_face_is_no_sighting() -> None:
    assert not sightings([SeenFrame(0, True, {1: face(1, score=0.3)})], 25.0)


def test_mean_of_a_track_is_compared() -> None:
    two = np.array([[1, 0], [0, 1]], np.float32)
    assert similarity(two, two[1]) == pytest.approx(0.5**0.5)


def test_most_similar_of_those_seen_together_is_the_person_and_comes_back_under_another_number() -> None:
    found = sightings(frames({1, 2}, {1, 2}, {3}, {4}), 25.0)
    assert tracks_of_person(found, {1: 0.6, 2: 0.8, 3: 0.5, 4: MIN_SIMILARITY - 0.01}) == {2, 3}


def test_choice_takes_the_persons_face_and_nobody_elses() -> None:
    selection = Selection(KnownTracks(frozenset({2, 3})), 25.0)
    chosen: list[ChosenFrame] = [one for frame in frames({1, 2}, {1}, {3}) for one in selection.push(frame)]
    chosen += selection.finish()
    assert [None if frame.faces[0] is None else frame.faces[0].track for frame in chosen] == [2, None, 3]
