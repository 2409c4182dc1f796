"""The analysis pass: decode the source once, find the faces, and follow the speakers."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from orchestrator.errors import EmptyStream, InvalidOption, NoFaceFound, UnreadableMedia
from orchestrator.inference.faces import FaceDetector
from orchestrator.media.probe import VideoInfo
from orchestrator.media.reader import FrameIndex, VideoReader
from orchestrator.pipeline.detect import FoundFrame, find_faces
from orchestrator.pipeline.progress import OnProgress, StageClock
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
    tracks: tuple[FaceTrack, ...]
    cuts: tuple[int, ...]
    """Source frames with which a new shot begins."""
    damaged_packet_count: int


def analyse(
    info: VideoInfo,
    detector: FaceDetector,
    max_frames: int,
    on_progress: OnProgress | None = None,
    choices: Sequence[SpeakerChoice] = (LargestFace(),),
    *,
    watch: Watch | None = None,
    tracks: TrackCache | None = None,
) -> Analysis:
    """Find and follow the speakers' faces over the first `max_frames` frames.

    A speaker who is chosen by a later frame is looked for up to there.

    Raises:
        InvalidOption: a speaker is chosen by a frame that the video does not have.
        EmptyStream: the video decodes to no frame.
        UnreadableMedia: too many packets do not decode.
        NoFaceFound: no frame shows a usable face, or the one that was chosen is not where it should be.
        InferenceError: Triton failed.
    """
    watch = watch or Watch()
    looked_at = max([max_frames, *(choice.frame + 1 for choice in choices if isinstance(choice, FaceAt))])
    key = tracks.key(info.path, f"{detector.identity}{' and what is transparent' if info.keeps_alpha else ''}", watch.tick) if tracks else ""
    detections = tracks.load(key) if tracks else None
    if detections is not None and detections.covers(looked_at):
        StageClock("analyse", 0, on_progress).finish(len(detections.first(looked_at).pts))
    else:
        detections = _detect(info, detector, looked_at, on_progress, watch)
        if tracks:
            tracks.store(key, detections)
    detections = detections.first(looked_at)
    frame_count, damaged = len(detections.pts), detections.damaged_packet_count
    if not frame_count:
        raise EmptyStream(f"{info.path.name} has a video stream but not one frame of it decodes; convert it to MP4.")
    if damaged > MAX_DAMAGED * (frame_count + damaged):
        raise UnreadableMedia(f"{info.path.name} is damaged: {damaged} of its packets do not decode; copy or export it again.")
    followed = follow(detections.by_frame(), detections.changes, float(info.frame_rate), choices)
    for number in followed.missing:
        _refuse(choices[number], info, detections)
    shown = tuple(track.first(max_frames) for track in followed.tracks)
    if not any(track.is_present.any() for track in shown):
        raise NoFaceFound(
            f"No face was found in the {frame_count} frames of {info.path.name}; use a video in which the speaker's face is seen from the front "
            "and is not too small."
        )
    index = FrameIndex(detections.pts[:max_frames], detections.is_key[:max_frames])
    return Analysis(index, shown, tuple(cut for cut in followed.cuts if cut < max_frames), damaged)


def _refuse(choice: SpeakerChoice, info: VideoInfo, detections: Detections) -> NoReturn:
    """Say why a speaker was not found."""
    assert isinstance(choice, FaceAt)
    if choice.frame >= len(detections.pts):
        raise InvalidOption(f"The speaker is chosen by frame {choice.frame}, and the video has {len(detections.pts)} frames, counted from 0.")
    faces = detections.by_frame()[choice.frame]
    centres = [describe(FaceAt(choice.frame, *((row[:2] + row[2:4]) / 2).tolist()), info).split(" ")[0] for row in faces]
    seen = f"the faces there are at {', '.join(centres)}" if centres else "there is no face in that frame"
    raise NoFaceFound(f"No face is at {describe(choice, info)}: {seen}. Give a point on the speaker's face, or another frame.")


def _detect(info: VideoInfo, detector: FaceDetector, max_frames: int, on_progress: OnProgress | None, watch: Watch) -> Detections:
    """Decode the first frames and find the faces on each."""
    expected = min(max_frames, info.expected_frame_count or max_frames)
    clock = StageClock("analyse", expected, on_progress)
    frames: list[FoundFrame] = []
    with VideoReader(info, watch.tick) as reader:
        with closing(find_faces(reader, info, detector, max_frames, watch)) as found:
            for frame in found:
                frames.append(frame)
                clock.advance(min(len(frames), expected))
        damaged_packet_count = reader.damaged_packet_count
    clock.finish(min(len(frames), max_frames))
    faces = [frame.faces for frame in frames]
    return Detections(
        pts=np.array([frame.pts for frame in frames], np.int64),
        is_key=np.array([frame.is_key for frame in frames], np.bool_),
        face_counts=np.array([len(rows) for rows in faces], np.int64),
        faces=np.concatenate(faces) if faces else np.empty((0, 15), np.float32),
        changes=np.stack([frame.changes for frame in frames]) if frames else np.empty((0, REACH), np.float32),
        is_whole=len(frames) < max_frames or len(frames) % window_frames(float(info.frame_rate)) != 0,
        damaged_packet_count=damaged_packet_count,
    )
