"""Which tracks of a video are one person's: a few of each track's best frames, compared with a picture of the person or with one of the tracks."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from preprocess.smoothing import SeenFace, SeenFrame
from preprocess.speaker import MIN_START_SCORE

BEST_FRAMES = 3
"""Frames of a track that are compared, each the best one of so long a part of the track."""


@dataclass(slots=True)
class Sighting:
    """A track: when it is seen, and as what."""

    frames: list[int] = field(default_factory=list)
    faces: list[SeenFace] = field(default_factory=list)

    @property
    def best(self) -> list[tuple[int, SeenFace]]:
        """The frames, rising, in which the face is largest and surest in its part of the track: a shot may begin out of focus, or in a dissolve."""
        seen = list(zip(self.frames, self.faces, strict=True))
        bounds = [len(seen) * part // BEST_FRAMES for part in range(BEST_FRAMES + 1)]
        parts = [seen[start:stop] for start, stop in pairwise(bounds) if start < stop]
        return [max(part, key=lambda one: (one[1].area * one[1].score, -one[0])) for part in parts]


def sightings(frames: Sequence[SeenFrame], chosen: Set[int] = frozenset()) -> dict[int, Sighting]:
    """Return the tracks of a video's frames by their number, but for those that were never surely a face and are not `chosen`."""
    found: dict[int, Sighting] = {}
    for frame in frames:
        for number, face in frame.faces.items():
            sighting = found.setdefault(number, Sighting())
            sighting.frames.append(frame.index)
            sighting.faces.append(face)
    return {number: one for number, one in found.items() if number in chosen or max(face.score for face in one.faces) >= MIN_START_SCORE}


def mean_direction(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean of (n, D) embeddings, (D,) of length 1."""
    mean = embeddings.astype(np.float64).mean(0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9))


def tracks_of_people(
    found: Mapping[int, Sighting], directions: Mapping[int, NDArray[np.float64]], people: Sequence[NDArray[np.float64]], min_similarity: float
) -> tuple[frozenset[int], ...]:
    """Return for each of the people the tracks that are his: the most similar first, and none that is seen together with one of them.

    Args:
        found: the tracks.
        directions: `mean_direction` of each.
        people: such a direction for each.
        min_similarity: cosine from which on two directions are one person's. A track that is several people's by it is the most similar one's.
    """
    alike = [{number: float(direction @ person) for number, direction in directions.items()} for person in people]
    likest = {number: max(one[number] for one in alike) for number in directions}
    return tuple(_tracks_of_person(found, {n: one[n] for n in one if min_similarity <= one[n] == likest[n]}) for one in alike)


def _tracks_of_person(found: Mapping[int, Sighting], alike: Mapping[int, float]) -> frozenset[int]:
    chosen: set[int] = set()
    taken: set[int] = set()
    for number in sorted(alike, key=lambda number: (-alike[number], number)):
        if taken.isdisjoint(found[number].frames):
            chosen.add(number)
            taken.update(found[number].frames)
    return frozenset(chosen)
