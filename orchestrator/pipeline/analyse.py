"""The analysis pass: decode the source once, find the faces, and follow the speakers."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import EmptyStream, InvalidOption, NoFaceFound, SpeakerNotFound, UnreadableMedia
from orchestrator.inference.faces import FaceDetector
from orchestrator.media.probe import VideoInfo
from orchestrator.media.reader import FrameIndex, VideoReader
from orchestrator.media.times import FrameClock, SourceTimes, source_times
from orchestrator.pipeline.detect import FoundFrame, find_faces
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.recognise import Person
from orchestrator.pipeline.speakers import describe
from orchestrator.pipeline.tracks import Detections, TrackCache
from orchestrator.pipeline.watch import Watch
from preprocess.cuts import REACH
from preprocess.face_track import FaceTrack, follow
from preprocess.sparse import window_frames
from preprocess.speaker import FaceAt, LargestFace, SpeakerChoice

MAX_DAMAGED = 0.1
"""Share of packets that may fail to decode before the file counts as damaged."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the analysis pass found out about a video."""

    index: FrameIndex
    times: SourceTimes
    is_whole: bool
    """Whether the video has no further frame."""
    tracks: tuple[FaceTrack, ...]
    cuts: tuple[int, ...]
    """Source frames with which a new shot begins."""
    damaged_packet_count: int


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a video a render shows at most, from its first frame."""

    until_s: Fraction | None
    """Frames that begin before this time; None for all there are, s."""
    max_frames: int
    """And at most so many."""

    def frame_count(self, detections: Detections, info: VideoInfo) -> int | None:
        """Return how many of the frames seen are shown, None if those seen are not enough to tell."""
        count = len(detections.pts)
        if self.until_s is not None:
            times = times_of(detections.pts, info)
            count = int(np.searchsorted(times.ticks, ceil(self.until_s / times.tick_s)))
        count = min(count, self.max_frames)
        return count if detections.is_whole or count < len(detections.pts) or count == self.max_frames else None


class _Enough:
    """Tells when as many frames have been seen as an extent takes, and `least` of them: when the first one behind it has come."""

    def __init__(self, extent: Extent, least: int, info: VideoInfo) -> None:
        self._extent = extent
        self._least = least
        self._clock = FrameClock(info.frame_rate, info.time_base, info.may_jump)
        self._until_ticks = None if extent.until_s is None else extent.until_s / self._clock.tick_s
        self.is_reached = False

    def __call__(self, index: int, pts: int) -> bool:
        is_behind = self._until_ticks is not None and self._clock.ticks(pts) >= self._until_ticks
        self.is_reached = self.is_reached or (index + 1 >= self._least and (is_behind or index + 1 >= self._extent.max_frames))
        return self.is_reached


def analyse(
    info: VideoInfo,
    detector: FaceDetector,
    extent: Extent,
    on_progress: OnProgress | None = None,
    choices: Sequence[SpeakerChoice] = (LargestFace(),),
    *,
    person: Person | None = None,
    watch: Watch | None = None,
    tracks: TrackCache | None = None,
) -> Analysis:
    """Find and follow the speakers' faces over as much of the video as a render shows.

    A speaker who is chosen by a later frame is looked for up to there. A `person` is looked for in place of the first choice.

    Raises:
        InvalidOption: a speaker is chosen by a frame that the video does not have.
        EmptyStream: the video decodes to no frame.
        UnreadableMedia: too many packets do not decode.
        NoFaceFound: no frame shows a usable face.
        SpeakerNotFound: the face that was chosen is not in the video, or not where it should be.
        InferenceError: Triton failed.
    """
    watch = watch or Watch()
    least = max([0, *(choice.frame + 1 for choice in choices if isinstance(choice, FaceAt))])
    # The detector sees other pictures of the same file where transparency is kept or HDR is tone-mapped.
    seen_as = f"{detector.identity}{' and what is transparent' if info.keeps_alpha else ''}{' in SDR' if info.tone_mapped_from else ''}"
    key = tracks.key(info.path, seen_as, watch.tick) if tracks else ""
    detections = tracks.load(key) if tracks else None
    shown_count = None if detections is None else extent.frame_count(detections, info)
    if detections is not None and shown_count is not None and (detections.is_whole or len(detections.pts) >= least):
        StageClock("analyse", 0, on_progress).finish(max(shown_count, min(least, len(detections.pts))))
    else:
        detections = _detect(info, detector, extent, least, on_progress, watch)
        shown_count = extent.frame_count(detections, info)
        assert shown_count is not None
        if tracks:
            tracks.store(key, detections)
    is_whole = detections.is_whole and shown_count == len(detections.pts)
    detections = detections.first(max(shown_count, least))
    frame_count, damaged = len(detections.pts), detections.damaged_packet_count
    if not frame_count:
        raise EmptyStream(f"{info.path.name} has a video stream but not one frame of it decodes; convert it to MP4.")
    if damaged > MAX_DAMAGED * (frame_count + damaged):
        raise UnreadableMedia(f"{info.path.name} is damaged: {damaged} of its packets do not decode; copy or export it again.")
    if person is not None:
        choices = [person.find(info, detections, watch), *choices[1:]]
    followed = follow(detections.by_frame(), detections.changes, float(info.frame_rate), choices, watch.tick)
    for number in followed.missing:
        _refuse(choices[number], info, detections)
    shown = tuple(track.first(shown_count) for track in followed.tracks)
    if not any(track.is_present.any() for track in shown):
        raise NoFaceFound(
            f"No face was found in the {frame_count} frames of {info.path.name}; use a video in which the speaker's face is seen from the front "
            "and is not too small."
        )
    index = FrameIndex(detections.pts[:shown_count], detections.is_key[:shown_count])
    cuts = tuple(cut for cut in followed.cuts if cut < shown_count)
    return Analysis(index, times_of(index.pts, info), is_whole, shown, cuts, damaged)


def times_of(pts: NDArray[np.int64], info: VideoInfo) -> SourceTimes:
    """Return the times of a video's first frames."""
    return source_times(pts, info.frame_rate, info.time_base, info.may_jump)


def _refuse(choice: SpeakerChoice, info: VideoInfo, detections: Detections) -> NoReturn:
    """Say why a speaker was not found."""
    assert isinstance(choice, FaceAt)
    if choice.frame >= len(detections.pts):
        raise InvalidOption(f"The speaker is chosen by frame {choice.frame}, and the video has {len(detections.pts)} frames, counted from 0.")
    faces = detections.by_frame()[choice.frame]
    centres = [describe(FaceAt(choice.frame, *((row[:2] + row[2:4]) / 2).tolist()), info).split(" ")[0] for row in faces]
    seen = f"the faces there are at {', '.join(centres)}" if centres else "there is no face in that frame"
    raise SpeakerNotFound(f"No face is at {describe(choice, info)}: {seen}. Give a point on the speaker's face, or another frame.")


def _detect(info: VideoInfo, detector: FaceDetector, extent: Extent, least: int, on_progress: OnProgress | None, watch: Watch) -> Detections:
    """Decode the first frames, `least` of them if there are so many, and find the faces on each."""
    wanted = extent.max_frames if extent.until_s is None else min(extent.max_frames, round(extent.until_s * info.frame_rate))
    wanted = max(wanted, least)
    expected = min(wanted, info.expected_frame_count or wanted)
    is_enough = _Enough(extent, least, info)
    clock = StageClock("analyse", expected, on_progress)
    frames: list[FoundFrame] = []
    with VideoReader(info, watch.tick) as reader:
        with closing(find_faces(reader, info, detector, is_enough, watch)) as found:
            for frame in found:
                frames.append(frame)
                clock.advance(min(len(frames), expected))
        damaged_packet_count = reader.damaged_packet_count
    clock.finish(min(len(frames), wanted))
    faces = [frame.faces for frame in frames]
    return Detections(
        pts=np.array([frame.pts for frame in frames], np.int64),
        is_key=np.array([frame.is_key for frame in frames], np.bool_),
        face_counts=np.array([len(rows) for rows in faces], np.int64),
        faces=np.concatenate(faces) if faces else np.empty((0, 15), np.float32),
        changes=np.stack([frame.changes for frame in frames]) if frames else np.empty((0, REACH), np.float32),
        is_whole=not is_enough.is_reached or len(frames) % window_frames(float(info.frame_rate)) != 0,
        damaged_packet_count=damaged_packet_count,
    )
