"""sync.so's request and answer bodies, with what this service adds."""

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orchestrator.jobs.records import InputType
from orchestrator.media.limits import MediaKind
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.passages import MOST_SEGMENTS
from orchestrator.pipeline.speakers import Boxes, Speaker
from orchestrator.pipeline.timeline import SyncMode

GenerationStatus = Literal["PENDING", "PROCESSING", "COMPLETED", "FAILED", "REJECTED"]
BatchStatus = Literal["PENDING", "PROCESSING", "COMPLETED", "FAILED"]
AssetSort = Literal[
    "nameAsc", "nameDesc", "dateAsc", "dateDesc", "durationAsc", "durationDesc", "sizeAsc", "sizeDesc", "kindAsc", "kindDesc"
]  # fmt: skip

Visibility = Literal["USER", "ORGANIZATION"]

MAX_URL = 8192
MAX_ASSET_NAME = 255

Pixel = Annotated[float, Field(ge=0, lt=100_000)]


def _refuse_number(value: Any) -> Any:
    """Keep a number from being read as seconds since 1970."""
    try:
        float(value)
    except (TypeError, ValueError):
        return value
    raise ValueError("must be a date and time as in 2026-01-31T12:00:00Z")


def _with_zone(moment: datetime) -> datetime:
    try:
        return moment.astimezone()
    except (ValueError, OverflowError):
        raise ValueError("must be a date and time of a usual year") from None


Moment = Annotated[datetime, BeforeValidator(_refuse_number), AfterValidator(_with_zone)]
"""A time in a query; one without a zone is this host's."""


def _unpack(values: Any) -> Any:
    """Take a text for the words in it, which commas separate; or JSON, as sync.so's JavaScript SDK sends lists in a query."""
    return [word for value in values for word in _words(value)] if isinstance(values, list) else values


def _words(value: Any) -> list[Any]:
    try:
        words = json.loads(value)
    except (TypeError, ValueError, RecursionError):
        words = None
    return words if isinstance(words, list) and words else [word.strip() for word in str(value).split(",")]


Unpacked = BeforeValidator(_unpack)
"""Of a query's parameter that may be given several times, or once with commas."""


def spelled(pattern: str, words: str) -> Callable[[str], str]:
    """Return a check of a text that says in words how it has to be spelled; `pattern` has to match all of it."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be {words}")
        return text

    return check


FILE_NAME, MEDIA_TYPE, SHA256 = "^[A-Za-z0-9_-]{1,255}$", "^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(;.*)?$", "^[a-f0-9]{64}$"

FileName = Annotated[str, AfterValidator(spelled(FILE_NAME, "1 to 255 letters, digits, _ or -")), Field(json_schema_extra={"pattern": FILE_NAME})]
MediaType = Annotated[str, AfterValidator(spelled(MEDIA_TYPE, "a media type, as video/mp4")), Field(json_schema_extra={"pattern": MEDIA_TYPE})]
Sha256 = Annotated[str, AfterValidator(spelled(SHA256, "64 of the digits 0-9 and a-f")), Field(json_schema_extra={"pattern": SHA256})]


class _Request(BaseModel):
    """A part of a request: a field that is not known is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _named_here(theirs: str, ours: str) -> Any:
    """Return a validator that takes one name, which clients have from sync.so's Python SDK, for another; both may be given, alike."""

    def rename(value: Any) -> Any:
        if not isinstance(value, dict) or theirs not in value or value.get(ours, value[theirs]) != value[theirs]:
            return value
        return {name: given for name, given in value.items() if name != theirs} | {ours: value[theirs]}

    return model_validator(mode="before")(rename)


class VideoInput(_Request):
    """The video of a person, or a still image; one that comes with the request as a file takes its place."""

    type: Literal["video", "image"]
    url: str | None = Field(None, min_length=1, max_length=MAX_URL, description="http or https.")
    assetId: str | None = Field(None, min_length=1, max_length=64)
    refId: str | None = Field(None, max_length=255, description="Nothing here names a video.")

    _ref_id = _named_here("ref_id", "refId")


class AudioInput(_Request):
    """The speech; one without url and assetId is that which comes with the request as a file."""

    type: Literal["audio"]
    url: str | None = Field(None, min_length=1, max_length=MAX_URL, description="http or https.")
    assetId: str | None = Field(None, min_length=1, max_length=64)
    refId: str | None = Field(None, max_length=255, description="By which segments name it.")
    speaker: Speaker | None = Field(
        None, description="X,Y or X,Y,FRAME: a point on the face of whoever says this; needed where there are several speeches. Not in sync.so."
    )

    _ref_id = _named_here("ref_id", "refId")


class SpeakerImageInput(_Request):
    """A picture of who speaks, in place of other ways to choose him. Not in sync.so."""

    type: Literal["speakerImage"]
    url: str | None = Field(None, min_length=1, max_length=MAX_URL, description="http or https.")
    assetId: str | None = Field(None, min_length=1, max_length=64)


class TextInput(_Request):
    """Text to be spoken; known so that it can be refused with a sentence."""

    type: Literal["text"]
    provider: dict[str, Any]
    refId: str | None = None


Input = Annotated[VideoInput | AudioInput | SpeakerImageInput | TextInput, Field(discriminator="type")]


class ActiveSpeaker(_Request):
    """Which face speaks: found here, or said by a point in a frame, or by a box in each frame."""

    auto_detect: bool | None = Field(None, description="The face that covers the largest area of each shot, as where nothing is said.")
    frame_number: int | None = Field(None, ge=0, le=999_999_999, description="Of the coordinates, counted from 0; 0 where it is not given.")
    coordinates: tuple[Pixel, Pixel] | None = Field(None, description="[x, y] on the speaker's face, px of the picture as shown.")
    bounding_boxes: Boxes | None = Field(None, description="[x1, y1, x2, y2] for each frame of the video, or null.")
    v3: bool | None = Field(None, description="Which of sync.so's detectors finds the speaker; here there is one.")


class VideoSpeaker(ActiveSpeaker):
    """Which face speaks in the whole video."""

    occlusion_detection_enabled: bool | None = Field(None, description="The option of this name; sync.so's ComfyUI node has it here.")


def _without_nulls(value: Any) -> Any:
    """Take null for an option that is not given, as sync.so's SDK may send it."""
    return {name: given for name, given in value.items() if given is not None} if isinstance(value, dict) else value


class Options(RenderOptions):
    """How to render: everything the pipeline has, and sync.so's further options. What is not supported is refused by name."""

    active_speaker_detection: VideoSpeaker | bool | None = Field(None, description="Which face speaks; true or false is auto_detect.")
    active_speaker: bool | None = Field(None, description="active_speaker_detection, as it was called before.")
    occlusion_detection_enabled: bool | None = Field(None, description="sync.so's name of face_occluder.")
    output_format: str | None = Field(None, description="sync.so's name of container.")
    model_mode: Literal["lips", "face", "head"] | None = Field(None, description="Only lips.")
    prompt: str | None = Field(None, description="Not supported.")

    _nulls = model_validator(mode="before")(_without_nulls)


class SegmentOptions(_Request):
    """Options that a segment has of its own."""

    sync_mode: SyncMode | None = Field(None, description="How the part of the video becomes as long as what is said.")
    active_speaker_detection: ActiveSpeaker | bool | None = Field(None, description="Who speaks there: no boxes.")

    _nulls = model_validator(mode="before")(_without_nulls)


class SegmentAudio(_Request):
    """What is said in a segment."""

    refId: str = Field(min_length=1, max_length=255, description="Of an audio input; audio is the one that is uploaded with the request.")
    startTime: float | None = Field(None, ge=0, description="Where in it this begins, s; together with endTime.")
    endTime: float | None = Field(None, ge=0, description="And where it ends, s.")

    _ref_id = _named_here("ref_id", "refId")


class GenerationSegment(_Request):
    """A part of the video in which somebody speaks."""

    startTime: float = Field(ge=0, description="s of the video")
    endTime: float = Field(ge=0, description="Behind startTime. Where no sync_mode is given, speech that is longer is cut.")
    audioInput: SegmentAudio
    optionsOverride: SegmentOptions | None = None


class GenerateRequest(_Request):
    """A render to be made."""

    model: str = Field(min_length=1, max_length=128, description="A name from /v2/models, or one that stands for it.")
    input: list[Input] = Field(max_length=16, description="One video and one audio; or an audio for each of several speakers.")
    options: Options | None = None
    segments: list[GenerationSegment] | None = Field(
        None,
        max_length=MOST_SEGMENTS,
        description="Parts of the video in which alone somebody speaks; the rest stays as it is, its own sound included. "
        "A sync_mode in options is that of each segment; without one the video keeps its length.",
    )
    webhookUrl: str | None = Field(None, min_length=1, max_length=MAX_URL, description="Called when the job has ended.")
    outputFileName: FileName | None = Field(None, description="Without the suffix.")
    externalId: str | None = Field(None, min_length=1, max_length=255, description="The client's own name for the job.")
    projectId: str | None = Field(None, description="Not supported.")

    _webhook_url = _named_here("webhook_url", "webhookUrl")


class Progress(BaseModel):
    """How far a job is. Not in sync.so."""

    stage: str
    done: int = Field(description="Frames of this stage that are finished.")
    total: int = Field(description="Frames of this stage; 0 where that is not known yet.")
    percent: int = Field(ge=0, le=100, description="Over all stages; never falls.")
    framesPerSecond: float
    etaSeconds: float | None
    queuePosition: int | None = Field(description="1 for the next to start.")
    startsInSeconds: float | None = Field(
        description="Time until a job that waits starts, by the length of those before it and the pace of the last ones; null where nothing is known."
    )
    facesFound: int | None = Field(description="Source frames that show the speaker's face.")
    framesPassedThrough: int = Field(description="Output frames that are the source's own.")
    segmentsDone: int
    attempts: int
    lastProblem: str | None = Field(
        description="Why the last attempt failed, until the job got further, or that the disk is full; null where nothing was wrong, and at the end."
    )


class Generation(BaseModel):
    """A job."""

    id: str
    createdAt: datetime
    status: GenerationStatus = Field(description="A cancelled job is REJECTED, with the code cancelled.")
    model: str
    input: list[dict[str, Any]]
    options: dict[str, Any] | None = None
    segments: list[dict[str, Any]] | None = None
    outputMediaUrl: str | None = Field(None, description="The video; the link works without a key.")
    outputUrl: str | None = Field(None, description="The same, as it was called before.")
    outputDuration: float | None = Field(None, description="s")
    webhookUrl: str | None = None
    error: str | None = None
    code: str | None = Field(None, description="Stable word for the error; see Errors in the README.")
    errorCode: str | None = Field(None, description="sync.so's word for it, where it has one.")
    error_code: str | None = Field(None, description="The same, as sync.so's SDKs call it.")
    outputFileName: str | None = None
    externalId: str | None = None
    startedAt: datetime | None = None
    finishedAt: datetime | None = None
    expiresAt: datetime | None = Field(None, description="When the result and inputs are removed.")
    progress: Progress
    progress_percent: int = Field(ge=0, le=100, description="The progress's percent, as sync.so calls it.")
    notes: list[str] = Field(description="What the report says of the result, in sentences: what was converted, cut, or left alone, and why.")
    eventsUrl: str = Field(description="Server-sent events; the link works without a key.")
    playlistUrl: str | None = Field(description="HLS, while it is rendered; the link works without a key. None for codecs that HLS does not play.")


class GenerationCount(BaseModel):
    """How many jobs there are."""

    count: int


class AssetView(BaseModel):
    """A file that can be used by many jobs."""

    id: str
    createdAt: datetime
    updatedAt: datetime
    name: str
    url: str
    size: int
    format: str
    type: MediaKind
    inputType: InputType = "UPLOAD"
    durationSeconds: float | None = None
    visibility: Literal["ORGANIZATION"] = Field("ORGANIZATION", description="Whoever has the key sees it, and nobody else.")
    width: int | None = None
    height: int | None = None


class AssetRequest(_Request):
    """A file to be registered as an asset."""

    url: str = Field(min_length=1, max_length=MAX_URL, description="That of an upload here, or a public one, which is fetched.")
    type: MediaKind | None = Field(None, description="What the file is to be used as, which it must have: sound, or a picture.")
    name: str | None = Field(None, min_length=1, max_length=MAX_ASSET_NAME, description="Not the file's.")
    visibility: Visibility | None = Field(None, description="Either way whoever has the key sees it, and nobody else.")
    projectId: str | None = Field(None, description="Not supported.")


class AssetUpdate(_Request):
    """What can be changed of an asset; the rest is measured on its file."""

    name: str | None = Field(None, min_length=1, max_length=MAX_ASSET_NAME)
    visibility: Visibility | None = Field(None, description="Either way whoever has the key sees it, and nobody else.")


class UploadRequest(_Request):
    """A file to be sent to a link."""

    fileName: str = Field(min_length=1, max_length=255)
    contentType: MediaType = Field(max_length=127, description="As the upload has it in its header.")
    size: int = Field(ge=1, description="bytes")


class UploadLink(BaseModel):
    """Where to send a file."""

    uploadUrl: str = Field(description="Takes a PUT of the file, with the Content-Type that was announced; works without a key.")
    url: str = Field(description="To register as an asset then, within a day.")
    expiresIn: int = Field(description="How long the uploadUrl is valid, s.")


class AssetIds(_Request):
    """Assets that are asked for together."""

    ids: str | Annotated[list[str], Field(min_length=1, max_length=100)] = Field(description="One id, or a list of them.")


class UploadedAsset(BaseModel):
    """Whether there is an asset."""

    asset: AssetView | None


class AssetPage(BaseModel):
    """Assets."""

    items: list[AssetView]
    nextCursor: str | None = None
    totalCount: int


class BatchMetrics(BaseModel):
    """How far a batch is."""

    total_generations: int
    success_count: int
    failed_count: int
    pending_count: int


class BatchView(BaseModel):
    """A batch."""

    id: str
    created_at: datetime
    status: BatchStatus
    metrics: BatchMetrics
    webhookUrl: str | None = None
    outputUrl: str = Field(description="JSON lines, one a request; empty until the batch has ended.")


class Validated(BaseModel):
    """The answer to a dry run."""

    status: Literal["VALIDATED"] = "VALIDATED"


class BatchLine(_Request):
    """A line of a batch's input."""

    request_id: str = Field(min_length=1, max_length=255)
    endpoint: Literal["/v2/generate"]
    payload: GenerateRequest


class BatchRequest(_Request):
    """A batch as JSON, in place of a file."""

    rows: list[dict[str, Any]] = Field(min_length=1, max_length=500, description="Each as a line of the file: {request_id, endpoint, payload}.")
    webhook_url: str | None = Field(None, min_length=1, max_length=MAX_URL, description="Called when every request has ended.")
    dry_run: bool = Field(False, description="Only check the rows.")


class ErrorInfo(BaseModel):
    """An error code."""

    code: str = Field(description="As in code, or in errorCode.")
    message: str = Field(description="What it means; an error's own message says more.")
    suggestion: str = Field(description="What to do.")
    statusCode: int = Field(description="The HTTP status, where a request is answered with it.")
    retryable: bool = Field(description="Whether the same request may succeed later.")


class ModelInfo(BaseModel):
    """An installed lip model."""

    id: str
    name: str
    type: Literal["lipsync"] = "lipsync"
    version: str
    description: str


class Cost(BaseModel):
    """What a render would take."""

    estimatedFrameCount: float
    estimatedGenerationCost: float = Field(description="Seconds of rendering on this host, by its measured speed; nothing is charged.")
