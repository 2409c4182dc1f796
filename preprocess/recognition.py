"""Which tracks of a video are one person's: a few of each track's best frames, compared with a picture of the person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from preprocess.smoothing import SeenFace, SeenFrame
from preprocess.speaker import CHOICE_S, MIN_START_SCORE

BEST_FRAMES = 3
"""Frames of a track that are compared."""

MIN_SIMILARITY = 0.3
"""Cosine of the angle between a track and the picture, from which on both show one person."""


@dataclass(slots=True)
class Sighting:
    """A track: when it is seen, and its best frames."""

    frames: list[int] = field(default_factory=list)
    faces: list[SeenFace] = field(default_factory=list)
    """Of the first `CHOICE_S` of the track."""

    @property
    def best(self) -> list[tuple[int, SeenFace]]:
        """The frames, rising, in which the face is largest and surest, at most `BEST_FRAMES`."""
        seen = zip(self.frames, self.faces, strict=False)
        ranked = sorted(seen, key=lambda one: (-one[1].area * one[1].score, one[0]))
        return sorted(ranked[:BEST_FRAMES], key=lambda one: one[0])


def sightings(frames: Sequence[SeenFrame], frame_rate: float) -> dict[int, Sighting]:
    """Return the tracks of a video's frames by their number, but for those that were never surely a face."""
    count = max(1, round(CHOICE_S * frame_rate))
    found: dict[int, Sighting] = {}
    for frame in frames:
        for number, face in frame.faces.items():
            sighting = found.setdefault(number, Sighting())
            sighting.frames.append(frame.index)
            if len(sighting.faces) < count:
                sighting.faces.append(face)
    return {number: one for number, one in found.items() if max(face.score for face in one.faces) >= MIN_START_SCORE}


def similarity(embeddings: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Return how alike the mean of (n, D) embeddings and a (D,) reference of length 1 are, -1 to 1."""
    mean = embeddings.astype(np.float64).mean(0)
    return float(mean @ reference.astype(np.float64) / max(float(np.linalg.norm(mean)), 1e-9))


def tracks_of_person(found: Mapping[int, Sighting], alike: Mapping[int, float]) -> frozenset[int]:
    """Return the tracks that are the person's: the most similar first, and none that is seen together with one of them."""
    chosen: set[int] = set()
    taken: set[int] = set()
    for number in sorted(alike, key=lambda number: (-alike[number], number)):
        if alike[number] >= MIN_SIMILARITY and taken.isdisjoint(found[number].frames):
            chosen.add(number)
            taken.update(found[number].frames)
    return frozenset(chosen)
