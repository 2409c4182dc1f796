"""How the output is compressed, and into what it is put."""

from dataclasses import dataclass
from fractions import Fraction

from orchestrator.cores import available_cores
from orchestrator.errors import InvalidOption
from orchestrator.media.formats import (
    CODECS,
    CONTAINERS,
    PRESETS,
    AlphaChoice,
    CodecName,
    ContainerName,
    Encoder,
    EncoderChoice,
    SegmentKind,
    VideoCodec,
    codecs_for,
    is_live,
    segment_kind,
)

GOP_S = 2
"""Length of a segment and longest distance between key frames, s."""

MIN_BITRATE, MAX_BITRATE = 50_000, 800_000_000
"""Bits a second that can be asked for."""

SMART_CONTAINERS: tuple[ContainerName, ...] = ("mp4", "mov")
"""Where copied and encoded pictures can follow each other: their packets may bring parameter sets of their own."""

OPENING_S = Fraction(1, 2)
"""Length of an output's first segment, s: shorter than the others, so that it can be watched sooner."""

MIN_SEGMENT_FRAMES = 8
MAX_TAIL_FRAMES = 4
"""Frames at an output's end that get no segment of their own but join the one before: x264's delay differs for a handful of frames, and the
time stamps of segments meet only where it is the same."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the video is compressed, and into what it is put.

    Raises:
        InvalidOption: values are out of range, or do not go together.
    """

    codec: CodecName = "h264"
    crf: int | None = None
    """Constant quality, 0 (best) to 51, or 63 for AV1 and VP9; None for the encoder's visually transparent one."""
    bitrate: int | None = None
    """Average bits a second, in place of a quality."""
    preset: str | None = None
    """Speed by libx264's names; None for `veryfast`."""
    lossless: bool = False
    """Keep every decoded sample exactly."""
    encoder: EncoderChoice = "software"
    """`nvenc` is an error where it does not work; `auto` takes software instead, and says why."""
    container: ContainerName | None = None
    """None for the codec's usual one."""
    alpha: AlphaChoice = "auto"
    """Whether a source's alpha is kept (an error where the format cannot), laid over black, or kept where that can be."""
    smart: bool = False
    """Copy the source's own groups of pictures where nothing is edited."""
    thread_count: int = 0
    """Encoder threads; 0 for one per core that may be used, at most 16."""

    @property
    def video_codec(self) -> VideoCodec:
        """The codec's row of the table."""
        return CODECS[self.codec]

    @property
    def container_name(self) -> ContainerName:
        """The container, the codec's usual one where none is given."""
        return self.container or self.video_codec.containers[0]

    @property
    def segment_kind(self) -> SegmentKind:
        """How a segment is stored."""
        return segment_kind(self.video_codec, self.container_name)

    @property
    def is_live(self) -> bool:
        """Whether the segments, one behind the other, are a stream of the container."""
        return not self.smart and is_live(self.video_codec, self.container_name)

    @property
    def resolved_thread_count(self) -> int:
        """The number of encoder threads, one per core that may be used where it is left open."""
        return self.thread_count or min(16, available_cores())

    def segment_frame_count(self, frame_rate: Fraction) -> int:
        """Return how many frames a segment has, and so how far key frames are apart at most."""
        return max(MIN_SEGMENT_FRAMES, round(GOP_S * frame_rate))

    def opening_frame_count(self, frame_rate: Fraction) -> int:
        """Return how many frames the first segment of an output has."""
        return max(MIN_SEGMENT_FRAMES, round(OPENING_S * frame_rate))

    def __post_init__(self) -> None:
        for name, table in ((self.codec, CODECS), (self.container or "mp4", CONTAINERS)):
            if name not in table:
                raise InvalidOption(f"There is no {name!r} here; give one of {', '.join(table)}.")
        codec, software = self.video_codec, self.video_codec.software
        if self.container is not None and self.container not in codec.containers:
            raise InvalidOption(
                f"{codec.label} does not go into {self.container}; it goes into {', '.join(codec.containers)}, "
                f"and {self.container} takes {codecs_for(self.container)}."
            )
        if self.encoder == "nvenc" and codec.nvenc is None:
            raise InvalidOption(
                f"NVENC makes no {codec.label}; give {', '.join(name for name, row in CODECS.items() if row.nvenc)} or another encoder."
            )
        if self.preset is not None:
            if self.preset not in PRESETS:
                raise InvalidOption(f"There is no preset {self.preset!r}; give one of {', '.join(PRESETS)}.")
            if not software.presets:
                raise InvalidOption(f"{codec.label} has no presets; leave the preset out.")
        self._check_quality(codec, software)

    def _check_quality(self, codec: VideoCodec, software: Encoder) -> None:
        if self.crf is not None:
            if software.crf_range is None:
                raise InvalidOption(f"{codec.label} has one quality; leave crf out.")
            best, worst = software.crf_range
            if not best <= self.crf <= worst:
                raise InvalidOption(f"crf is {self.crf}; give a number from {best} (best) to {worst}.")
        if self.bitrate is not None:
            if not software.takes_bitrate:
                raise InvalidOption(f"{codec.label} has no bit rate to choose; leave it out.")
            if not MIN_BITRATE <= self.bitrate <= MAX_BITRATE:
                raise InvalidOption(f"The bit rate is {self.bitrate} bits/s; give {MIN_BITRATE} to {MAX_BITRATE}.")
        if self.lossless and not software.lossless_pix_fmts:
            raise InvalidOption(
                f"{codec.label} cannot be lossless; give {', '.join(name for name, row in CODECS.items() if row.software.lossless_pix_fmts)}."
            )
        if self.smart and (codec.in_band_tag is None or self.container_name not in SMART_CONTAINERS):
            able = ", ".join(name for name, row in CODECS.items() if row.in_band_tag)
            raise InvalidOption(f"smart does not go with {codec.label} in {self.container_name}; give {able} in {' or '.join(SMART_CONTAINERS)}.")
        given = [name for name, is_given in (("crf", self.crf is not None), ("bitrate", self.bitrate), ("lossless", self.lossless)) if is_given]
        if len(given) > 1:
            raise InvalidOption(f"{' and '.join(given)} exclude each other; give one of them.")
        if self.lossless and self.encoder == "nvenc":
            raise InvalidOption("NVENC is not used for lossless output; leave encoder out.")
