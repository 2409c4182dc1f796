"""What a job is: its request, and what a poll sees of it."""

from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestrator.media.formats import CONTAINERS, Container
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.speakers import Speaker

JobState = Literal["queued", "running", "completed", "failed", "cancelled"]
Stage = Literal["queued", "read", "analyse", "render", "finish"]
Priority = Literal["interactive", "batch"]

FINAL_STATES: tuple[JobState, ...] = ("completed", "failed", "cancelled")
"""States that a job never leaves."""


class JobSpeaker(BaseModel):
    """One more speaker, with a track of his own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    audio: str
    """As `JobSpec.audio`."""
    speaker: Speaker | Literal[""]
    """`X,Y` or `X,Y,FRAME`, a point on his face; with segments nothing, too: one more track of the first speaker."""


class JobSpec(BaseModel):
    """A request for a render, good and complete as far as can be told without rendering."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video: str
    """Path of a file inside the data folder, or an http(s) URL, which the job fetches itself as its first step."""
    audio: str
    """As `video`."""
    others: tuple[JobSpeaker, ...] = ()
    """More speakers; the options choose the first one."""
    speaker_image: str | None = None
    """Picture of the one speaker, in place of what the options choose; as `video`."""
    options: RenderOptions = RenderOptions()
    interface: Literal["v2", "easy", "render"] = "render"
    client_code: str | None = None
    """The client's own name for the job: HeyGem's `code`, sync.so's `externalId`."""
    owner: str = ""
    """Name of the API key (not the key itself); empty where there are none."""
    webhook_url: str | None = None
    """Where to announce the job's end, durably."""
    output_name: str | None = None
    priority: Priority = "interactive"
    expected_frame_count: int | None = Field(None, exclude=True)
    """Frames of the output by the inputs' headers; None where that is not known, as while one is a URL. It is no part of the request."""
    request: dict[str, Any] = Field(default_factory=dict)
    """The client's request as the interface wants to echo it; only stored."""

    @property
    def container(self) -> Container:
        """The kind of file that comes out."""
        return CONTAINERS[self.options.encoding().container_name]

    @property
    def has_playlist(self) -> bool:
        """Whether the segments are fragments of MP4, which HLS plays."""
        encoding = self.options.encoding()
        return not encoding.smart and encoding.segment_kind == "mp4"

    @property
    def is_live(self) -> bool:
        """Whether the segments, one behind the other, are a stream of the container."""
        return self.options.encoding().is_live

    @classmethod
    def stored(cls, text: str) -> "JobSpec":
        """Return a spec as it was stored, maybe by another version of this program, whose fields may differ."""
        return cls.model_validate_json(text, extra="ignore")

    @property
    def speeches(self) -> tuple[str, ...]:
        """The speech, and that of the others."""
        return (self.audio, *(other.audio for other in self.others))

    @property
    def sources(self) -> tuple[str, ...]:
        """Every input: the video, the speeches, and the picture of the speaker where there is one."""
        portrait = () if self.speaker_image is None else (self.speaker_image,)
        return (self.video, *self.speeches, *portrait)

    @field_validator("video", "audio", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value


class JobView(BaseModel):
    """A job as a poll sees it, read from disk."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: JobState
    spec: JobSpec
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    stage: Stage = "queued"
    done: int = 0
    """Frames of this stage that are finished."""
    total: int = 0
    """Frames of this stage; 0 where that is not known yet."""
    percent: int = 0
    """0 to 100 over all stages. It never falls, not even when a stage is repeated after a crash."""
    frames_per_s: float = 0.0
    eta_s: float | None = None
    """Time left for the whole job, s; None while there is nothing to go by."""
    queue_position: int | None = None
    """1 for the next to start; None when it is not queued."""
    starts_in_s: float | None = None
    """Time until it starts, by the length of those before it and the pace of the last ones, s; None when it is not queued, or nothing is known."""
    faces_found: int | None = None
    """Source frames that show the speaker's face; None until that is known."""
    passed_through: int = 0
    """Output frames so far that are the source's own."""
    segments_done: int = 0
    """Finished pieces of the output, about 2 s each."""
    attempts: int = 0
    """How often work on the job was begun; more than 1 after a crash or a repeated attempt."""
    error_code: str | None = None
    """Why it failed, or the cause of the last failed attempt while it is tried again."""
    error: str | None = None
    report: dict[str, Any] | None = None
    """`RenderReport` of a completed job."""
    has_result: bool = False
    """Whether the result can be fetched; a completed job loses it when its retention ends."""
    revision: int = 0
    """Grows with every change; see `JobService.wait_change`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished piece of a job's output: one file, playable by itself, and a fragment of the whole."""

    index: int
    path: Path
    """The header (the same in every segment of a job), then one fragment of MP4, or clusters of Matroska."""
    init_bytes: int
    """Length of the header: EXT-X-MAP is the first segment's bytes up to here, and the fragment is what follows."""
    size_bytes: int
    duration_s: Fraction
    frame_count: int
