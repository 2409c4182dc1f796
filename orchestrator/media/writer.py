"""Encoding: H.264 and AAC into an MP4 that appears at its path only when it is complete."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from orchestrator.errors import EncodeError, InvalidOption, StorageError
from orchestrator.media.audio import AudioInfo, read_samples
from orchestrator.media.probe import VideoInfo

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""libx264's presets, fastest first."""

GOP_S = 2
"""Longest distance between key frames, s."""

AAC_BITS_PER_S_PER_CHANNEL = 96_000
"""Transparent for speech."""

_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the video is compressed.

    Raises:
        InvalidOption: a value is out of range.
    """

    crf: int = 18
    """libx264's constant rate factor: 0 (best) to 51; 18 is visually transparent."""
    preset: str = "veryfast"
    lossless: bool = False
    """Keep every decoded sample exactly; `crf` is then not used."""
    thread_count: int = 0
    """Encoder threads; 0 for one per core, at most 16."""

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise InvalidOption(f"crf is {self.crf}; give a number from 0 (best) to 51.")
        if self.preset not in PRESETS:
            raise InvalidOption(f"There is no preset {self.preset!r}; give one of {', '.join(PRESETS)}.")


@contextmanager
def placed_when_complete(out: Path) -> Iterator[Path]:
    """Give a path beside `out` to write to, and rename it to `out` when the block ends without an error.

    Raises:
        StorageError: the folder is not there or not writable, or renaming failed.
    """
    try:
        for stale in out.parent.glob(f".{escape(out.name)}.*.partial"):
            owner = stale.name.split(".")[-2]
            if owner.isdigit() and not Path("/proc", owner).exists():
                stale.unlink(missing_ok=True)  # left by a render that was killed
        partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
        partial.touch()
    except OSError as exc:
        raise StorageError(f"Cannot write to {out.parent} ({exc.strerror}); create the folder or choose another output.") from exc
    try:
        yield partial
        try:
            partial.replace(out)
        except OSError as exc:
            raise StorageError(f"Cannot put the result at {out} ({exc.strerror}); check the path and the free space.") from exc
    finally:
        partial.unlink(missing_ok=True)


class MovieWriter:
    """Encodes pictures and the speech track, interleaved, into one fast-start MP4. Used as a context manager.

    Raises:
        EncodeError: FFmpeg cannot encode or write.
    """

    def __init__(self, path: Path, info: VideoInfo, speech: AudioInfo, encoding: Encoding) -> None:
        self._frame_rate = info.frame_rate
        self._written = 0
        with _translate_errors():
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
            self._video = self._add_video(info, encoding)
            self._audio, self._samples = self._add_audio(speech)
        self._sample_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            with _translate_errors():
                self._container.mux(self._video.encode(None))
                self._write_audio(until_s=None)
                self._container.mux(self._audio.encode(None))
                self._container.close()
        else:
            with suppress(av.FFmpegError):  # the first error counts; a file that cannot even be closed is deleted all the same
                self._container.close()

    def write(self, picture: av.VideoFrame) -> None:
        """Encode the next frame. Its time follows from how many came before."""
        picture.pts = self._written
        picture.time_base = 1 / self._frame_rate
        picture.pict_type = av.video.frame.PictureType.NONE  # or the source's key frames become the output's
        with _translate_errors():
            self._container.mux(self._video.encode(picture))
            self._written += 1
            self._write_audio(until_s=self._written / self._frame_rate)

    def _add_video(self, info: VideoInfo, encoding: Encoding) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=info.frame_rate)
        stream.width, stream.height = info.working_size_wh
        stream.pix_fmt = info.working_pix_fmt
        context = stream.codec_context
        context.time_base = 1 / info.frame_rate
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.color_range = info.colour.range
        context.color_primaries = info.colour.primaries
        context.color_trc = info.colour.transfer
        context.colorspace = info.colour.matrix
        context.gop_size = max(1, round(GOP_S * info.frame_rate))
        # FRAME, since PyAV's default makes x264 cut each picture into slices; the count is stated, since it shapes the bitstream.
        context.thread_type = "FRAME"
        context.thread_count = encoding.thread_count or min(16, os.cpu_count() or 1)
        quality = {"qp": "0"} if encoding.lossless else {"crf": str(encoding.crf)}
        stream.options = {"preset": encoding.preset, **quality}
        if info.rotation_deg:
            stream.set_display_rotation(info.rotation_deg)
        return stream

    def _add_audio(self, speech: AudioInfo) -> tuple[AudioStream, Iterator[NDArray[np.float32]]]:
        rate_hz = speech.sample_rate_hz if speech.sample_rate_hz in _AAC_RATES_HZ else 48_000
        layout = "mono" if speech.channel_count == 1 else "stereo"
        stream = self._container.add_stream("aac", rate=rate_hz, layout=layout)
        stream.bit_rate = AAC_BITS_PER_S_PER_CHANNEL * (1 if layout == "mono" else 2)
        return stream, read_samples(speech.path, layout, rate_hz)

    def _write_audio(self, until_s: Fraction | None) -> None:
        """Encode speech up to a time, or to its end."""
        rate_hz = self._audio.codec_context.sample_rate
        while until_s is None or Fraction(self._sample_count, rate_hz) < until_s:
            samples = next(self._samples, None)
            if samples is None:
                return
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._audio.codec_context.layout.name)
            frame.sample_rate = rate_hz
            frame.time_base = Fraction(1, rate_hz)
            frame.pts = self._sample_count
            self._sample_count += samples.shape[1]
            self._container.mux(self._audio.encode(frame))


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as exc:
        raise EncodeError(f"The output could not be encoded ({exc.strerror}); check the free space and the encoding options.") from exc
