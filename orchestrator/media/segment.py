"""Encoding in segments: each a closed group of pictures out of an encoder of its own, one fragment of fragmented MP4 in one file.

The segments of a render, one behind the other (ftyp and moov once), are a stream that can be played while it grows; `assemble` puts them
into one fast-start MP4 without encoding again. Pictures are counted, never timed, so the parts fit to the tick.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.media.audio import AudioInfo, speech_samples
from orchestrator.media.clock import OutputClock
from orchestrator.media.probe import VideoInfo
from orchestrator.media.writer import MAX_TAIL_FRAMES, Encoding, translate_write_errors

AAC_BITS_PER_S_PER_CHANNEL = 96_000
"""Transparent for speech."""

_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)

_MOVFLAGS = "+empty_moov+delay_moov+default_base_moof+skip_trailer"
"""One fragment behind a moov that knows, by edit lists, the encoder's delay and the sound's priming; no index behind it.

Not CMAF's negative composition offsets: FFmpeg's own demuxer shows such pictures late by the encoder's delay.
"""

_PRIMING_SAMPLES = 1024
"""Samples that FFmpeg's AAC encoder puts before the first one."""


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A finished segment on disk."""

    path: Path
    frame_count: int
    delay_frames: int
    """How many frames decoding is ahead of showing, by the encoder's choice."""


class SpeechEncoder:
    """The speech as AAC, encoded once from its first sample to its last, handed out packet by packet.

    The packets depend on the speech alone: who reads them in one go and who begins again in the middle gets the same.
    """

    def __init__(self, speech: AudioInfo, tick: Callable[[], None] = lambda: None, duration_s: Fraction | None = None) -> None:
        """Begin.

        Args:
            speech: the track.
            tick: called after each piece of it.
            duration_s: length of the sound, which is cut, or followed by silence; None takes the track as it is.
        """
        self.rate_hz = speech.sample_rate_hz if speech.sample_rate_hz in _AAC_RATES_HZ else 48_000
        self.layout = "mono" if speech.channel_count == 1 else "stereo"
        self._tick = tick
        self._context = AudioCodecContext.create("aac", "w")
        assert isinstance(self._context, AudioCodecContext)
        _set_aac(self._context, self.layout)
        self._context.sample_rate = self.rate_hz
        self._context.layout = self.layout
        self._context.format = "fltp"
        self._context.time_base = Fraction(1, self.rate_hz)
        self._packets = self._encoded(_samples(speech, self.layout, self.rate_hz, duration_s))
        self._next: Packet[Any] | None = None

    def until(self, time_s: Fraction | None) -> "Iterator[Packet[Any]]":
        """Yield the packets that begin before a time, or all that are left, each once."""
        while (packet := self._peek()) is not None:
            if time_s is not None and Fraction(packet.pts or 0, self.rate_hz) >= time_s:
                return
            self._next = None
            yield packet

    def _peek(self) -> "Packet[Any] | None":
        if self._next is None:
            self._next = next(self._packets, None)
        return self._next

    def _encoded(self, pieces: Iterable[NDArray[np.float32]]) -> "Iterator[Packet[Any]]":
        position = 0
        for samples in pieces:
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
            frame.sample_rate, frame.time_base, frame.pts = self.rate_hz, Fraction(1, self.rate_hz), position
            position += samples.shape[1]
            yield from self._context.encode(frame)
            self._tick()
        yield from self._context.encode(None)


class SegmentEncoder:
    """Encodes one segment. `write` every picture, then `finish`, which may run on another thread; or `abandon`."""

    def __init__(
        self, path: Path, info: VideoInfo, clock: OutputClock, encoding: Encoding, speech: SpeechEncoder, index: int, first_frame: int
    ) -> None:
        """Open the encoder.

        Args:
            path: file to write; complete only when `finish` returns.
            info: the source.
            clock: of the output.
            encoding: how the pictures are compressed.
            speech: where the sound comes from; the segment takes what begins before its own end.
            index: which segment of the output this is.
            first_frame: number of its first picture in the output.

        Raises:
            EncodeError, StorageFull: FFmpeg cannot encode or write.
        """
        self._path = path
        self._clock = clock
        self._speech = speech
        self._is_first = index == 0
        self._first_frame = first_frame
        self._frame_count = 0
        self._delay_frames: int | None = None
        self._lag_ticks = 0
        # Later fragments keep their own start time; the first one's sound begins before 0 and is moved there by an edit list.
        flags = _MOVFLAGS if self._is_first else f"{_MOVFLAGS}+frag_discont"
        with translate_write_errors():
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": flags, "fragment_index": str(index + 1)})
            self._video = _add_video(self._container, info, clock, encoding)
            self._audio = self._container.add_stream("aac", rate=speech.rate_hz, layout=speech.layout)
            _set_aac(self._audio.codec_context, speech.layout)

    def write(self, picture: av.VideoFrame) -> None:
        """Encode the next picture. Its time follows from how many came before.

        The encoder counts pictures, whatever their times, so its bits do not depend on these.
        """
        picture.pts = self._first_frame + self._frame_count
        picture.time_base = 1 / self._clock.frame_rate
        picture.pict_type = av.video.frame.PictureType.NONE  # or the source's key frames become the output's
        with translate_write_errors():
            self._mux_video(self._video.encode(picture))
            self._frame_count += 1
        self.write_speech(self._clock.time_s(self._first_frame + self._frame_count))

    def write_speech(self, until_s: Fraction | None) -> None:
        """Add the sound that begins before a time, or all that is left."""
        with translate_write_errors():
            for packet in self._speech.until(until_s):
                if not self._is_first:
                    packet.pts = packet.dts = (packet.pts or 0) + _PRIMING_SAMPLES  # as the first fragment's edit list has it
                packet.stream = self._audio
                self._container.mux(packet)

    def finish(self) -> SegmentFile:
        """Encode what the encoder still holds, and close the file."""
        with translate_write_errors():
            self._mux_video(self._video.encode(None))
            self._container.close()
        return SegmentFile(self._path, self._frame_count, self._delay_frames or 0)

    def abandon(self) -> None:
        """Give the encoder back and delete the file."""
        with suppress(av.FFmpegError):  # a file that cannot even be closed is deleted all the same
            self._container.close()
        self._path.unlink(missing_ok=True)

    def _mux_video(self, packets: "Sequence[Packet[Any]]") -> None:
        for packet in packets:
            tick = Fraction(packet.time_base or 0) * self._clock.frame_rate
            shown, decoded = round((packet.pts or 0) * tick), round((packet.dts or 0) * tick)
            if self._delay_frames is None:
                self._delay_frames = shown - decoded
                self._lag_ticks = self._clock.lag_ticks(self._delay_frames)
            decoded += self._delay_frames
            packet.pts, packet.dts = self._clock.tick(shown), self._clock.tick(decoded) - self._lag_ticks
            packet.duration, packet.time_base = self._clock.tick(decoded + 1) - self._clock.tick(decoded), self._clock.time_base
            self._container.mux(packet)


def assemble(segments: Sequence[SegmentFile], out: Path, clock: OutputClock, tick: Callable[[], None] = lambda: None) -> None:
    """Put segments into one fast-start MP4 by copying their packets.

    Args:
        segments: all segments of the output, in order.
        out: file to write.
        clock: of the output.
        tick: called between any two packets; what it raises ends the copying.

    Raises:
        EncodeError, StorageFull: a segment is damaged, or the file cannot be written.
    """
    with translate_write_errors(), av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as target:
        video: VideoStream | None = None
        audio: AudioStream | None = None
        first_frame, sample = 0, -_PRIMING_SAMPLES
        lag_ticks = cache(clock.lag_ticks)
        for segment in segments:
            with av.open(str(segment.path)) as source:
                if video is None or audio is None:
                    video = target.add_stream_from_template(source.streams.video[0])
                    audio = target.add_stream_from_template(source.streams.audio[0])
                    video.time_base = clock.time_base
                decoded = first_frame
                for packet in source.demux():
                    if not packet.size:
                        continue
                    tick()
                    time_base = Fraction(packet.time_base or 0)
                    if packet.stream.type == "video":
                        packet.pts = round((packet.pts or 0) * time_base / clock.time_base)
                        packet.dts = clock.tick(decoded) - lag_ticks(segment.delay_frames)
                        packet.duration = clock.tick(decoded + 1) - clock.tick(decoded)
                        packet.time_base, packet.stream = clock.time_base, video
                        decoded += 1
                    else:
                        packet.pts = packet.dts = sample
                        sample += round((packet.duration or 0) * time_base * audio.codec_context.sample_rate)
                        packet.stream, packet.time_base = audio, Fraction(1, audio.codec_context.sample_rate)
                    target.mux(packet)
            first_frame += segment.frame_count


def encoder_version() -> str:
    """Return which encoders these are: others may make other bits of the same pictures."""
    return f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


def read_init_bytes(path: Path) -> int:
    """Return the length of a segment's ftyp and moov."""
    with path.open("rb") as file:
        (ftyp_bytes,) = struct.unpack(">I", file.read(4))
        file.seek(ftyp_bytes)
        (moov_bytes,) = struct.unpack(">I", file.read(4))
    return int(ftyp_bytes + moov_bytes)


def _add_video(container: av.container.OutputContainer, info: VideoInfo, clock: OutputClock, encoding: Encoding) -> VideoStream:
    stream = container.add_stream("libx264", rate=clock.frame_rate)
    stream.width, stream.height = info.working_size_wh
    stream.pix_fmt = info.working_pix_fmt
    context = stream.codec_context
    context.time_base = 1 / clock.frame_rate
    context.sample_aspect_ratio = info.sample_aspect_ratio
    context.color_range = info.colour.range
    context.color_primaries = info.colour.primaries
    context.color_trc = info.colour.transfer
    context.colorspace = info.colour.matrix
    context.gop_size = encoding.segment_frame_count(clock.frame_rate) + MAX_TAIL_FRAMES
    # FRAME, since PyAV's default makes x264 cut each picture into slices; the count is stated, since it shapes the bitstream.
    context.thread_type = "FRAME"
    context.thread_count = encoding.resolved_thread_count
    quality = {"qp": "0"} if encoding.lossless else {"crf": str(encoding.crf)}
    stream.options = {"preset": encoding.preset, **quality, **_reproducible()}
    stream.time_base = clock.time_base
    if info.rotation_deg:
        stream.set_display_rotation(info.rotation_deg)
    return stream


@cache
def _reproducible() -> dict[str, str]:
    """Return the options that make x264 give the same bits every time.

    Its AVX-512 code reads past the end of rows whose width in macroblocks is uneven (measured: 854x480, 400x300 and others differ from run to
    run with every preset that has a macroblock tree); the AVX2 code gives what AVX and SSE give, and is no slower.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    return {"x264-params": "asm=AVX2"} if "avx512f" in flags else {}


def _samples(speech: AudioInfo, layout: str, rate_hz: int, duration_s: Fraction | None) -> Iterator[NDArray[np.float32]]:
    """Yield a track's samples, (channels, n) float32; exactly as long as asked for."""
    if duration_s is None:
        yield from speech_samples(speech, layout, rate_hz)
        return
    left = round(duration_s * rate_hz)
    for samples in speech_samples(speech, layout, rate_hz):
        yield samples[:, :left]
        left -= min(left, samples.shape[1])
        if not left:
            return
    while left:
        silence = min(left, rate_hz)
        yield np.zeros((1 if layout == "mono" else 2, silence), np.float32)
        left -= silence


def _set_aac(context: AudioCodecContext, layout: str) -> None:
    context.bit_rate = AAC_BITS_PER_S_PER_CHANNEL * (1 if layout == "mono" else 2)
