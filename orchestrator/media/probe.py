"""What a video file is: sizes, clock and colour, read from its header, and whether the file is all there."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from orchestrator.errors import EmptyStream, UnreadableMedia
from orchestrator.media.alpha import ALPHA_FORMATS, decoded, has_alpha, is_opaque, says_alpha
from orchestrator.media.bounds import check_size
from orchestrator.media.container import MAY_JUMP, declares_its_length, format_of, open_media, refuse_truncated_riff
from orchestrator.media.formats import PixelLayout
from orchestrator.media.light import Light
from orchestrator.media.orientation import orientation_of
from orchestrator.media.streams import main_video
from orchestrator.media.tags import NO_TAGS, Tags, tags_of
from orchestrator.media.times import MAX_FRAME_RATE, header_rate
from orchestrator.settings import DecoderChoice
from preprocess.orientation import UPRIGHT, Orientation

STILL_FRAME_RATE = Fraction(25)
"""Frame rate of a render whose source is one still image, Hz."""

TAIL_TOLERANCE_S = Fraction(3, 4)
"""How much earlier than its header says a stream may end before the file counts as truncated, s."""

_UNSPECIFIED = 2
"""FFmpeg's number for "not tagged" in primaries, transfer and matrix."""

FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG."""

LIMITED_RANGE = 1
"""FFmpeg's AVCOL_RANGE_MPEG."""

SUBSAMPLING_XY = {
    **dict.fromkeys(("yuv420p", "yuvj420p", "yuva420p", "yuv420p10le", "yuva420p10le"), (2, 2)),
    **dict.fromkeys(("yuv422p", "yuvj422p", "yuv422p10le", "yuva422p10le"), (2, 1)),
    **dict.fromkeys(("yuv444p", "yuvj444p", "yuva444p", "yuv444p10le", "yuva444p10le"), (1, 1)),
}
"""Pixel formats that are edited and encoded as they are, with their luma samples per chroma sample, across and down."""

_HDR: dict[int, Literal["pq", "hlg"]] = {16: "pq", 18: "hlg"}
"""FFmpeg's AVColorTransferCharacteristic of HDR."""


@cache
def bits_of(pix_fmt: str) -> int:
    """Return how many bits the samples of a pixel format have."""
    return PixelLayout.of(pix_fmt).bits


@dataclass(frozen=True, slots=True)
class ColourTags:
    """FFmpeg's enumeration values for a stream's colour, carried from source to output."""

    range: int
    primaries: int
    transfer: int
    matrix: int

    def or_else(self, others: "ColourTags") -> "ColourTags":
        """Return these tags, and the others' where these say nothing."""
        pairs = ((self.primaries, others.primaries), (self.transfer, others.transfer), (self.matrix, others.matrix))
        return ColourTags(self.range or others.range, *(other if own == _UNSPECIFIED else own for own, other in pairs))


BT709 = ColourTags(range=1, primaries=1, transfer=1, matrix=1)
"""What an RGB source is converted to: BT.709, limited range."""

_PALETTE_FORMATS = ("pal8", "monob", "monow")
"""Pixel formats that are RGB behind a table."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video stream as its header describes it."""

    path: Path
    size_wh: tuple[int, int]
    """Coded frame size before any rotation, px."""
    frame_rate: Fraction
    time_base: Fraction
    expected_frame_count: int
    """Frames by the header's count or duration, 0 where it has neither; a guess that serves the progress bar only."""
    pix_fmt: str
    codec: str
    colour: ColourTags
    sample_aspect_ratio: Fraction
    is_still: bool
    container: str
    """FFmpeg's names of the container, separated by commas; webp where it is animated."""
    is_interlaced: bool
    """Whether frames are made of two fields; they are deinterlaced, one frame for each."""
    stream_index: int = 0
    """Which of the file's streams it is."""
    orientation: Orientation = UPRIGHT
    """What a player does before showing a frame."""
    start_s: Fraction = Fraction(0)
    """How long after the file's own beginning its first picture is shown; an output begins with that picture, s."""
    tone_mapped_from: ColourTags | None = None
    """The source's own colour where it is HDR and made SDR; `colour` is then `BT709`."""
    has_alpha: bool = False
    """Whether something may show through the pictures. RGB whose first picture is opaque counts as opaque."""
    light: Light | None = None
    """What an HDR source says about the light it was made for."""
    keeps_alpha: bool = False
    """Whether alpha goes on to the output; else the pictures are laid over black."""
    decoder: DecoderChoice = "software"
    """What decodes it; NVDEC only where the pictures are the same, see `nvdec.accelerator`."""
    tags: Tags = field(default=NO_TAGS, compare=False)
    """What it says of itself, its sound's language aside; its chapters' times are counted from its first picture."""

    @property
    def may_jump(self) -> bool:
        """Whether time stamps may begin anew in mid-stream, see `MAY_JUMP`."""
        return self.container in MAY_JUMP

    @property
    def shown_wh(self) -> tuple[int, int]:
        """Size of an output's pictures as players show them, px."""
        return self.orientation.shown_wh(self.working_size_wh)

    @property
    def is_rgb(self) -> bool:
        """Whether the source is RGB, which is converted to `BT709`."""
        return _is_rgb(self.pix_fmt)

    @property
    def is_full_range(self) -> bool:
        """Whether samples use every value, and not the narrower range of television."""
        return self.colour.range == FULL_RANGE or (self.tone_mapped_from is None and self.pix_fmt.startswith("yuvj"))

    @property
    def working_pix_fmt(self) -> str:
        """The planar YUV format the source is edited and encoded in: its own where that is one, else 4:2:0; 10 bits where it has more than 8."""
        if self.tone_mapped_from is not None:
            return "yuv420p"
        if self.has_alpha:
            return ALPHA_FORMATS[self._colours] if self.keeps_alpha else self._colours
        return self.pix_fmt if self.pix_fmt in SUBSAMPLING_XY else self._colours

    @property
    def _colours(self) -> str:
        """The nearest planar YUV format without alpha."""
        layout = PixelLayout.of(self.pix_fmt)
        if self.is_rgb or layout.bits == 8:
            return "yuv444p" if self.has_alpha and not self.is_rgb and layout.chroma == 4 else "yuv420p"
        return "yuv444p10le" if layout.chroma == 4 else "yuv422p10le" if layout.chroma == 2 else "yuv420p10le"

    @property
    def hdr(self) -> Literal["pq", "hlg"] | None:
        """The curve of an HDR source, None for SDR."""
        return _HDR.get(self.colour.transfer)

    @property
    def as_sdr(self) -> "VideoInfo":
        """The same source, made SDR."""
        return replace(self, colour=BT709, tone_mapped_from=self.colour, light=None)

    @property
    def as_hdr(self) -> "VideoInfo":
        """The same source as it is in the file."""
        return self if self.tone_mapped_from is None else replace(self, colour=self.tone_mapped_from, tone_mapped_from=None)

    @property
    def working_size_wh(self) -> tuple[int, int]:
        """The size of the output: the source's, less the last column or row where H.264 cannot code it (odd with 4:2:0)."""
        sx, sy = SUBSAMPLING_XY[self.working_pix_fmt]
        return self.size_wh[0] // sx * sx, self.size_wh[1] // sy * sy

    @property
    def frame_bytes(self) -> int:
        """Memory of a decoded frame in the working format and size."""
        width, height = self.working_size_wh
        sx, sy = SUBSAMPLING_XY[self.working_pix_fmt]
        return (width * height + 2 * (width // sx) * (height // sy)) * (2 if bits_of(self.working_pix_fmt) > 8 else 1)


def probe_video(path: Path) -> VideoInfo:
    """Read a video's properties and check that the file is complete.

    Raises:
        MissingFile: there is no such file.
        UnreadableMedia: it is not media, or ends before its header says.
        MissingStream: it has no video.
        EmptyStream: its video has no frame.
        LimitExceeded: its frames are too large or too small.
    """
    with open_media(path) as container:
        stream_index = main_video(container, path)
        stream = video_stream(container, stream_index)
        declared = _colour_tags(stream)
        frames = decoded(container, stream)
        frame = next(frames, None)
        if frame is None:
            raise EmptyStream(f"{path.name} has a video stream without a single frame; export it again.")
        described = _described(path, stream_index) if says_alpha(stream) else frame
        width, height = frame.width, frame.height
        check_size(path, width, height)
        second = next(frames, None)
        is_still = second is None
        if format_of(container) == "avi":
            refuse_truncated_riff(path)
        if not is_still:
            _refuse_truncated(container, stream, path)
        colour = BT709 if _is_rgb(frame.format.name) else _colour_tags(stream).or_else(declared)
        start_s = _start_s(container, frame)
        first_s = start_s + Fraction(container.start_time or 0, av.time_base)
        return VideoInfo(
            path=path,
            stream_index=stream_index,
            size_wh=(width, height),
            orientation=orientation_of(described, path),
            frame_rate=STILL_FRAME_RATE if second is None else _frame_rate(stream, is_stamped=second.pts != frame.pts),
            time_base=Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000),
            expected_frame_count=_expected_frame_count(container, stream),
            pix_fmt=frame.format.name,
            codec=stream.codec_context.name,
            colour=colour,
            sample_aspect_ratio=Fraction(stream.sample_aspect_ratio or 1) or Fraction(1),
            is_still=is_still,
            container=format_of(container),
            start_s=start_s,
            is_interlaced=frame.interlaced_frame or (second is not None and second.interlaced_frame),
            light=Light.of(described) if colour.transfer in _HDR else None,
            has_alpha=has_alpha(frame.format.name) and not (_is_rgb(frame.format.name) and is_opaque(frame)),
            tags=tags_of(container, stream_index, first_s, is_still=is_still),
        )


def video_stream(container: InputContainer, index: int) -> VideoStream:
    """Return the stream that `main_video` chose."""
    stream = container.streams[index]
    assert isinstance(stream, VideoStream)
    return stream


def _colour_tags(stream: VideoStream) -> ColourTags:
    """Return what the container says, or once a picture was decoded what that says: the decoders of HEVC and ProRes forget the container's tags."""
    context = stream.codec_context
    if context is None:  # FFmpeg has no decoder, which decoding will say
        return ColourTags(0, _UNSPECIFIED, _UNSPECIFIED, _UNSPECIFIED)
    return ColourTags(
        range=int(context.color_range),
        primaries=int(context.color_primaries or _UNSPECIFIED),
        transfer=int(context.color_trc or _UNSPECIFIED),
        matrix=int(context.colorspace or _UNSPECIFIED),  # 0 is RGB, which grey pictures claim and 4:2:0 cannot be
    )


def _described(path: Path, stream_index: int) -> av.VideoFrame:
    """Return a file's first picture with what the container says of it beside it."""
    with open_media(path) as container:
        return next(decoded(container, video_stream(container, stream_index), sees_alpha=False))


def _start_s(container: InputContainer, frame: av.VideoFrame) -> Fraction:
    if frame.pts is None or not frame.time_base or container.start_time is None:
        return Fraction(0)
    start_s = frame.pts * Fraction(frame.time_base) - Fraction(container.start_time, av.time_base)
    return max(Fraction(0), start_s.limit_denominator(1_000_000))


def _is_rgb(pix_fmt: str) -> bool:
    return av.VideoFormat(pix_fmt).is_rgb or pix_fmt in _PALETTE_FORMATS


def _frame_rate(stream: VideoStream, *, is_stamped: bool = True) -> Fraction:
    """Return the header's rate. Where no time stamps say otherwise, that is how many frames there are in how long, or what the pictures say.

    FFmpeg's average is of no use there: of a bare H.264 or HEVC stream it always is 25.
    """
    counted = 0 if is_stamped or not stream.duration else stream.frames / (stream.duration * Fraction(stream.time_base or 1))
    averaged = (stream.average_rate, stream.guessed_rate) if is_stamped else (stream.guessed_rate, stream.average_rate)
    for rate in (counted, *averaged, stream.base_rate):
        if rate and 0 < rate <= MAX_FRAME_RATE:
            return header_rate(Fraction(rate))
    return STILL_FRAME_RATE


def _expected_frame_count(container: InputContainer, stream: VideoStream) -> int:
    duration_s = stream.duration * Fraction(stream.time_base or 0) if stream.duration else Fraction(container.duration or 0, av.time_base)
    return stream.frames or round(duration_s * _frame_rate(stream))


def _refuse_truncated(container: InputContainer, stream: VideoStream, path: Path) -> None:
    """Compare where the stream's packets really end with where the header says, reading only the file's tail."""
    if not stream.duration and not container.duration:
        return
    if not declares_its_length(container):
        return
    time_base = Fraction(stream.time_base or 1)
    start = stream.start_time or 0
    if stream.duration:
        declared_end = (start + stream.duration) * time_base
    else:
        declared_end = Fraction(container.duration or 0, av.time_base)
        if len(container.streams) > 1:
            return  # the container's length may be that of another stream
    with suppress(av.FFmpegError):  # where there is no seeking the rest is read from here
        container.seek(int(declared_end / time_base), stream=stream)
    last = max((packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None and packet.size), default=None)
    real_end = Fraction(0) if last is None else last * time_base
    if declared_end - real_end > TAIL_TOLERANCE_S:
        raise UnreadableMedia(
            f"{path.name} is truncated: its header promises {float(declared_end):.2f} s of video and the file ends before that; "
            "copy or export it again."
        )
