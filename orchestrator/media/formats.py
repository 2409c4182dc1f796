"""What a result can be: the one table of codecs, encoders, containers, sound and pixel formats, and which of them go together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av

CodecName = Literal["h264", "hevc", "av1", "vp9", "prores", "prores_4444", "ffv1"]
ContainerName = Literal["mp4", "mov", "webm", "mkv"]
EncoderChoice = Literal["software", "nvenc", "auto"]
AlphaChoice = Literal["auto", "keep", "flatten"]
SoundName = Literal["aac", "libopus", "pcm_s24le"]
SegmentKind = Literal["mp4", "matroska"]

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""Speeds, fastest first, by libx264's names; the other encoders' own steps stand beside them in `Encoder.presets`."""

_YUV8 = ("yuv420p", "yuv422p", "yuv444p")
_YUV10 = ("yuv420p10le", "yuv422p10le", "yuv444p10le")
_YUVA = ("yuva420p", "yuva444p", "yuva420p10le", "yuva422p10le", "yuva444p10le")
_YUVJ = ("yuvj420p", "yuvj422p", "yuvj444p")


@dataclass(frozen=True, slots=True)
class Encoder:
    """One of FFmpeg's encoders."""

    name: str
    pix_fmts: tuple[str, ...]
    """What it is given, as FFmpeg names it; the first is the usual one."""
    presets: tuple[str, ...] = ()
    """Its own step for each of `PRESETS`; empty where it has none."""
    crf_range: tuple[int, int] | None = None
    """Best and worst quality; None where quality cannot be chosen."""
    default_crf: int = 0
    """Visually transparent, or near it."""
    lossless_pix_fmts: tuple[str, ...] = ()
    """Formats of which it can keep every sample."""
    delay_frames: int | None = None
    """How many frames decoding is ahead of showing; None takes the encoder's word for it."""
    takes_bitrate: bool = True
    has_full_range: bool = True
    """Whether its samples may use every value."""


@dataclass(frozen=True, slots=True)
class VideoCodec:
    """A way to compress pictures."""

    name: CodecName
    label: str
    containers: tuple[ContainerName, ...]
    """Where it can be put; the first is what it gets where nothing is said."""
    software: Encoder
    nvenc: Encoder | None = None
    reorders: bool = False
    """Whether pictures are stored in another order than they are shown in, which Matroska has no decoding times for."""
    mp4_tag: str | None = None
    """Its four letters in MP4 and MOV, where FFmpeg's own choice would not do."""
    in_band_tag: str | None = None
    """The letters that stand for parameter sets in the packets, which copied and encoded pictures in one file need; None where that is not done."""
    stores_pixel_shape: bool = False
    """Whether the pictures themselves tell that their pixels are not square. Matroska would have to, and PyAV cannot say it to its muxer."""
    is_master: bool = False
    """Whether it is for editing, with sound that is not compressed either."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A way to store sound."""

    name: SoundName
    rates_hz: tuple[int, ...]
    """Sample rates it takes; empty for any."""
    sample_format: str
    priming_samples: int
    """Samples that FFmpeg's encoder puts before the first one."""
    bits_per_s_per_channel: int = 0
    """Transparent for speech; 0 where there is nothing to choose."""


@dataclass(frozen=True, slots=True)
class Container:
    """A kind of file."""

    name: ContainerName
    suffixes: tuple[str, ...]
    muxer: str
    media_type: str


CONTAINERS: dict[ContainerName, Container] = {
    "mp4": Container("mp4", (".mp4", ".m4v"), "mp4", "video/mp4"),
    "mov": Container("mov", (".mov", ".qt"), "mov", "video/quicktime"),
    "webm": Container("webm", (".webm",), "webm", "video/webm"),
    "mkv": Container("mkv", (".mkv",), "matroska", "video/x-matroska"),
}

_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)

SOUNDS: dict[SoundName, Sound] = {
    "aac": Sound("aac", _AAC_RATES_HZ, "fltp", 1024, 96_000),
    "libopus": Sound("libopus", (48_000,), "flt", 312, 64_000),
    "pcm_s24le": Sound("pcm_s24le", (), "s32", 0),
}

_NVENC_PRESETS = ("p1", "p1", "p2", "p3", "p4", "p4", "p5", "p6", "p7")

CODECS: dict[CodecName, VideoCodec] = {
    "h264": VideoCodec(
        "h264",
        "H.264",
        ("mp4", "mov", "mkv"),
        Encoder("libx264", (*_YUV8, *_YUVJ, *_YUV10), PRESETS, (0, 51), 18, (*_YUV8, *_YUVJ, *_YUV10)),
        Encoder("h264_nvenc", ("yuv420p", "yuv444p"), _NVENC_PRESETS, (0, 51), 19),
        reorders=True,
        in_band_tag="avc3",
        stores_pixel_shape=True,
    ),
    "hevc": VideoCodec(
        "hevc",
        "HEVC",
        ("mp4", "mov", "mkv"),
        # x265 leaves the decoding times of an output of one or two frames unset; its pyramid of B frames is always two deep.
        Encoder("libx265", (*_YUV8, *_YUVJ, *_YUV10), PRESETS, (0, 51), 20, (*_YUV8, *_YUVJ, *_YUV10), delay_frames=2),
        Encoder("hevc_nvenc", ("yuv420p", "p010le", "yuv444p"), _NVENC_PRESETS, (0, 51), 20),
        reorders=True,
        mp4_tag="hvc1",  # Apple's players know no other
        in_band_tag="hev1",
        stores_pixel_shape=True,
    ),
    "av1": VideoCodec(
        "av1",
        "AV1",
        ("mp4", "webm", "mkv"),
        # SVT-AV1 calls its presets from 10 up "meant for automation", with visible faults.
        Encoder(
            "libsvtav1",
            ("yuv420p", "yuv420p10le"),
            ("9", "9", "8", "8", "7", "6", "5", "4", "3"),
            (0, 63),
            22,
            ("yuv420p", "yuv420p10le"),
        ),
        Encoder("av1_nvenc", ("yuv420p", "p010le"), _NVENC_PRESETS, (0, 51), 22),
    ),
    "vp9": VideoCodec(
        "vp9",
        "VP9",
        ("webm", "mp4", "mkv"),
        Encoder("libvpx-vp9", (*_YUV8, "yuva420p"), ("8", "7", "5", "4", "3", "2", "1", "1", "0"), (0, 63), 20, (*_YUV8, "yuva420p")),
    ),
    "prores": VideoCodec(
        "prores",
        "ProRes 422 HQ",
        ("mov", "mkv"),
        Encoder("prores_ks", ("yuv422p10le",), takes_bitrate=False, has_full_range=False),
        mp4_tag="apch",
        is_master=True,
    ),
    "prores_4444": VideoCodec(
        "prores_4444",
        "ProRes 4444",
        ("mov", "mkv"),
        Encoder("prores_ks", ("yuv444p10le", "yuva444p10le"), takes_bitrate=False, has_full_range=False),
        mp4_tag="ap4h",
        is_master=True,
    ),
    "ffv1": VideoCodec(
        "ffv1",
        "FFV1",
        ("mkv",),
        Encoder(
            "ffv1",
            (*_YUV8, *_YUV10, *_YUVA),
            lossless_pix_fmts=(*_YUV8, *_YUV10, *_YUVA),
            takes_bitrate=False,
        ),
        is_master=True,
    ),
}


def container_of(path: Path) -> ContainerName | None:
    """Return the container that a file name's end stands for; None where it stands for none."""
    return next((name for name, container in CONTAINERS.items() if path.suffix.lower() in container.suffixes), None)


def sound_of(codec: VideoCodec, container: ContainerName) -> Sound:
    """Return how sound is stored beside pictures in a container."""
    if codec.is_master:
        return SOUNDS["pcm_s24le"]
    return SOUNDS["libopus" if container in ("webm", "mkv") else "aac"]


def segment_kind(codec: VideoCodec, container: ContainerName) -> SegmentKind:
    """Return how an output's segments are stored: as fragments of MP4 where it can hold them and the output is of its family, else as Matroska."""
    return "mp4" if codec.reorders or (container in ("mp4", "mov") and not codec.is_master) else "matroska"


def is_live(codec: VideoCodec, container: ContainerName) -> bool:
    """Tell whether an output's segments, one behind the other, are a stream of the very container it ends in."""
    kind = segment_kind(codec, container)
    return container == "mp4" if kind == "mp4" else container in ("webm", "mkv")


def codecs_for(container: ContainerName) -> str:
    """Return the codecs that go into a container, for a sentence."""
    return ", ".join(name for name, codec in CODECS.items() if container in codec.containers)


def keeps_alpha(codec: VideoCodec, container: ContainerName) -> bool:
    """Tell whether a codec has alpha, and a container can carry it: VP9's is a second stream that only Matroska has a place for."""
    return any(PixelLayout.of(pix_fmt).has_alpha for pix_fmt in codec.software.pix_fmts) and container != "mp4"


def nearest_pix_fmt(pix_fmt: str, candidates: tuple[str, ...]) -> str:
    """Return the candidate that loses least of a format: alpha, then bit depth, then chroma; the smallest of those."""
    wanted = PixelLayout.of(pix_fmt)

    def cost(name: str) -> tuple[bool, int, int, int]:
        found = PixelLayout.of(name)
        lost_bits, lost_chroma = max(0, wanted.bits - found.bits), max(0, wanted.chroma - found.chroma)
        size = found.bits - wanted.bits + found.chroma - wanted.chroma + found.has_alpha - wanted.has_alpha + (name != pix_fmt)
        return (wanted.has_alpha and not found.has_alpha, lost_bits, lost_chroma, size)

    return min(candidates, key=cost)


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """What a pixel format keeps."""

    bits: int
    chroma: int
    """Chroma samples for four luma samples: 0, 1 (4:2:0), 2 (4:2:2) or 4."""
    has_alpha: bool

    @classmethod
    def of(cls, pix_fmt: str) -> "PixelLayout":
        """Read a format's description."""
        found = av.VideoFormat(pix_fmt, 64, 64)
        components = found.components
        chroma = 0 if len(components) < 3 else 4 * components[1].width * components[1].height // (64 * 64)
        return cls(max(component.bits for component in components), chroma, any(component.is_alpha for component in components))

    def keeps(self, other: "PixelLayout") -> bool:
        """Tell whether nothing of another layout is lost in this one."""
        return self.bits >= other.bits and self.chroma >= other.chroma and self.has_alpha >= other.has_alpha
