"""Encoding in segments: each a closed group of pictures out of an encoder of its own in one file, a fragment of MP4 or clusters of Matroska.

The segments of a render, one behind the other (the header once), are a stream that can be played while it grows; `assembly` puts them into one
file. Pictures are counted, never timed, so the parts fit to the tick.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from orchestrator.errors import EncodeError
from orchestrator.media.alpha import copy_alpha
from orchestrator.media.clock import OutputClock
from orchestrator.media.container import translate_write_errors
from orchestrator.media.encoders import encoder_options, open_encoder, set_up
from orchestrator.media.encoding import MAX_TAIL_FRAMES
from orchestrator.media.formats import PixelLayout
from orchestrator.media.gops import GopReader
from orchestrator.media.output import Output
from orchestrator.media.probe import FULL_RANGE, LIMITED_RANGE, VideoInfo
from orchestrator.media.sound import SpeechEncoder
from preprocess.orientation import UPRIGHT

_MOVFLAGS = "+empty_moov+delay_moov+default_base_moof+skip_trailer"
"""One fragment behind a moov that knows, by edit lists, the encoder's delay and the sound's priming; no index behind it.

Not CMAF's negative composition offsets: FFmpeg's own demuxer shows such pictures late by the encoder's delay.
"""

_LIVE_MATROSKA = {"live": "1", "fflags": "+bitexact", "avoid_negative_ts": "disabled"}
"""Clusters without an index behind them, at the times they are given, and no random identifiers."""


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A finished segment on disk."""

    path: Path
    frame_count: int
    delay_frames: int
    """How many frames decoding is ahead of showing, by the encoder's choice."""
    picture_bytes: int
    """What its pictures take, without sound and container."""
    told: int | None
    """What its encoder was told to use, bits/s; None for a quality."""


class _SegmentMaker:
    """A segment that is being written: its file, its sound and its clock."""

    def __init__(self, path: Path, info: VideoInfo, clock: OutputClock, output: Output, speech: SpeechEncoder, index: int, first_frame: int) -> None:
        """Open the file.

        Args:
            path: file to write; complete only when `finish` returns.
            info: the source.
            clock: when the output's frames are shown.
            output: how pictures and sound are stored.
            speech: where the sound comes from; the segment takes what begins before its own end.
            index: which segment of the output this is.
            first_frame: number of its first picture in the output.

        Raises:
            EncodeError, StorageFull: FFmpeg cannot encode or write.
        """
        self._path = path
        self._info = info
        self._clock = clock
        self._frame_s = 1 / clock.frame_rate
        self._output = output
        self._speech = speech
        self._first_frame = first_frame
        self._frame_count = 0
        self._packet_count = self._picture_bytes = 0
        self._delay_frames = output.encoder.delay_frames
        self._lag_ticks: int | None = None
        # A later fragment keeps its own start time; the first one's sound begins before 0 and is moved there by an edit list. Matroska says
        # once, in the header, how much of the sound comes before 0.
        is_later_fragment = index > 0 and output.encoding.segment_kind == "mp4"
        self._sound_shift = output.sound.priming_samples if is_later_fragment else 0
        flags = f"{_MOVFLAGS}+frag_discont" if is_later_fragment else _MOVFLAGS
        options = {"movflags": flags, "fragment_index": str(index + 1)} if output.encoding.segment_kind == "mp4" else _LIVE_MATROSKA
        with translate_write_errors():
            self._container = av.open(str(path), "w", format=output.segment_muxer, options=options)
            self._video = self._add_video()
            self._audio = self._container.add_stream(output.sound.name, rate=speech.rate_hz, layout=speech.layout)
            speech.set_up(self._audio.codec_context)

    def _add_video(self) -> VideoStream:
        raise NotImplementedError

    def write_speech(self, until_s: Fraction | None) -> None:
        """Add the sound that begins before a time, or all that is left."""
        with translate_write_errors():
            for packet in self._speech.until(until_s):
                packet.pts = packet.dts = (packet.pts or 0) + self._sound_shift
                packet.stream = self._audio
                self._container.mux(packet)

    def _close(self) -> SegmentFile:
        self._container.close()
        return SegmentFile(self._path, self._frame_count, self._delay_frames or 0, self._picture_bytes, self._output.encoding.bitrate)

    def abandon(self) -> None:
        """Give back what is open and delete the file."""
        with suppress(av.FFmpegError):  # a file that cannot even be closed is deleted all the same
            self._container.close()
        self._path.unlink(missing_ok=True)

    def _mux_video(self, packets: "Sequence[Packet[Any]]") -> None:
        for packet in packets:
            # Encoders count pictures, as they are given them.
            shown, decoded = packet.pts or 0, self._first_frame + self._packet_count
            if self._delay_frames is None:
                self._delay_frames = shown - (packet.dts or 0)
            if self._lag_ticks is None:
                self._lag_ticks = self._clock.lag_ticks(self._delay_frames)
            packet.pts, packet.dts = self._clock.tick(shown), self._clock.tick(decoded) - self._lag_ticks
            packet.duration, packet.time_base = self._clock.tick(decoded + 1) - self._clock.tick(decoded), self._clock.time_base
            self._packet_count += 1
            self._picture_bytes += packet.size
            self._container.mux(packet)


class SegmentEncoder(_SegmentMaker):
    """Encodes one segment. `write` every picture, then `finish`, which may run on another thread; or `abandon`."""

    def _add_video(self) -> VideoStream:
        return _add_encoder(self._container, self._info, self._clock, self._output)

    def write(self, picture: av.VideoFrame) -> None:
        """Encode the next picture. Its time follows from how many came before.

        The encoder counts pictures, whatever their times, so its bits do not depend on these.
        """
        picture = _in_format(picture, self._info, self._output)
        picture.pts = self._first_frame + self._frame_count
        picture.time_base = self._frame_s
        picture.pict_type = av.video.frame.PictureType.NONE  # or the source's key frames become the output's
        with translate_write_errors():
            self._mux_video(self._video.encode(picture))
            self._frame_count += 1
        self.write_speech(self._clock.time_s(self._first_frame + self._frame_count))

    def finish(self) -> SegmentFile:
        """Encode what the encoder still holds, and close the file."""
        with translate_write_errors():
            self._mux_video(self._video.encode(None))
            return self._close()


class SegmentCopier(_SegmentMaker):
    """Makes one segment of a source's own packets, and closed groups only. `copy` them, then `finish`; or `abandon`."""

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        clock: OutputClock,
        output: Output,
        speech: SpeechEncoder,
        index: int,
        first_frame: int,
        source: GopReader,
    ) -> None:
        """Open the file as `SegmentEncoder` does; `source` is where the packets come from."""
        self._source = source
        super().__init__(path, info, clock, output, speech, index, first_frame)

    def _add_video(self) -> VideoStream:
        stream = self._container.add_stream_from_template(self._source.stream, opaque=True)
        stream.time_base = self._clock.time_base
        return stream

    def copy(self, first_pts: int, frame_count: int, tick: Callable[[], None] = lambda: None) -> None:
        """Copy packets from the one with a time stamp on, as many as there are frames.

        Raises:
            EncodeError: the source has not these packets again.
        """
        packets = []
        for packet in self._source.packets(first_pts, frame_count):
            tick()
            packets.append(packet)
        if len(packets) != frame_count:
            raise EncodeError(f"Frames of {self._info.path.name} could not be copied: it does not read the same twice; leave smart out.")
        order = sorted(packet.pts for packet in packets if packet.pts is not None)
        places = [order.index(packet.pts) if packet.pts is not None else 0 for packet in packets]
        self._delay_frames = max(decoded - shown for decoded, shown in enumerate(places))
        for packet, shown in zip(packets, places, strict=True):
            copied: Packet[Any] = Packet(bytes(packet))
            copied.pts, copied.time_base = self._first_frame + shown, self._frame_s
            copied.is_keyframe = packet.is_keyframe
            copied.stream = self._video
            with translate_write_errors():
                self._mux_video([copied])
            self._frame_count += 1
            self.write_speech(self._clock.time_s(self._first_frame + self._frame_count))

    def finish(self) -> SegmentFile:
        """Close the file."""
        with translate_write_errors():
            return self._close()


def _in_format(picture: av.VideoFrame, info: VideoInfo, output: Output) -> av.VideoFrame:
    """Return a picture as the encoder takes it, itself if it is so; the matrix stays as it is, and the range where the encoder has it."""
    levels = "JPEG" if info.is_full_range else "MPEG"
    coded = "JPEG" if output.is_full_range(info) else "MPEG"
    if picture.format.name != output.pix_fmt or levels != coded:
        converted = picture.reformat(format=output.pix_fmt, src_color_range=levels, dst_color_range=coded, interpolation="BICUBIC")
        if PixelLayout.of(output.pix_fmt).has_alpha:
            copy_alpha(picture, converted)
        picture = converted
    # ProRes takes its colours from each picture.
    picture.color_primaries, picture.color_trc, picture.colorspace = info.colour.primaries, info.colour.transfer, info.colour.matrix
    return picture


def _add_encoder(container: av.container.OutputContainer, info: VideoInfo, clock: OutputClock, output: Output) -> VideoStream:
    stream = container.add_stream(output.encoder.name, rate=clock.frame_rate)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = info.working_size_wh
    stream.pix_fmt = output.pix_fmt
    context = stream.codec_context
    context.time_base = 1 / clock.frame_rate
    stream.time_base = clock.time_base
    describe(context, info, output, output.segment_muxer)
    set_up(context, output.encoder, output.encoding, output.encoding.segment_frame_count(clock.frame_rate) + MAX_TAIL_FRAMES)
    has_alpha = PixelLayout.of(output.pix_fmt).has_alpha
    tell_alpha(stream, output)
    stream.options = {**encoder_options(output.encoder, output.encoding, has_alpha=has_alpha, light=info.light)}
    if info.orientation != UPRIGHT:
        stream.set_display_rotation(info.orientation.turn_deg, hflip=info.orientation.is_mirrored)
    open_encoder(context)
    return stream


def tell_alpha(stream: VideoStream, output: Output) -> None:
    """Say that a stream has alpha where its packets do not: VP9's is a second stream beside them."""
    if output.keeps_alpha and output.encoding.codec == "vp9":
        stream.metadata["alpha_mode"] = "1"


def describe(context: VideoCodecContext, info: VideoInfo, output: Output, format_name: str) -> None:
    """Say what a player has to know about the pictures: the shape of a pixel, the colours, and in MP4 the codec's letters."""
    context.sample_aspect_ratio = info.sample_aspect_ratio
    limited = LIMITED_RANGE if info.is_full_range else info.colour.range
    context.color_range = FULL_RANGE if output.is_full_range(info) else limited
    context.color_primaries = info.colour.primaries
    context.color_trc = info.colour.transfer
    context.colorspace = info.colour.matrix
    codec = output.encoding.video_codec
    tag = codec.in_band_tag if output.encoding.smart else codec.mp4_tag
    if tag is not None and format_name in ("mp4", "mov"):
        context.codec_tag = tag
