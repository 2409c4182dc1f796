"""Speakers through a video: from the detections of each frame to the faces that are edited, a bounded number of frames behind."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.cuts import REACH, CutFinder, Seam
from preprocess.linking import Linker
from preprocess.lookahead import LookAhead
from preprocess.pose import Presence, PresenceGate
from preprocess.smoothing import SeenFace, SeenFrame, TrackSmoother, max_gap_frames
from preprocess.speaker import CHOICE_S, ChosenFrame, LargestFace, Selection, SpeakerChoice

FADE_S = 0.12
"""Time over which an edit comes in where a face comes into sight, and goes out where one leaves, s. A cut and the video's ends need none."""


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A speaker in a frame."""

    speaker: int
    """Which of the choices he is."""
    slot: int
    """Which face of that choice; always 0 unless every face was chosen."""
    presence: Presence
    """`EDITABLE`, or why his face is left alone; never `NO_FACE`."""
    landmarks5: NDArray[np.float32]
    """(5, 2), px of the coded frame, smoothed."""
    outline: NDArray[np.float32]
    """(M, 2), the lower face's outline, as `landmarks5`; M is 0 where no landmarks were found."""
    strength: float
    """How much of the edit shows, above 0 to 1."""


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """A frame, final."""

    index: int
    starts_shot: bool
    faces: tuple[TrackedFace, ...]


@dataclass(frozen=True, slots=True)
class _Gated:
    index: int
    starts_shot: bool
    faces: dict[tuple[int, int], tuple[SeenFace, Presence]]


class SeenFrames:
    """From the detections of each frame to the faces in it by track, smoothed, `look_ahead` frames behind at most."""

    def __init__(self, frame_rate: float) -> None:
        self._cuts = CutFinder()
        self._waiting: deque[NDArray[np.float32]] = deque()
        """Detections of frames of which it is not known yet whether a shot begins with them."""
        self._linker = Linker(max_gap_frames(frame_rate))
        self._smoother = TrackSmoother(frame_rate)
        self.look_ahead = REACH - 1 + self._smoother.look_ahead
        self.usual_look_ahead = REACH - 1 + self._smoother.usual_look_ahead

    def push(self, rows: NDArray[np.float32], changes: NDArray[np.float32]) -> Iterator[SeenFrame]:
        """Take the next frame, see `Tracker.push`; yield the frames that are final now. To be run through to its end."""
        self._waiting.append(rows)
        for seam in self._cuts.push(changes):
            yield from self._link(seam)

    def finish(self) -> Iterator[SeenFrame]:
        """End the video: yield the frames that are left."""
        for seam in self._cuts.finish():
            yield from self._link(seam)
        yield from self._smoother.cut()

    def _link(self, seam: Seam) -> Iterator[SeenFrame]:
        rows = self._waiting.popleft()
        if seam != Seam.NONE:
            self._linker.cut()
            yield from self._smoother.cut(starts_shot=seam == Seam.CUT)
        yield from self._smoother.push(rows, self._linker.link(rows))


class Tracker:
    """Follows speakers: fed with one frame's detections after the other, hands out frames as soon as they can no longer change.

    What it says of a frame depends on the frames up to `look_ahead` behind it and on no others, so not on how they were handed over; a
    speaker chosen by a frame is the exception: nothing is final before that frame.
    """

    def __init__(self, frame_rate: float, choices: Sequence[SpeakerChoice] = (LargestFace(),)) -> None:
        """Begin with the first frame of a video.

        Args:
            frame_rate: frames a second.
            choices: the speakers. A face that several of them choose is the first one's.
        """
        self._seen = SeenFrames(frame_rate)
        self._selections = [Selection(choice, frame_rate) for choice in choices]
        self._chosen: list[deque[ChosenFrame]] = [deque() for _ in choices]
        self._gates: dict[tuple[int, int], PresenceGate] = {}
        self._fade_frames = round(FADE_S * frame_rate)
        self._window: LookAhead[_Gated] = LookAhead(self._fade_frames + 1)
        self._faded: dict[tuple[int, int], int] = {}
        """For each face, frames since it was last left alone in this shot."""
        self.look_ahead = self._seen.look_ahead + max(1, round(CHOICE_S * frame_rate)) + self._fade_frames
        """Frames that are known behind one before it is final, at most."""
        self.usual_look_ahead = self._seen.usual_look_ahead + self._fade_frames
        """As many where a speaker who was chosen stays in sight."""

    @property
    def missing(self) -> tuple[int, ...]:
        """The choices whose face was not found in the frame that should show it; of use when the video has ended."""
        return tuple(number for number, selection in enumerate(self._selections) if not selection.is_found)

    def push(self, rows: NDArray[np.float32], changes: NDArray[np.float32]) -> Iterator[TrackedFrame]:
        """Take the next frame; yield the frames that are final now. To be run through to its end.

        Args:
            rows: (n, 15 + 2 M) float32 x1 y1 x2 y2 score, five points and M points of an outline, px of the coded frame.
            changes: of the frame, see `ChangeMeter`.
        """
        self._select(self._seen.push(rows, changes))
        yield from self._give(self._gated())

    def finish(self) -> Iterator[TrackedFrame]:
        """End the video: yield the frames that are left."""
        self._select(self._seen.finish())
        for number, selection in enumerate(self._selections):
            self._chosen[number].extend(selection.finish())
        yield from self._give(self._gated())
        yield from self._faded_out(self._window.finish())

    def _select(self, frames: Iterable[SeenFrame]) -> None:
        for frame in frames:
            for number, selection in enumerate(self._selections):
                self._chosen[number].extend(selection.push(frame))

    def _gated(self) -> Iterator[_Gated]:
        """Yield the frames in which every choice is made, with what of their faces is edited."""
        while all(self._chosen):
            frames = [frames.popleft() for frames in self._chosen]
            if frames[0].starts_shot:
                self._gates = {}
            faces: dict[tuple[int, int], tuple[SeenFace, Presence]] = {}
            taken: set[int] = set()
            for speaker, frame in enumerate(frames):
                for slot, face in enumerate(frame.faces):
                    gate = self._gates.setdefault((speaker, slot), PresenceGate())
                    if face is None or face.track in taken:
                        gate.next(None)
                    else:
                        faces[speaker, slot] = face, gate.next(face.points[:5])
                        taken.add(face.track)
            yield _Gated(frames[0].index, frames[0].starts_shot, faces)

    def _give(self, frames: Iterable[_Gated]) -> Iterator[TrackedFrame]:
        for frame in frames:
            yield from self._faded_out(self._window.push(frame))

    def _faded_out(self, windows: Iterable[Sequence[_Gated]]) -> Iterator[TrackedFrame]:
        for window in windows:
            now = window[0]
            if now.starts_shot:
                self._faded = {}
            for key in set(self._faded) | {key for frame in window for key in frame.faces}:
                is_edited = key in now.faces and now.faces[key][1] == Presence.EDITABLE
                whole = self._fade_frames + 1
                self._faded[key] = min(self._faded.get(key, whole if now.starts_shot else 0) + 1, whole) if is_edited else 0
            yield TrackedFrame(now.index, now.starts_shot, tuple(self._tracked(key, window) for key in sorted(now.faces)))

    def _tracked(self, key: tuple[int, int], window: Sequence[_Gated]) -> TrackedFace:
        face, presence = window[0].faces[key]
        ahead = next((step for step, frame in enumerate(window) if key not in frame.faces or frame.faces[key][1] != Presence.EDITABLE), None)
        whole = self._fade_frames + 1
        strength = min(self._faded[key], whole if ahead is None else ahead) / whole
        return TrackedFace(*key, presence, face.points[:5], face.points[5:], strength)
