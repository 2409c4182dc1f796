"""The analysis pass: decode the source once, find faces on every frame, and follow the speaker."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import EmptyStream, NoFaceFound, UnreadableMedia
from orchestrator.inference.faces import FaceDetector
from orchestrator.media.probe import VideoInfo
from orchestrator.media.reader import FrameIndex, VideoReader
from orchestrator.media.times import MISSING_PTS, FrameClock, SourceTimes, source_times
from orchestrator.pipeline.concurrency import in_flight, prefetch
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.tracks import Detections, TrackCache
from orchestrator.pipeline.watch import Watch
from preprocess.letterbox import Letterbox
from preprocess.track import FaceTrack, choose_speaker

REQUESTS_IN_FLIGHT = 3
"""Detector requests awaited at a time: one computing, one queued in Triton, one on its way."""

MAX_DAMAGED = 0.1
"""Share of packets that may fail to decode before the file counts as damaged."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the analysis pass found out about a video."""

    index: FrameIndex
    times: SourceTimes
    is_whole: bool
    """Whether the video has no further frame."""
    face_track: FaceTrack
    damaged_packet_count: int


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a video a render looks at, from its first frame."""

    until_s: Fraction | None
    """Frames that begin before this time; None for all there are, s."""
    max_frames: int
    """And at most so many."""

    def frame_count(self, detections: Detections, info: VideoInfo) -> int | None:
        """Return how many of the frames seen are looked at, None if those seen are not enough to tell."""
        count = len(detections.pts)
        if self.until_s is not None:
            times = times_of(detections.pts, info)
            count = int(np.searchsorted(times.ticks, ceil(self.until_s / times.tick_s)))
        count = min(count, self.max_frames)
        return count if detections.is_whole or count < len(detections.pts) or count == self.max_frames else None


@dataclass(frozen=True, slots=True)
class _Batch:
    images: NDArray[np.uint8]
    """(n, S, S, 3) RGB, letterboxed."""
    pts: list[int]
    is_key: list[bool]
    is_last: bool
    """Whether no further frame is looked at though there may be one."""


def analyse(
    info: VideoInfo,
    detector: FaceDetector,
    extent: Extent,
    on_progress: OnProgress | None = None,
    *,
    watch: Watch | None = None,
    tracks: TrackCache | None = None,
) -> Analysis:
    """Find and follow the speaker's face over a part of the video.

    Raises:
        EmptyStream: the video decodes to no frame.
        UnreadableMedia: too many packets do not decode.
        NoFaceFound: no frame shows a usable face.
        InferenceError: Triton failed.
    """
    watch = watch or Watch()
    key = tracks.key(info.path, detector.identity, watch.tick) if tracks else ""
    detections = tracks.load(key) if tracks else None
    frame_count = None if detections is None else extent.frame_count(detections, info)
    if detections is None or frame_count is None:
        detections = _detect(info, detector, extent, on_progress, watch)
        frame_count = extent.frame_count(detections, info)
        assert frame_count is not None
        if tracks:
            tracks.store(key, detections)
    else:
        StageClock("analyse", 0, on_progress).finish(frame_count)
    detections, damaged = detections.first(frame_count), detections.damaged_packet_count
    if not frame_count:
        raise EmptyStream(f"{info.path.name} has a video stream but not one frame of it decodes; convert it to MP4.")
    if damaged > MAX_DAMAGED * (frame_count + damaged):
        raise UnreadableMedia(f"{info.path.name} is damaged: {damaged} of its packets do not decode; copy or export it again.")
    track = choose_speaker(detections.by_frame(), float(info.frame_rate))
    if not track.is_present.any():
        raise NoFaceFound(
            f"No face was found in the {frame_count} frames of {info.path.name}; use a video in which the speaker's face is seen from the front "
            "and is not too small."
        )
    return Analysis(FrameIndex(detections.pts, detections.is_key), times_of(detections.pts, info), detections.is_whole, track, damaged)


def _detect(info: VideoInfo, detector: FaceDetector, extent: Extent, on_progress: OnProgress | None, watch: Watch) -> Detections:
    """Decode the first frames and find the faces on each."""
    box = Letterbox.fit(info.working_size_wh, info.rotation_deg, detector.size_px)
    wanted = extent.max_frames if extent.until_s is None else min(extent.max_frames, round(extent.until_s * info.frame_rate))
    expected = min(wanted, info.expected_frame_count or wanted)
    clock = StageClock("analyse", expected, on_progress)
    pts: list[int] = []
    is_key: list[bool] = []
    faces: list[NDArray[np.float32]] = []
    is_whole = True
    with VideoReader(info, watch.tick) as reader:
        batches = prefetch(_batches(reader, box, detector.batch_size, extent, info), 2, "analyse-decode", watch)
        with closing(batches), closing(in_flight(lambda batch: detector.detect(batch.images), batches, REQUESTS_IN_FLIGHT, watch)) as results:
            for batch, found in results:
                pts.extend(batch.pts)
                is_key.extend(batch.is_key)
                is_whole = not batch.is_last
                faces.extend(_to_frame(rows, box) for rows in found)
                clock.advance(min(len(pts), expected))
        damaged_packet_count = reader.damaged_packet_count
    clock.finish(len(pts))
    return Detections(
        pts=np.array(pts, np.int64),
        is_key=np.array(is_key, np.bool_),
        face_counts=np.array([len(rows) for rows in faces], np.int64),
        faces=np.concatenate(faces) if faces else np.empty((0, 15), np.float32),
        is_whole=is_whole,
        damaged_packet_count=damaged_packet_count,
    )


def _batches(reader: VideoReader, box: Letterbox, batch_size: int, extent: Extent, info: VideoInfo) -> Generator[_Batch]:
    images: list[NDArray[np.uint8]] = []
    pts: list[int] = []
    is_key: list[bool] = []
    clock = FrameClock(info.frame_rate, info.time_base, info.may_jump)
    until = None if extent.until_s is None else extent.until_s / clock.tick_s
    for frame in reader.decode_from_start():
        images.append(box.place(frame.scaled_rgb(box.scaled_coded_wh)))
        pts.append(MISSING_PTS if frame.picture.pts is None else frame.picture.pts)
        is_key.append(frame.is_key)
        # The first frame behind the extent is looked at too: it shows that those before are all there are inside.
        is_last = frame.index + 1 >= extent.max_frames or (until is not None and clock.ticks(pts[-1]) >= until)
        if len(images) == batch_size or is_last:
            yield _Batch(np.stack(images), pts, is_key, is_last)
            images, pts, is_key = [], [], []
        if is_last:
            return
    if images:
        yield _Batch(np.stack(images), pts, is_key, False)


def times_of(pts: NDArray[np.int64], info: VideoInfo) -> SourceTimes:
    """Return the times of a video's frames."""
    return source_times(pts, info.frame_rate, info.time_base, info.may_jump)


def _to_frame(rows: NDArray[np.float32], box: Letterbox) -> NDArray[np.float32]:
    """Return the real rows of one picture's detections, (n, 15 + 2 M), in px of the coded frame."""
    rows = rows[rows[:, 4] > 0]
    corners = box.points_to_frame(rows[:, :4].reshape(-1, 2, 2))
    points = box.points_to_frame(rows[:, 5:].reshape(len(rows), (rows.shape[1] - 5) // 2, 2))  # -1 cannot be told where no row is real
    # Turning the frame may swap which corner is the upper left one.
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    return np.concatenate([boxes, rows[:, 4:5], points.reshape(len(rows), rows.shape[1] - 5)], axis=1).astype(np.float32)
