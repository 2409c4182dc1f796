"""What a media file is, by its header and first frames, and whether it is small enough to be worked on."""

import math
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer

from orchestrator.errors import EmptyStream, LimitExceeded, MissingStream
from orchestrator.media.audio import read_samples
from orchestrator.media.container import format_of, open_media
from orchestrator.media.probe import STILL_FRAME_RATE, probe_video
from orchestrator.media.streams import picture_streams
from preprocess.mel import SAMPLE_RATE_HZ

MediaKind = Literal["VIDEO", "AUDIO", "IMAGE"]


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """The largest media that are accepted."""

    max_duration_s: float
    max_pixels: int
    max_frames: int


UNLIMITED = MediaLimits(math.inf, sys.maxsize, sys.maxsize)
"""For files of one's own."""


@dataclass(frozen=True, slots=True)
class MediaSummary:
    """A media file, as far as its header and first frames tell."""

    kind: MediaKind
    format: str
    """FFmpeg's name of the container: mp4 for its whole family, else the first where it has several."""
    duration_s: Fraction | None
    """By the header, which may be wrong; None where it says nothing, and for an image."""
    size_wh: tuple[int, int] | None = None
    frame_rate: Fraction | None = None
    has_audio: bool = False


KNOWN_FILES = 1024
"""So many files' summaries are kept: the hundreds of requests of a batch name the same few assets, and are checked twice."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the inputs of a render are, by their headers."""

    video_s: Fraction
    """0 where the header does not say, and of a still."""
    speech_s: Fraction
    """Of several that sound together, the longest; 0 where the headers do not say."""
    frame_rate: Fraction
    """Of the video, Hz."""


def summarise(path: Path) -> MediaSummary:
    """Read what a media file is; of one that was looked at lately, and has not changed, it is known.

    Raises:
        InputError: the file is missing, not media, damaged, or has neither picture nor sound.
    """
    status = path.stat() if path.is_file() else None
    return _summarise(path, None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(KNOWN_FILES)
def _summarise(path: Path, _mark: tuple[int, int, int] | None) -> MediaSummary:
    with open_media(path) as container:
        names = format_of(container).split(",")
        name = "mp4" if "mp4" in names else names[0]
        has_audio = bool(container.streams.audio)
        duration_s = _declared_duration_s(container)
        if not picture_streams(container):
            if not has_audio:
                raise MissingStream(f"{path.name} has neither video nor audio in it; send another file.")
            with closing(read_samples(path, "mono", SAMPLE_RATE_HZ)) as pieces:
                is_empty = next(pieces, None) is None
            if is_empty:
                raise EmptyStream(f"{path.name} has an audio stream without a single sample; export it again.")
            return MediaSummary("AUDIO", name, duration_s, has_audio=True)
    info = probe_video(path)
    if info.is_still:
        return MediaSummary("IMAGE", name, None, info.size_wh, has_audio=has_audio)
    return MediaSummary("VIDEO", name, duration_s, info.size_wh, info.frame_rate, has_audio)


def _declared_duration_s(container: InputContainer) -> Fraction | None:
    duration, start = container.duration or 0, container.start_time or 0
    if 0 < start < duration and "matroska" in container.format.name:
        duration -= start  # FFmpeg writes down when the last frame ends, by a clock that may have run for years
    return Fraction(duration, av.time_base) if duration > 0 else None


def check_video(path: Path, limits: MediaLimits) -> MediaSummary:
    """Check a file that is to be the video of a render.

    Raises:
        InputError: it is unreadable, has no picture, or is too large or too long.
    """
    summary = summarise(path)
    if summary.size_wh is None:
        raise MissingStream(f"{path.name} has no video stream; give a video of a person, or a still image.")
    check_limits(path, summary, limits)
    return summary


def check_audio(path: Path, limits: MediaLimits) -> MediaSummary:
    """Check a file that is to be the speech of a render.

    Raises:
        InputError: it is unreadable, has no sound, or is too long.
    """
    summary = summarise(path)
    if not summary.has_audio:
        raise MissingStream(f"{path.name} has no audio stream; give the speech as a sound file or a video with sound.")
    check_limits(path, summary, limits)
    return summary


def check_inputs(video: Path, speeches: Sequence[Path], limits: MediaLimits) -> Lengths:
    """Check the inputs of a render, one speech or several that sound together; return how long they are.

    Raises:
        InputError: see `check_video` and `check_audio`.
    """
    picture = check_video(video, limits)
    speech_s = max(check_audio(speech, limits).duration_s or Fraction(0) for speech in speeches)
    frame_rate = picture.frame_rate or STILL_FRAME_RATE
    if (frames := speech_s * frame_rate) > limits.max_frames:
        raise too_many_frames(round(frames), limits)
    return Lengths(picture.duration_s or Fraction(0), speech_s, frame_rate)


def check_local(video: str | Path, speeches: Sequence[str | Path], limits: MediaLimits) -> Lengths | None:
    """Check those inputs of a render that are files already; one that is text is a URL that is yet to be fetched.

    Returns how long they are; None while one is a URL.

    Raises:
        InputError: see `check_video` and `check_audio`.
    """
    local = [speech for speech in speeches if isinstance(speech, Path)]
    if isinstance(video, Path) and local:
        lengths = check_inputs(video, local, limits)
        return lengths if len(local) == len(speeches) else None
    if isinstance(video, Path):
        check_video(video, limits)
    else:
        for speech in local:
            check_audio(speech, limits)
    return None


def check_limits(path: Path, summary: MediaSummary, limits: MediaLimits) -> None:
    """Check a file's size in time and space.

    Raises:
        LimitExceeded: it is too large.
    """
    duration_s = summary.duration_s or Fraction(0)
    if duration_s > limits.max_duration_s:
        raise LimitExceeded(f"{path.name} is {float(duration_s):.0f} s long; at most {limits.max_duration_s:.0f} s are accepted, so cut it.")
    if summary.size_wh is not None:
        width, height = summary.size_wh
        if width * height > limits.max_pixels:
            raise LimitExceeded(f"{path.name} is {width}x{height}; at most {limits.max_pixels} pixels a frame are accepted, so scale it down.")
    frames = duration_s * (summary.frame_rate or 0)
    if frames > limits.max_frames:
        raise LimitExceeded(f"{path.name} has {round(frames)} frames; at most {limits.max_frames} are accepted, so cut it.")


def too_many_frames(frame_count: int, limits: MediaLimits) -> LimitExceeded:
    """Return the error of a result that would be too long."""
    return LimitExceeded(f"The result would have {frame_count} frames; at most {limits.max_frames} are rendered, so send shorter speech.")
