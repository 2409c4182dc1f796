"""Finished segments: put into one file without encoding again, and played one behind the other before."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream

from orchestrator.errors import EncodeError
from orchestrator.media.clock import OutputClock
from orchestrator.media.container import translate_write_errors
from orchestrator.media.gops import parameter_sets
from orchestrator.media.output import Output
from orchestrator.media.probe import VideoInfo
from orchestrator.media.segment import SegmentFile, describe, tell_alpha
from orchestrator.media.tags import NO_TAGS, Tags, write_tags

_WHOLE = {
    "mp4": {"movflags": "+faststart"},
    "mov": {"movflags": "+faststart"},
    "webm": {"cues_to_front": "1", "fflags": "+bitexact"},
    "mkv": {"cues_to_front": "1", "fflags": "+bitexact"},
}
"""Options of a finished file: its index stands before the pictures, and nothing in it is random."""

_UNPROBED = {"codec_whitelist": "none"}
"""Options to open a segment whose streams are known: FFmpeg decodes no picture to find out about them, which would take 20 ms of its 21."""

_EBML, _SEGMENT, _CLUSTER = (bytes.fromhex(text) for text in ("1a45dfa3", "18538067", "1f43b675"))
"""Identifiers of Matroska's elements (RFC 9559)."""

_PCM_BYTES = 3


def assemble(
    segments: Sequence[SegmentFile],
    out: Path,
    info: VideoInfo,
    clock: OutputClock,
    output: Output,
    tick: Callable[[], None] = lambda: None,
    tags: Tags = NO_TAGS,
) -> None:
    """Put segments into one file, its index in front, by copying their packets.

    Args:
        segments: all segments of the output, in order.
        out: file to write.
        info: the source.
        clock: when each picture of the output is shown.
        output: how pictures and sound are stored.
        tick: called between any two packets; what it raises ends the copying.
        tags: what the file says of itself, chapters by the output's time.

    Raises:
        EncodeError, StorageFull: a segment is damaged, or the file cannot be written.
    """
    with translate_write_errors(), av.open(str(out), "w", format=output.container.muxer, options=_WHOLE[output.container.name]) as target:
        video: VideoStream | None = None
        audio: AudioStream | None = None
        first_frame, sample = 0, -output.sound.priming_samples
        lag_ticks = clock.lag_ticks(max((segment.delay_frames for segment in segments), default=0))
        for segment in segments:
            with av.open(str(segment.path), options=_UNPROBED if video else {}) as source:
                if video is None or audio is None:
                    # `opaque` keeps the reader's codec, since libdav1d has no encoder of its name.
                    video = target.add_stream_from_template(source.streams.video[0], opaque=True)
                    audio = target.add_stream_from_template(source.streams.audio[0])
                    audio.codec_context.layout = "mono" if audio.codec_context.channels == 1 else "stereo"  # Matroska counts channels only
                    video.time_base = clock.time_base
                    tell_alpha(video, output)
                    describe(video.codec_context, info, output, output.container.muxer)
                    write_tags(target, video, audio, tags, clock.time_s(sum(segment.frame_count for segment in segments)))
                rate_hz, decoded = audio.codec_context.sample_rate, first_frame
                for found in source.demux():
                    if not found.size:
                        continue
                    tick()
                    packet: Packet[Any] = found
                    if packet.stream.type == "video":
                        if output.encoding.smart and found.is_keyframe:
                            packet = _with_parameter_sets(packet, source.streams.video[0])
                        # Matroska counts milliseconds: which frame is meant is sure, its time is not.
                        shown = clock.nearest((packet.pts or 0) * Fraction(packet.time_base or 0))
                        packet.pts, packet.dts = clock.tick(shown), clock.tick(decoded) - lag_ticks
                        # MP4 stores the time from one decoding to the next, Matroska how long a picture is shown.
                        lasting = decoded if output.container.name in ("mp4", "mov") else shown
                        packet.duration = clock.tick(lasting + 1) - clock.tick(lasting)
                        packet.time_base, packet.stream = clock.time_base, video
                        decoded += 1
                    else:
                        count = _sample_count(packet, rate_hz, audio.codec_context.channels, output)
                        packet.pts = packet.dts = sample
                        packet.duration, packet.time_base, packet.stream = count, Fraction(1, rate_hz), audio
                        sample += count
                    target.mux(packet)
            first_frame += segment.frame_count


def _with_parameter_sets(packet: "Packet[Any]", stream: VideoStream) -> "Packet[Any]":
    """Return a key frame's packet with the parameter sets of its segment's header in it, so that a player may jump there."""
    whole: Packet[Any] = Packet(parameter_sets(stream.codec_context.extradata or b"", stream.codec_context.name) + bytes(packet))
    whole.pts, whole.time_base, whole.is_keyframe = packet.pts, packet.time_base, True
    return whole


def _sample_count(packet: "Packet[Any]", rate_hz: int, channel_count: int, output: Output) -> int:
    """Return how many samples a packet has; Matroska counts milliseconds, which are too coarse for sound that is not in frames."""
    if output.sound.name == "pcm_s24le":
        return packet.size // (_PCM_BYTES * channel_count)
    return round((packet.duration or 0) * Fraction(packet.time_base or 0) * rate_hz)


def read_init_bytes(path: Path) -> int:
    """Return the length of what stands before a segment's pictures: ftyp and moov, or all that comes before the first cluster.

    Raises:
        EncodeError: the file is no segment.
    """
    with path.open("rb") as file:
        if file.read(4) == _EBML:
            return _cluster_position(file)
        file.seek(0)
        (ftyp_bytes,) = struct.unpack(">I", file.read(4))
        file.seek(ftyp_bytes)
        (moov_bytes,) = struct.unpack(">I", file.read(4))
    return int(ftyp_bytes + moov_bytes)


def _cluster_position(file: BinaryIO) -> int:
    """Walk over the elements of a Matroska file to its first cluster."""
    file.seek(0)
    while (element := _element_id(file)) != _CLUSTER:
        if not element:
            raise EncodeError("A segment has no pictures; delete the job's folder, then try again.")
        size = _element_size(file)
        if element != _SEGMENT:  # which holds all that follows
            file.seek(size, 1)
    return file.tell() - len(_CLUSTER)


def _element_id(file: BinaryIO) -> bytes:
    """Read an identifier: as many bytes as the first one has leading zeros, and one."""
    first = file.read(1)
    return first + file.read(8 - first[0].bit_length()) if first else b""


def _element_size(file: BinaryIO) -> int:
    """Read a length, stored likewise without its first one."""
    first = file.read(1)[0]
    more = 8 - first.bit_length()
    return int.from_bytes(bytes([first ^ 1 << 7 - more]) + file.read(more), "big")
