"""The output of one render: what was asked for, laid against what its source is and what this machine can do."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from orchestrator.errors import InvalidOption
from orchestrator.media.encoders import nvenc_problem
from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import (
    CODECS,
    CONTAINERS,
    Container,
    Encoder,
    PixelLayout,
    Sound,
    VideoCodec,
    keeps_alpha,
    nearest_pix_fmt,
    sound_of,
)
from orchestrator.media.light import CARRIERS
from orchestrator.media.probe import VideoInfo

NEARLY_SQUARE = Fraction(1, 100)
"""How far from 1 the shape of a pixel, its width by its height, may be to be shown as 1: scaling to whole pixels leaves less from 200 px on."""

SEGMENT_SUFFIXES = {"mp4": ".mp4", "webm": ".webm", "matroska": ".mkv"}
"""Ends of segments' file names, by FFmpeg's names of their formats."""


@dataclass(frozen=True, slots=True)
class Output:
    """How pictures and sound of one render are stored."""

    encoding: Encoding
    encoder: Encoder
    pix_fmt: str
    """What the encoder is given."""
    keeps_alpha: bool = False
    """Whether the source's alpha goes into it."""
    notes: tuple[str, ...] = ()
    """Sentences about what differs from what was asked for, or from the source."""

    def is_full_range(self, info: VideoInfo) -> bool:
        """Tell whether the samples use every value, as the source's do."""
        return info.is_full_range and self.encoder.has_full_range

    @property
    def container(self) -> Container:
        """The kind of file."""
        return CONTAINERS[self.encoding.container_name]

    @property
    def sound(self) -> Sound:
        """How the sound is stored."""
        return sound_of(self.encoding.video_codec, self.encoding.container_name)

    @property
    def segment_muxer(self) -> str:
        """FFmpeg's name of a segment's format."""
        return "mp4" if self.encoding.segment_kind == "mp4" else "webm" if self.container.name == "webm" else "matroska"

    @property
    def segment_suffix(self) -> str:
        """How a segment's file name ends."""
        return SEGMENT_SUFFIXES[self.segment_muxer]

    @property
    def description(self) -> str:
        """The output in a few words, for the report."""
        return f"{self.encoding.video_codec.label} ({self.encoder.name}, {self.pix_fmt}) and {self.sound.name} in {self.container.name}"


def choose_output(encoding: Encoding, info: VideoInfo) -> Output:
    """Choose encoder and pixel format for a source.

    Raises:
        InvalidOption: NVENC is asked for and does not work here, or the output cannot be lossless as asked for.
    """
    encoder, notes = _choose_encoder(encoding)
    keeps = _keeps_alpha_of(encoding, info)
    source = replace(info, keeps_alpha=keeps).working_pix_fmt
    pix_fmt = _choose_pix_fmt(encoding, encoder, source)
    if encoding.smart:
        _refuse_unlike(encoding, info, pix_fmt)
    notes += _lost_pixel_shape(encoding, info)
    # Fixed here, since a container's quota may change while it renders, and the number of threads shapes the bitstream.
    encoding = replace(encoding, thread_count=encoding.resolved_thread_count)
    if info.has_alpha and not keeps:
        notes.append("The source's pictures have alpha; they were laid over black.")
    return Output(encoding, encoder, pix_fmt, keeps, (*notes, *_differences(encoding.video_codec, encoder, info, source, pix_fmt)))


def _choose_encoder(encoding: Encoding) -> tuple[Encoder, list[str]]:
    """Return what encodes, and what is to be said about that."""
    codec = encoding.video_codec
    if encoding.encoder == "software" or codec.nvenc is None or encoding.lossless:
        return codec.software, []
    problem = nvenc_problem(codec.nvenc)
    if problem is None:
        return codec.nvenc, []
    if encoding.encoder == "nvenc":
        raise InvalidOption(f"NVENC cannot encode {codec.label} here ({problem}); leave encoder out, or give auto.")
    return codec.software, [f"NVENC cannot encode {codec.label} here ({problem}), so {codec.software.name} did."]


def _keeps_alpha_of(encoding: Encoding, info: VideoInfo) -> bool:
    """Tell whether the source's alpha goes into the output."""
    codec, container = encoding.video_codec, encoding.container_name
    keeps = info.has_alpha and encoding.alpha != "flatten" and keeps_alpha(codec, container)
    if encoding.alpha == "keep" and not keeps:
        if not info.has_alpha:
            raise InvalidOption(f"{info.path.name} has no alpha to keep; leave alpha out.")
        able = [f"{row.name} in {name}" for row in CODECS.values() for name in row.containers if keeps_alpha(row, name)]
        raise InvalidOption(f"{codec.label} in {container} has no alpha; give {', '.join(able)}, or leave alpha out.")
    return keeps


def _choose_pix_fmt(encoding: Encoding, encoder: Encoder, source: str) -> str:
    """Return the pixel format that is nearest to the source's."""
    pix_fmt = nearest_pix_fmt(source, encoder.lossless_pix_fmts if encoding.lossless else encoder.pix_fmts)
    wanted = PixelLayout.of(source)
    if encoding.lossless and not PixelLayout.of(pix_fmt).keeps(wanted):
        able = [name for name, row in CODECS.items() if any(PixelLayout.of(one).keeps(wanted) for one in row.software.lossless_pix_fmts)]
        raise InvalidOption(f"{encoding.video_codec.label} cannot keep every sample of {source}; give {' or '.join(able)}, or leave lossless out.")
    return pix_fmt


def _differences(codec: VideoCodec, encoder: Encoder, info: VideoInfo, source: str, pix_fmt: str) -> Iterator[str]:
    """Say in what the output's pictures differ from the source's, whose pixel format is `source`."""
    found = PixelLayout.of(pix_fmt)
    if found != PixelLayout.of(source):
        yield f"The pictures' format {source} was converted to {pix_fmt} for {codec.label}."
    if info.is_full_range and not encoder.has_full_range:
        yield f"The pictures' full range was converted to the limited one, which is all that {codec.label} has."
    if info.light is not None and info.hdr and encoder.name not in CARRIERS:
        yield f"The source's mastering display and light level are left out, which {encoder.name} cannot write; give hevc, av1 or h264."
    if codec.name == "h264" and found.bits > 8:
        yield "H.264 with 10 bits plays in few players; give codec hevc, which most play with 10 bits, or leave codec out."


def _lost_pixel_shape(encoding: Encoding, info: VideoInfo) -> list[str]:
    """Say where pixels will be shown square that are not quite, as those of many scaled videos, since the file cannot tell their shape.

    Raises:
        InvalidOption: they are far from it.
    """
    codec, container, shape = encoding.video_codec, encoding.container_name, info.sample_aspect_ratio
    if shape == 1 or container not in ("webm", "mkv") or codec.stores_pixel_shape:
        return []
    cannot = f"which {codec.label} in {container} cannot say here"
    if abs(shape - 1) <= NEARLY_SQUARE:
        return [f"The source's pixels are not quite square ({shape}), {cannot}; they are shown square."]
    remedies = [f"{name} as the container" for name in codec.containers if name not in ("webm", "mkv")]
    if container == "mkv":  # WebM takes neither
        remedies.append("codec h264 or hevc")
    raise InvalidOption(f"The source's pixels are not square ({shape}), {cannot}; give {' or '.join(remedies)}.")


def _refuse_unlike(encoding: Encoding, info: VideoInfo, pix_fmt: str) -> None:
    """Refuse to copy pictures of a source into an output that differs from it.

    Raises:
        InvalidOption: it does.
    """
    name = info.path.name
    if info.codec != encoding.codec:
        raise InvalidOption(f"smart copies pictures, but {name} is {info.codec} and the output {encoding.codec}; give that codec, or no smart.")
    if not any(part in info.container for part in ("mov", "matroska")):
        raise InvalidOption(f"smart copies from MP4, MOV and MKV, and {name} is {info.container}; remux it, or leave smart out.")
    if (info.pix_fmt, info.size_wh) != (pix_fmt, info.working_size_wh) or info.is_interlaced:
        raise InvalidOption(f"smart copies pictures, but those of {name} have to be converted ({info.pix_fmt}); leave smart out.")
