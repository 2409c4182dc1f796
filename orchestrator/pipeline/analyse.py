"""The analysis pass: decode the source once, find the faces, and follow the speakers."""

from array import array
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import EmptyStream, InvalidOption, NoFaceFound, SpeakerNotFound, UnreadableMedia
from orchestrator.inference.detector import FaceDetector
from orchestrator.media.probe import VideoInfo
from orchestrator.media.reader import FrameIndex, VideoReader
from orchestrator.media.times import FrameClock, SourceTimes, source_times
from orchestrator.pipeline.detect import FoundFrame, Pace, find_faces
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.recognise import Recogniser
from orchestrator.pipeline.speakers import describe
from orchestrator.pipeline.tracks import Detections, TrackCache
from orchestrator.pipeline.watch import Watch
from preprocess.cuts import REACH
from preprocess.face_track import FaceTrack, Followed, follow, mark_strangers
from preprocess.sparse import in_whole_windows
from preprocess.speaker import FaceAt, LargestFace, SpeakerChoice

MAX_DAMAGED = 0.1
"""Share of packets that may fail to decode before the file counts as damaged."""

_VALUES_A_FACE = 15
"""Of a detector without landmarks, see `Detections`."""


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
    wait_for: Callable[[int], None] = lambda index: None
    """Returns when a frame's faces are known: at once, unless the analysis is under way (`UnderWay`)."""

    @property
    def faces_found(self) -> int:
        """How many frames show a face that is edited."""
        return int(np.any([track.is_present for track in self.tracks], axis=0).sum())


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a video a render shows at most, from its first frame."""

    until_s: Fraction | None
    """Frames that begin before this time; None for all there are, s."""
    max_frames: int
    """And at most so many."""

    def frame_count(self, pts: NDArray[np.int64], is_whole: bool, info: VideoInfo) -> int | None:
        """Return how many of the frames seen are shown, None if those seen are not enough to tell.

        Args:
            pts: (N,) time stamps of the frames seen.
            is_whole: whether the video has no further frame.
            info: of the video.
        """
        count = len(pts)
        if self.until_s is not None:
            times = times_of(pts, info)
            count = int(np.searchsorted(times.ticks, ceil(self.until_s / times.tick_s)))
        count = min(count, self.max_frames)
        return count if is_whole or count < len(pts) or count == self.max_frames else None


class Enough:
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
    recogniser: Recogniser | None = None,
    watch: Watch | None = None,
    known: "KnownFaces | None" = None,
) -> Analysis:
    """Find and follow the speakers' faces over as much of the video as a render shows.

    A speaker who is chosen by a later frame is looked for up to there. A `recogniser` knows the speakers in every shot. Faces that are `known`
    are not detected again.

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
    detections = known.load(extent, least) if known else None
    if detections is None:
        detections = _detect(info, detector, extent, least, on_progress, watch)
        if known:
            known.store(detections)
    else:
        shown_count = extent.frame_count(detections.pts, detections.is_whole, info) or 0
        StageClock("analyse", 0, on_progress).finish(max(shown_count, min(least, len(detections.pts))))
    return conclude(info, detections, extent, choices, least, recogniser=recogniser, watch=watch)


class KnownFaces:
    """What the cache has about a video, as a detector sees it."""

    def __init__(self, info: VideoInfo, detector: FaceDetector, tracks: TrackCache | None, watch: Watch) -> None:
        """Find the video's place; None has none."""
        self._info = info
        self._tracks = tracks
        # The detector sees other pictures of the same file where transparency is kept or HDR is tone-mapped.
        seen_as = f"{detector.identity}{' and what is transparent' if info.keeps_alpha else ''}{' in SDR' if info.tone_mapped_from else ''}"
        self._key = tracks.key(info.path, seen_as, watch.tick) if tracks else ""

    def load(self, extent: Extent, least: int = 0) -> Detections | None:
        """Return the faces of so much of the video, and of `least` frames; None where they are not known."""
        detections = self._tracks.load(self._key) if self._tracks else None
        if detections is None or extent.frame_count(detections.pts, detections.is_whole, self._info) is None:
            return None
        return detections if detections.is_whole or len(detections.pts) >= least else None

    def store(self, detections: Detections) -> None:
        """Keep what was found."""
        if self._tracks:
            self._tracks.store(self._key, detections)


def conclude(
    info: VideoInfo,
    detections: Detections,
    extent: Extent,
    choices: Sequence[SpeakerChoice],
    least: int = 0,
    *,
    recogniser: Recogniser | None = None,
    followed: Followed | None = None,
    watch: Watch,
) -> Analysis:
    """Follow the speakers through what was detected, unless that is done. See `analyse`."""
    shown_count = extent.frame_count(detections.pts, detections.is_whole, info)
    assert shown_count is not None
    is_whole = detections.is_whole and shown_count == len(detections.pts)
    detections = detections.first(max(shown_count, least))
    frame_count, damaged = len(detections.pts), detections.damaged_packet_count
    if not frame_count:
        raise EmptyStream(f"{info.path.name} has a video stream but not one frame of it decodes; convert it to MP4.")
    if damaged > MAX_DAMAGED * (frame_count + damaged):
        raise UnreadableMedia(f"{info.path.name} is damaged: {damaged} of its packets do not decode; copy or export it again.")
    if recogniser is not None:
        choices = recogniser.know(choices, info, detections, watch)
    faces = detections.by_frame()
    followed = followed or follow(faces, detections.changes, float(info.frame_rate), choices, watch.tick)
    for number in followed.missing:
        _refuse(choices[number], info, detections)
    shown = tuple(track.first(shown_count) for track in followed.tracks)
    if not any(track.is_present.any() for track in shown):
        raise NoFaceFound(
            f"No face was found in the {frame_count} frames of {info.path.name}; use a video in which the speaker's face is seen from the front "
            "and is not too small."
        )
    mark_strangers(shown, faces)
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
    """Decode the first frames, `least` of them if there are so many, and find the faces on each, with progress."""
    wanted = extent.max_frames if extent.until_s is None else min(extent.max_frames, round(extent.until_s * info.frame_rate))
    wanted = max(wanted, least)
    expected = min(wanted, info.expected_frame_count or wanted)
    clock = StageClock("analyse", expected, on_progress)
    detections = detect(info, detector, Enough(extent, least, info), lambda index, frame: clock.advance(min(index + 1, expected)), watch.tick, watch)
    clock.finish(min(len(detections.pts), wanted))
    return detections


def detect(
    info: VideoInfo,
    detector: FaceDetector,
    is_enough: Enough,
    on_frame: Callable[[int, FoundFrame], None],
    tick: Callable[[], None],
    watch: Watch,
    pace: Pace = lambda index, is_left: None,
    *,
    is_beside: bool = False,
) -> Detections:
    """Decode the first frames, until there are enough, and find the faces on each.

    Args:
        info: the video.
        detector: who finds them.
        is_enough: tells when.
        on_frame: called with the number of each frame and what was found there, in order.
        tick: called between any two packets; what it raises ends the work.
        watch: ends it, too.
        pace: see `find_faces`.
        is_beside: see `VideoReader`.
    """
    # Plain numbers: a video of hours has hundreds of thousands of frames, and objects would take several times the memory.
    pts, is_key, counts = array("q"), array("b"), array("q")
    faces, changes, values_a_face = array("f"), array("f"), _VALUES_A_FACE
    with VideoReader(info, tick, is_beside=is_beside, is_for_looking=True) as reader:
        with closing(find_faces(reader, info, detector, is_enough, watch, pace)) as found:
            for number, frame in enumerate(found):
                pts.append(frame.pts)
                is_key.append(frame.is_key)
                counts.append(len(frame.faces))
                values_a_face = frame.faces.shape[1]
                faces.frombytes(frame.faces.tobytes())
                changes.frombytes(frame.changes.tobytes())
                on_frame(number, frame)
        damaged_packet_count = reader.damaged_packet_count
    return Detections(
        pts=np.array(pts, np.int64),
        is_key=np.array(is_key, np.bool_),
        face_counts=np.array(counts, np.int64),
        faces=np.array(faces, np.float32).reshape(-1, values_a_face),
        changes=np.array(changes, np.float32).reshape(-1, REACH),
        is_whole=not is_enough.is_reached or len(pts) != in_whole_windows(len(pts), float(info.frame_rate)),
        damaged_packet_count=damaged_packet_count,
    )
