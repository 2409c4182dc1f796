"""What a render did, for people and programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.usage import ModelUse
from preprocess.face_track import FaceTrack
from preprocess.pose import Presence


@dataclass(frozen=True, slots=True)
class RenderReport:
    """A finished render."""

    output: str
    frame_count: int
    frame_rate: str
    """Exact, as a fraction of Hz."""
    size_wh: tuple[int, int]
    """As players show it, px."""
    duration_s: float
    audio_duration_s: float
    source_frame_count: int
    """Source frames that were analysed."""
    face_frame_count: int
    """Those among them that show a speaker's face which can be edited."""
    passed_through: tuple[tuple[int, int], ...]
    """Output frames that are the source's own, as ranges [first, behind the last): no face there, or the mouth at rest."""
    copied: tuple[tuple[int, int], ...]
    """Those among them that are the source's own packets, not encoded again, as ranges [first, behind the last)."""
    passed_through_because: Mapping[str, tuple[tuple[int, int], ...]]
    """The same ranges by reason: `after_speech` or `outside_segments`, `at_rest` (the mouth closed in silence), and of faces that are left alone
    `no_face`, `not_the_speaker`, `too_small` and `profile`."""
    speakers: tuple["SpeakerReport", ...]
    cuts: tuple[int, ...]
    """Source frames with which a new shot begins."""
    stage_s: Mapping[str, float]
    frames_per_s: float
    """Speed of the render stage."""
    encoding: str
    """How pictures and sound are stored: codec, encoder, pixel format, container."""
    models: Mapping[str, ModelUse]
    """Triton's own count of what each role did meanwhile."""
    speech_s: float | None
    """How long somebody speaks, s, added up over several speakers' tracks; None where voice activity was not asked."""
    notes: tuple[str, ...]
    """Sentences about how the source was treated."""


@dataclass(frozen=True, slots=True)
class SpeakerReport:
    """A face that was followed, in frames of the source."""

    speaker: int
    """Which of those asked for; of every face, all have the same number."""
    seen: tuple[tuple[int, int], ...]
    """Where it can be edited, as ranges [first, behind the last)."""
    left_alone: Mapping[str, tuple[tuple[int, int], ...]]
    """Where not, by reason: `no_face`, `not_the_speaker` (faces are seen, and none is his), `too_small`, `profile`."""


_LEFT_ALONE = (Presence.NO_FACE, Presence.NOT_THE_SPEAKER, Presence.TOO_SMALL, Presence.PROFILE)
_REASON_BY_RANK = (*(presence.name.lower() for presence in _LEFT_ALONE), "at_rest")
_RANK = np.array([(*_LEFT_ALONE, Presence.EDITABLE).index(presence) for presence in sorted(Presence)], np.uint8)


def speaker_report(track: FaceTrack) -> SpeakerReport:
    """Return what is to be said of a track."""
    return SpeakerReport(
        speaker=track.speaker,
        seen=frame_ranges(track.is_present),
        left_alone={
            presence.name.lower(): frame_ranges(track.presence == presence) for presence in _LEFT_ALONE if (track.presence == presence).any()
        },
    )


def reasons_of(
    edited: NDArray[np.bool_], source: NDArray[np.int64], speaking: NDArray[np.bool_], tracks: Sequence[FaceTrack], *, is_cut_up: bool = False
) -> Mapping[str, tuple[tuple[int, int], ...]]:
    """Return why output frames are the source's own, as ranges by reason.

    Args:
        edited: (n,) whether an output frame was edited.
        source: (n,) the source frame that it shows.
        speaking: (V, n) whether each voice may speak in it.
        tracks: the speakers' tracks over the source frames.
        is_cut_up: whether speech was asked for in segments.
    """
    rank = np.zeros(len(edited), np.uint8)
    for track in tracks:  # of several faces, the one that comes nearest to being edited gives the reason
        rank = np.maximum(rank, np.where(speaking[track.speaker], _RANK[track.presence[source]], 0))
    is_beside = ~speaking.any(0)
    found = {name: frame_ranges(~edited & ~is_beside & (rank == at)) for at, name in enumerate(_REASON_BY_RANK)}
    found["outside_segments" if is_cut_up else "after_speech"] = frame_ranges(~edited & is_beside)
    return {name: ranges for name, ranges in found.items() if ranges}


def frame_ranges(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """Return where (n,) flags are set, as ranges [first, behind the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple((int(first), int(stop)) for first, stop in edges.reshape(-1, 2))
