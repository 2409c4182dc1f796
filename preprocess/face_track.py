"""Whole tracks: a face's landmarks over all frames of a video, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.pose import Presence
from preprocess.speaker import LargestFace, SpeakerChoice
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
) -> Followed:
    """Follow the speakers of a whole video.

    Args:
        detections: for each frame (n, 15 + 2 M) float32 rows, see `Tracker.push`.
        changes: for each frame (REACH,) float32, see `ChangeMeter`.
        frame_rate: frames a second.
        choices: see `Tracker`.
    """
    tracker = Tracker(frame_rate, choices)
    frames: list[TrackedFrame] = []
    for rows, change in zip(detections, changes, strict=True):
        frames.extend(tracker.push(rows, change))
    frames.extend(tracker.finish())
    cuts = tuple(frame.index for frame in frames if frame.starts_shot and frame.index)
    return Followed(collect(frames, len(choices)), cuts, tracker.missing)


def collect(frames: Sequence[TrackedFrame], speaker_count: int) -> tuple[FaceTrack, ...]:
    """Return the tracks that frames, all of a video, show: at least one for each speaker."""
    points = next((len(face.outline) for frame in frames for face in frame.faces), 0)
    tracks: dict[tuple[int, int], FaceTrack] = {}

    def track_of(speaker: int, slot: int) -> FaceTrack:
        count = len(frames)
        if (speaker, slot) not in tracks:
            tracks[speaker, slot] = FaceTrack(
                speaker,
                np.zeros((count, 5, 2), np.float32),
                np.zeros((count, points, 2), np.float32),
                np.zeros(count, np.float32),
                np.full(count, Presence.NO_FACE, np.uint8),
            )
        return tracks[speaker, slot]

    for speaker in range(speaker_count):
        track_of(speaker, 0)
    for frame in frames:
        for face in frame.faces:
            track = track_of(face.speaker, face.slot)
            track.presence[frame.index] = face.presence
            if face.presence == Presence.EDITABLE:
                track.landmarks5[frame.index], track.outline[frame.index] = face.landmarks5, face.outline
                track.strength[frame.index] = face.strength
    return tuple(tracks[key] for key in sorted(tracks))
