"""Which of the faces of a video speaks: chosen as frames come in, with a bounded look ahead."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.linking import MIN_OVERLAP, box_overlap
from preprocess.lookahead import LookAhead
from preprocess.smoothing import SeenFace, SeenFrame

CHOICE_S = 1.0
"""How much of a shot, from the first frame with a face on, decides who speaks in it, s."""

MIN_START_SCORE = 0.5
"""Detector score that a face has to reach at least once within `CHOICE_S` to be taken for one."""

MAX_AREA_RATIO = 4.0
"""How much smaller a face may be and still be the speaker come back; and how much larger one has to be, for `CHOICE_S`, to be the speaker instead."""

MAX_DISTANCE = 1.5
"""How far from a chosen speaker's face one in another shot may be to count as the same, in sides of its box."""

MAX_DISSOLVE_S = 1.5
"""Longest time for which the face of a shot and that of the one it dissolves into are seen together, s: 0.7 to 1 where a dissolve takes 1, 1.6
where it takes 2. Who was there for longer is a listener."""

SAME_PLACE = 0.3
"""Intersection over union with where a face came into sight above which it stays there; a moving camera takes it down to 0.4 in a second or two."""

_AROUND_BOX = 0.25
"""How far beside a face's box a point may lie that chooses it, in sides of the box."""


@dataclass(frozen=True, slots=True)
class LargestFace:
    """In each shot, the face that covers the largest area over `CHOICE_S`; then that one, whoever else comes by."""


@dataclass(frozen=True, slots=True)
class FaceAt:
    """The face at a point of a frame, through the whole video; in other shots, the one that is nearest to it in place and size.

    Where people can be told apart, such a choice becomes `KnownTracks` before anybody is followed.
    """

    frame: int
    x: float
    """px of the coded frame, as `y`."""
    y: float


@dataclass(frozen=True, slots=True)
class FaceBoxes:
    """In each frame the face in a given box; none where no box is given, or no face is in it."""

    boxes: tuple[tuple[float, float, float, float] | None, ...]
    """For each frame x1 y1 x2 y2, px of the coded frame; frames behind the last one have none."""


@dataclass(frozen=True, slots=True)
class KnownTracks:
    """In each frame the face whose track is one of a person's, as `preprocess.recognition` finds them; none where none is."""

    tracks: frozenset[int]


@dataclass(frozen=True, slots=True)
class EveryFace:
    """Whoever is seen."""


SpeakerChoice = LargestFace | FaceAt | FaceBoxes | KnownTracks | EveryFace


@dataclass(frozen=True, slots=True)
class ChosenFrame:
    """A frame and who speaks in it."""

    index: int
    starts_shot: bool
    faces: tuple[SeenFace | None, ...]
    """By slot. A choice of one person has one slot; every face has as many as were ever seen together."""


class Selection:
    """Follows a choice through the frames."""

    def __init__(self, choice: SpeakerChoice, frame_rate: float) -> None:
        count = max(1, round(CHOICE_S * frame_rate))
        self._choice = choice
        self._held: list[SeenFrame] = []
        self._followed = _Followed(count, round(MAX_DISSOLVE_S * frame_rate))
        # Where nobody is followed, of no frame it is sure who speaks.
        self._frames: LookAhead[SeenFrame] = LookAhead(1 if isinstance(choice, FaceBoxes | KnownTracks) else count, self._followed.is_sure)
        self._everyone = _Everyone()
        self.is_found = not isinstance(choice, FaceAt)
        """Whether the face that was asked for is there; false until the frame that shows it has come."""

    def push(self, frame: SeenFrame) -> Iterator[ChosenFrame]:
        """Take the next frame; yield those in which it is known now who speaks."""
        if self.is_found or not isinstance(self._choice, FaceAt):
            yield from self._decide(self._frames.push(frame))
            return
        self._held.append(frame)
        if frame.index == self._choice.frame and (wanted := face_at(frame, self._choice)):
            self.is_found = True
            self._followed.look_for(wanted, self._held)
            held, self._held = self._held, []
            for earlier in held:
                yield from self._decide(self._frames.push(earlier))

    def finish(self) -> Iterator[ChosenFrame]:
        """Yield what is left; where the face that was asked for is not there, nobody speaks."""
        for frame in self._held:
            yield ChosenFrame(frame.index, frame.starts_shot, (None,))
        yield from self._decide(self._frames.finish())

    def _decide(self, windows: Iterable[Sequence[SeenFrame]]) -> Iterator[ChosenFrame]:
        for window in windows:
            now = window[0]
            if isinstance(self._choice, EveryFace):
                faces = self._everyone.choose(window)
            elif isinstance(self._choice, FaceBoxes):
                box = self._choice.boxes[now.index] if now.index < len(self._choice.boxes) else None
                faces = (None if box is None else _face_in(now, box),)
            elif isinstance(self._choice, KnownTracks):
                faces = (next((face for number, face in now.faces.items() if number in self._choice.tracks), None),)
            else:
                faces = (self._followed.choose(window),)
            yield ChosenFrame(now.index, now.starts_shot, faces)


@dataclass(slots=True)
class _Other:
    """Somebody who was there while the speaker was."""

    first: SeenFace
    """Where he came into sight."""
    was_late: bool
    """Whether the speaker was there before."""
    frame_count: int = 0
    """For how many frames he was there."""


class _Followed:
    """One speaker, by the tracks that are his."""

    def __init__(self, count: int, dissolve_count: int) -> None:
        self._count, self._dissolve_count = count, dissolve_count
        self._wanted: SeenFace | None = None
        self._rivals: frozenset[int] = frozenset()
        """Tracks of people who were seen together with the one who was asked for."""
        self._begin()

    def _begin(self) -> None:
        self._track: int | None = None
        self._overtaken: list[int] = []
        self._others: dict[int, _Other] = {}
        """Those who were there while the speaker was, by track."""
        self._last = self._wanted
        self._area_sum, self._area_count = 0.0, 0

    def look_for(self, wanted: SeenFace, frames: Sequence[SeenFrame]) -> None:
        """Follow the person with a face, among those seen so far."""
        self._wanted = self._last = wanted
        together = (frame.faces for frame in frames if wanted.track in frame.faces)
        self._rivals = frozenset(number for faces in together for number in faces if number != wanted.track)

    def is_sure(self, now: SeenFrame) -> bool:
        """Tell whether what follows a frame cannot change who speaks in it: the speaker is there, and nobody who might take over."""
        if now.starts_shot or self._track not in now.faces:
            return False
        return self._wanted is not None or not self._larger_faces(now)

    def choose(self, window: Sequence[SeenFrame]) -> SeenFace | None:
        """Return the speaker in the first frame of a window of frames of one shot."""
        now = window[0]
        if now.starts_shot:
            self._begin()
        if self._wanted is not None and self._wanted.track in now.faces:
            self._track = self._wanted.track
        elif self._track is None or not any(self._track in frame.faces for frame in window):
            self._track = next((track for track in reversed(self._overtaken) if track in now.faces), None)
            if self._track is None:
                self._track = self._found(window)
        elif self._wanted is None and (larger := self._larger(window)) is not None:
            self._overtaken.append(self._track)
            self._track, self._area_sum, self._area_count = larger, 0.0, 0
        if self._track is None:
            return None
        self._note_others(now)
        face = now.faces.get(self._track)
        if face is not None:
            self._last = face
            self._area_sum, self._area_count = self._area_sum + face.area, self._area_count + 1
        return face

    def _found(self, window: Sequence[SeenFrame]) -> int | None:
        """Return the track of the speaker who comes, or comes back."""
        seen = {number: faces for number, faces in _by_track(window).items() if not self._is_other(faces[0]) and number not in self._rivals}
        seen = {number: faces for number, faces in seen.items() if max(face.score for face in faces) >= MIN_START_SCORE}
        if self._last is None:
            rank = {number: -sum(face.area * face.score for face in faces) for number, faces in seen.items()}
        else:
            rank = {number: cost for number, faces in seen.items() if (cost := self._unlikeness(faces)) is not None}
        if not any(number in window[0].faces for number in rank):
            return None
        return min(rank, key=lambda number: (rank[number], number))

    def _note_others(self, now: SeenFrame) -> None:
        """Remember who is there with the speaker; who comes where somebody was before is the same one, whatever his track."""
        for number, face in now.faces.items():
            if number != self._track:
                if number not in self._others:
                    before = (other for other in self._others.values() if _overlap(other.first, face) > MIN_OVERLAP)
                    self._others[number] = next(before, None) or _Other(face, was_late=self._area_count > 0)
                self._others[number].frame_count += 1

    def _is_other(self, face: SeenFace) -> bool:
        """Tell whether a face is that of somebody who was there with the speaker, and not of the one into whose shot his own dissolves.

        Such a face comes where it stays, shortly before the speaker's is gone; who walks in, or is panned to, moves.
        """
        other = self._others.get(face.track)
        if other is None:
            return False
        is_dissolve = other.was_late and other.frame_count <= self._dissolve_count and _overlap(other.first, face) > SAME_PLACE
        return self._wanted is not None or not is_dissolve

    def _unlikeness(self, faces: Sequence[SeenFace]) -> float | None:
        """Return how little a track looks like the speaker's by size and place; None if it cannot be the same."""
        assert self._last is not None
        area = float(np.mean([face.area for face in faces]))
        own = self._area_sum / self._area_count if self._area_count else self._last.area
        distance = _distance(faces[0], self._last) / np.sqrt(self._last.area)
        if MAX_AREA_RATIO * area < own:
            return None
        if self._wanted is not None and not self._area_count and (area > MAX_AREA_RATIO * own or distance > MAX_DISTANCE):
            return None
        return float(abs(np.log(area / self._last.area)) + distance)

    def _larger(self, window: Sequence[SeenFrame]) -> int | None:
        """Return who is so much larger, and stays, that he must be the speaker."""
        if len(window) < self._count:
            return None
        least = {
            number: min(frame.faces[number].area if number in frame.faces else 0.0 for frame in window) for number in self._larger_faces(window[0])
        }
        largest = max(least, key=lambda number: (least[number], -number), default=None)
        return largest if largest is not None and least[largest] > self._limit else None

    def _larger_faces(self, now: SeenFrame) -> list[int]:
        """Return the tracks of those who are so much larger in a frame that the speaker must be one of them, if he stays."""
        limit = self._limit
        return [number for number, face in now.faces.items() if face.area > limit and number != self._track and number not in self._overtaken]

    @property
    def _limit(self) -> float:
        """The area above which somebody else may be the speaker, px²."""
        return MAX_AREA_RATIO * self._area_sum / self._area_count if self._area_count else np.inf


class _Everyone:
    """Every face, in slots that are taken by one person after another."""

    def __init__(self) -> None:
        self._slots: list[int | None] = []

    def choose(self, window: Sequence[SeenFrame]) -> tuple[SeenFace | None, ...]:
        """Return the faces of the first frame of a window of frames of one shot."""
        now = window[0]
        self._slots = [track if track in now.faces else None for track in self._slots]
        certain = {number for number, faces in _by_track(window).items() if max(face.score for face in faces) >= MIN_START_SCORE}
        for number in sorted(now.faces):
            if number in certain and number not in self._slots:
                if None in self._slots:
                    self._slots[self._slots.index(None)] = number
                else:
                    self._slots.append(number)
        return tuple(None if track is None else now.faces[track] for track in self._slots)


def _by_track(window: Sequence[SeenFrame]) -> dict[int, list[SeenFace]]:
    tracks: dict[int, list[SeenFace]] = {}
    for frame in window:
        for number, face in frame.faces.items():
            tracks.setdefault(number, []).append(face)
    return tracks


def _centre(face: SeenFace) -> NDArray[np.float64]:
    return (face.box_xyxy[:2] + face.box_xyxy[2:]) / 2


def _overlap(one: SeenFace, other: SeenFace) -> float:
    return box_overlap(one.box_xyxy.tolist(), other.box_xyxy.tolist())


def _distance(one: SeenFace, other: SeenFace) -> float:
    return float(np.linalg.norm(_centre(one) - _centre(other)))


def face_at(frame: SeenFrame, choice: FaceAt) -> SeenFace | None:
    """Return the face of a frame that lies at the point of a choice, None if there is none."""
    point = np.array([choice.x, choice.y])

    def is_at(face: SeenFace) -> bool:
        margin = _AROUND_BOX * (face.box_xyxy[2:] - face.box_xyxy[:2])
        return bool((point >= face.box_xyxy[:2] - margin).all() and (point <= face.box_xyxy[2:] + margin).all())

    near = [face for face in frame.faces.values() if is_at(face)]
    return min(near, key=lambda face: float(np.linalg.norm(_centre(face) - point)), default=None)


def _face_in(frame: SeenFrame, box_xyxy: tuple[float, float, float, float]) -> SeenFace | None:
    if not frame.faces:
        return None
    overlap, best = max(((box_overlap(face.box_xyxy.tolist(), box_xyxy), face) for face in frame.faces.values()), key=lambda pair: pair[0])
    middle = _centre(best)
    is_inside = overlap > 0 and (middle >= box_xyxy[:2]).all() and (middle <= box_xyxy[2:]).all()
    return best if is_inside else None
