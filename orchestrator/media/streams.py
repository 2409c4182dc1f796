"""Which of a file's streams has the pictures and the sound that are meant."""

import re
from collections import Counter
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from orchestrator.errors import MissingStream
from orchestrator.media.container import open_media

_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails

_CLOCK_TIME = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9}(?:\.[0-9]{1,12})?)")
"""Hours, minutes and seconds."""

_LOOKED_AT = 256
"""So many packets are looked at to see which streams have more than one picture."""


def picture_streams(container: InputContainer) -> tuple[VideoStream, ...]:
    """Return a container's video streams; no attached cover and no thumbnails."""
    return tuple(stream for stream in container.streams.video if not stream.disposition & _COVERS)


def main_video(container: InputContainer, path: Path) -> int:
    """Return which of a file's streams to render.

    It is one that moves, rather than a single picture; of several that do, the one the file declares its default, as players take it; of several of
    those the largest and longest, in pixels times seconds; the first of equals.

    Args:
        container: the file, of which nothing is read.
        path: the file.

    Raises:
        MissingStream: there is no video, or a cover alone.
    """
    streams = picture_streams(container)
    if not streams:
        raise MissingStream(f"{path.name} has no video stream; give the video of the person as the video and the speech as the audio.")
    if len(streams) == 1:
        return streams[0].index
    with open_media(path) as again:
        packets = islice(again.demux([again.streams[stream.index] for stream in streams]), _LOOKED_AT)
        pictures = Counter(packet.stream.index for packet in packets if packet.size)

    def rank(stream: VideoStream) -> tuple[bool, bool, Fraction]:
        context = stream.codec_context
        pixels = context.width * context.height if context else 0  # None where FFmpeg has no decoder
        return pictures[stream.index] > 1, Disposition.default in stream.disposition, pixels * _length_s(container, stream)

    return max(streams, key=rank).index


def main_audio(container: InputContainer, path: Path) -> AudioStream:
    """Return the stream to hear: one that FFmpeg decodes; of several the one the file declares its default, as players take it; the first of equals.

    Raises:
        MissingStream: there is no sound.
    """
    if not container.streams.audio:
        raise MissingStream(f"{path.name} has no audio stream; give the speech as a sound file or a video with sound.")
    return max(container.streams.audio, key=lambda stream: (stream.codec_context is not None, Disposition.default in stream.disposition))


def _length_s(container: InputContainer, stream: VideoStream) -> Fraction:
    """Return how long a stream is by its header: Matroska has it in a tag, and FFmpeg gives it the length of the whole."""
    if told := _CLOCK_TIME.fullmatch(stream.metadata.get("DURATION", "")):
        return 3600 * int(told[1]) + 60 * int(told[2]) + Fraction(told[3])
    return stream.duration * Fraction(stream.time_base or 0) if stream.duration else Fraction(container.duration or 0, av.time_base)
