"""Whole tracks: a face's landmarks over all frames of a video, as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.pose import Presence
from preprocess.speaker import MIN_START_SCORE, LargestFace, SpeakerChoice
from preprocess.track import TrackedFrame, Tracker


@dataclass(frozen=True, slots=True)
class FaceTrack:
    """One face's landmarks over the frames of a video."""

    speaker: int
    """Which of the choices it is."""
    landmarks5: NDArray[np.float32]
    """(N, 5, 2), px of the coded frame, smoothed; zeros where `is_present` is false."""
    outline: NDArray[np.float32]
    """(N, M, 2), the lower face's outline, as `landmarks5`; M is 0 where no landmarks were found."""
    strength: NDArray[np.float32]
    """(N,) how much of the edit shows, 0..1; above 0 where `is_present` is true."""
    presence: NDArray[np.uint8]
    """(N,) `Presence`."""

    def __len__(self) -> int:
        return len(self.presence)

    def first(self, count: int) -> "FaceTrack":
        """Return the track over the first frames."""
        return FaceTrack(self.speaker, self.landmarks5[:count], self.outline[:count], self.strength[:count], self.presence[:count])

    @property
    def is_present(self) -> NDArray[np.bool_]:
        """(N,) whether the face can be edited in that frame."""
        return np.asarray(self.presence == Presence.EDITABLE)

    def is_present_in(self, frame: int) -> bool:
        """Tell the same of one frame, without looking at all the others."""
        return bool(self.presence[frame] == Presence.EDITABLE)


@dataclass(frozen=True, slots=True)
class Followed:
    """What was made out of a whole video's detections."""

    tracks: tuple[FaceTrack, ...]
    """At least one for each choice; of every face, as many as are seen together."""
    cuts: tuple[int, ...]
    """Frames with which a new shot begins, but for the first one."""
    missing: tuple[int, ...]
    """Choices whose face is not in the frame that should show it."""


def follow(
    detections: Sequence[NDArray[np.float32]],
    changes: NDArray[np.float32],
    frame_rate: float,
    choices: Sequence[SpeakerChoice] = (LargestFace(),),
    tick: Callable[[], None] = lambda: None,
) -> Followed:
    """Follow the speakers of a whole video.

    Args:
        detections: for each frame (n, 15 + 2 M) float32 rows, see `Tracker.push`.
        changes: for each frame (REACH,) float32, see `ChangeMeter`.
        frame_rate: frames a second.
        choices: see `Tracker`.
        tick: called after each frame; what it raises ends the work.
    """
    tracker = Tracker(frame_rate, choices)
    collected = TrackCollector(len(detections), len(choices))
    for rows, change in zip(detections, changes, strict=True):
        for frame in tracker.push(rows, change):
            collected.add(frame)
        tick()
    for frame in tracker.finish():
        collected.add(frame)
    return Followed(collected.tracks(), tuple(collected.cuts), tracker.missing)


def mark_strangers(tracks: Sequence[FaceTrack], detections: Sequence[NDArray[np.float32]]) -> None:
    """Tell frames in which there are faces, and none is the speaker's, from those without any, in place.

    Args:
        tracks: over the first frames of a video.
        detections: for each frame of it (n, 15 + 2 M) float32 rows, see `Tracker.push`.
    """
    somebody = np.array([bool((rows[:, 4] >= MIN_START_SCORE).any()) for rows in detections], np.bool_)
    for track in tracks:
        track.presence[somebody[: len(track)] & (track.presence == Presence.NO_FACE)] = Presence.NOT_THE_SPEAKER


class TrackCollector:
    """Tracks as they grow, frame by frame."""

    def __init__(self, frame_count: int, speaker_count: int) -> None:
        """Begin with tracks that show nobody, one for each speaker."""
        self._frame_count = frame_count
        self._tracks: dict[tuple[int, int], FaceTrack] = {}
        self._outline_points = 0
        self.cuts: list[int] = []
        for speaker in range(speaker_count):
            self._track(speaker, 0)

    def add(self, frame: TrackedFrame) -> None:
        """Take the next frame."""
        if frame.starts_shot and frame.index:
            self.cuts.append(frame.index)
        for face in frame.faces:
            self._outline_points = len(face.outline)
            track = self._track(face.speaker, face.slot)
            track.presence[frame.index] = face.presence
            if face.presence == Presence.EDITABLE:
                track.landmarks5[frame.index], track.outline[frame.index] = face.landmarks5, face.outline
                track.strength[frame.index] = face.strength

    def tracks(self) -> tuple[FaceTrack, ...]:
        """Return the tracks, at least one for each speaker. What is added later is seen in those on which somebody was seen."""
        return tuple(self._track(*key) for key in sorted(self._tracks))

    def _track(self, speaker: int, slot: int) -> FaceTrack:
        """Return a track; one that nobody was seen on yet does not know how many points an outline has."""
        count, track = self._frame_count, self._tracks.get((speaker, slot))
        if track is None or track.outline.shape[1] != self._outline_points:
            track = FaceTrack(
                speaker,
                np.zeros((count, 5, 2), np.float32),
                np.zeros((count, self._outline_points, 2), np.float32),
                np.zeros(count, np.float32),
                np.full(count, Presence.NO_FACE, np.uint8),
            )
            self._tracks[speaker, slot] = track
        return track
