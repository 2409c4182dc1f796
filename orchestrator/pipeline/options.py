"""What a render can be asked for: one model for the command line, the three HTTP interfaces, jobs and Python."""

import re
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.errors import InvalidOption
from orchestrator.inference.contract import FACE_ENHANCER, FACE_LANDMARKS, FACE_OCCLUDER, VOICE_ACTIVITY, VOICE_SEPARATOR
from orchestrator.media.encoding import MAX_BITRATE, MIN_BITRATE, Encoding
from orchestrator.media.formats import AlphaChoice, CodecName, ContainerName, EncoderChoice
from orchestrator.media.times import exact_rate, exact_s
from orchestrator.pipeline.passages import Segments
from orchestrator.pipeline.speakers import Boxes, Speaker
from orchestrator.pipeline.timeline import RateChoice, SyncMode

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1, 240
"""Frame rates that can be asked for."""

_NUMBER = re.compile(r"\s*(?:[0-9]+\.?[0-9]*|[0-9]+/[0-9]+)\s*")
"""A number or a fraction; with an exponent, a handful of characters would be one of millions of digits."""

USUAL_TEMPERATURE = 0.5
"""The mouth moves as the lip model has it."""


def _bits_per_s(value: Any) -> Any:
    """Read 800k and 8M as FFmpeg does."""
    if isinstance(value, str) and value[:-1].replace(".", "", 1).isdigit() and value[-1] in "kKM":
        return round(float(value[:-1]) * (1_000_000 if value[-1] == "M" else 1_000))
    if isinstance(value, str) and not value.isdigit():
        raise ValueError("must be bits a second, as in 8M, 800k or 800000")
    return value


class RenderOptions(BaseModel):
    """Everything the pipeline can do for one render. An unknown field is refused.

    A field here is an option of `lipsync render`, of `POST /render`, of `/v2` and of jobs; its description is its help. All of them are in the
    fingerprint of finished segments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: CodecName | None = Field(
        None, description="Default: h264, hevc where the source has more than 8 bits, or vp9 in WebM. See the README's table for what goes with what."
    )
    container: ContainerName | None = Field(None, description="Default: what the output's name ends in, or the codec's usual one.")
    crf: int | None = Field(None, ge=0, le=63, description="Quality, 0 (best) to 51, or 63 for av1 and vp9. Default: visually transparent.")
    bitrate: Annotated[int, BeforeValidator(_bits_per_s)] | None = Field(
        None, ge=MIN_BITRATE, le=MAX_BITRATE, description="Average bits per second in place of a quality, as in 8M or 800k."
    )
    preset: str | None = Field(None, max_length=32, description="Speed, ultrafast to veryslow. Default: veryfast.")
    lossless: bool = Field(False, description="Keep every decoded sample exactly.")
    encoder: EncoderChoice = Field("software", description="nvenc needs an NVIDIA GPU that encodes; auto takes software where there is none.")
    alpha: AlphaChoice = Field(
        "auto", description="A source's alpha: keep it (refused where the format has none), flatten it over black, or auto: keep where that can be."
    )
    smart: bool = Field(
        False,
        description="Copy the video's own groups of pictures where nothing is edited, in place of encoding them again; "
        "needs h264 or hevc in mp4 or mov, as the video is.",
    )
    sync_mode: SyncMode = Field("bounce", description="What happens where the speech and the video differ in length.")
    frame_rate: Annotated[str, BeforeValidator(str)] = Field(
        "source",
        max_length=32,
        description="Frames a second of the result: `source` (a variable frame rate is converted to the nearest constant one), `keep` (frames keep "
        "their own times), or a number or fraction such as 25, 29.97 or 30000/1001.",
    )
    hdr: Literal["keep", "sdr"] = Field(
        "keep", description="Whether an HDR source stays HDR, with 10 bits, or becomes SDR, which outputs that have 8 bits do anyway."
    )
    audio_offset: float = Field(
        0.0, ge=-36_000, le=36_000, description="Seconds by which the speech begins later; below 0, seconds of it that are left out."
    )
    loop_crossfade: float = Field(
        0.0, ge=0, le=60, description="Seconds for which the end fades into the beginning where `sync_mode` loop begins again."
    )

    segments: Segments | None = Field(
        None,
        description="Parts of the video, in which alone somebody speaks; the rest stays as it is, its own sound included. "
        'JSON, a list such as [{"start": 2, "end": 5, "audio": 1, "audio_start": 0, "audio_end": 3, "sync_mode": "remap"}], s; '
        "audio 1 is the speech, 2 the next one. Without sync_mode the part keeps its length, and longer speech is cut.",
    )
    speaker: Speaker = Field(
        "auto",
        max_length=64,
        description="Whose lips move: auto (in each shot the face that covers the largest area), all (every face), or the face at X,Y or X,Y,FRAME: "
        "px of the picture as shown; FRAME is counted from 0, or a time as 1.5s.",
    )
    speaker_boxes: Boxes | None = Field(
        None, description="In place of a speaker: for each frame of the video the box [x1, y1, x2, y2] of the face whose lips move, or null; JSON."
    )

    background_audio: float | None = Field(
        None,
        ge=-60,
        le=0,
        description="Level, dB, at which the video's own sound lies under the speech: 0 as loud as it is, -18 well below. Default: it is left out.",
    )

    face_landmarks: bool | None = Field(
        None, description="Whether landmarks place the crop and bound what is pasted; true needs a face_landmarks model. Unset: as the settings say."
    )
    face_enhancer: bool | None = Field(
        None, description="Whether rendered faces are enhanced; true needs a face_enhancer model. Unset: as the settings say."
    )
    face_occluder: bool | None = Field(
        None,
        description="Whether hands and microphones before the mouth stay there; true needs a face_occluder model. Unset: as the settings say.",
    )
    temperature: float = Field(USUAL_TEMPERATURE, ge=0, le=1, description="How far the mouth moves: 0 least, 0.5 as the lip model has it, 1 most.")
    voice_activity: bool | None = Field(
        None,
        description="Whether the mouth rests where nobody speaks, whatever music or noise there is; true needs a voice_activity model. "
        "Unset: as the settings say.",
    )
    voice_separator: bool | None = Field(
        None,
        description="Whether the lips hear the voice alone, without the music and the noise under it, which the result keeps; true needs a "
        "voice_separator model. Unset: as the settings say.",
    )

    def encoding(self, named: ContainerName | None = None) -> Encoding:
        """Return how the video is compressed.

        Args:
            named: the container that the output's name ends in.

        Raises:
            InvalidOption: values do not exist, or do not go together.
        """
        if named is not None and self.container not in (None, named):
            raise InvalidOption(f"The output's name ends as {named} does, and the container asked for is {self.container}; leave one of them out.")
        container = self.container or named
        return Encoding(
            codec=self.codec or ("vp9" if container == "webm" else "h264"),
            container=container,
            crf=self.crf,
            bitrate=self.bitrate,
            preset=self.preset,
            lossless=self.lossless,
            encoder=self.encoder,
            alpha=self.alpha,
            smart=self.smart,
        )

    @property
    def rate(self) -> RateChoice:
        """The frame rate that is asked for.

        Raises:
            InvalidOption: it is none.
        """
        if self.frame_rate == "source":
            return "source"
        if self.frame_rate == "keep":
            return "keep"
        try:
            rate = exact_rate(Fraction(self.frame_rate)) if _NUMBER.fullmatch(self.frame_rate) else Fraction(0)
        except ZeroDivisionError:
            rate = Fraction(0)
        if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
            raise InvalidOption(
                f"frame_rate is {self.frame_rate!r}; give source, keep, or a number from {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} "
                "such as 25 or 30000/1001."
            )
        return rate

    @property
    def mode(self) -> SyncMode:
        """What happens where the speech and the video differ in length; with segments, the whole video is shown."""
        return self.sync_mode if self.segments is None else "silence"

    @property
    def audio_offset_s(self) -> Fraction:
        """By how much the speech begins later, to the microsecond."""
        return exact_s(self.audio_offset)

    @property
    def loop_crossfade_s(self) -> Fraction:
        """How long a loop's end fades into its beginning, to the microsecond."""
        return exact_s(self.loop_crossfade)

    @property
    def optional_roles(self) -> dict[str, bool | None]:
        """What is asked of each optional role: it has to take part, must not, or (None) does as the settings say."""
        return {
            FACE_LANDMARKS: self.face_landmarks,
            FACE_ENHANCER: self.face_enhancer,
            FACE_OCCLUDER: self.face_occluder,
            VOICE_ACTIVITY: self.voice_activity,
            VOICE_SEPARATOR: self.voice_separator,
        }

    def check(self) -> None:
        """Check what no single field shows.

        Raises:
            InvalidOption: a value does not exist, or does not go with another one.
        """
        self.encoding()
        _ = self.rate
        if self.loop_crossfade and self.sync_mode != "loop":
            raise InvalidOption(f"loop_crossfade goes with sync_mode loop, and sync_mode is {self.sync_mode}; leave one of them out.")
        if self.segments is not None and self.sync_mode != "bounce":
            raise InvalidOption(f"sync_mode is {self.sync_mode}, and there are segments, each of which may have one of its own; give it there.")
        if self.frame_rate == "keep" and any(segment.sync_mode for segment in self.segments or ()):
            raise InvalidOption("A segment has a sync_mode, and frame_rate is keep; leave one of them out.")
        if self.segments is not None and self.audio_offset:
            raise InvalidOption("Each segment says when it begins; leave audio_offset out.")
        if self.speaker_boxes is not None and self.speaker != "auto":
            raise InvalidOption("speaker and speaker_boxes both say who speaks; give one of them.")
