"""Between sync.so's bodies and jobs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from orchestrator.api.asset_uploads import file_of, own_record
from orchestrator.api.context import Context
from orchestrator.api.v2_codes import sync_code
from orchestrator.api.v2_options import checked, chosen_speaker, render_options
from orchestrator.api.v2_schema import (
    AudioInput,
    GenerateRequest,
    Generation,
    GenerationSegment,
    GenerationStatus,
    Input,
    Progress,
    SegmentOptions,
    SpeakerImageInput,
    VideoInput,
)
from orchestrator.errors import InvalidOption
from orchestrator.jobs.model import FINAL_STATES, JobSpeaker, JobSpec, JobState, JobView, Priority
from orchestrator.media.limits import check_local, check_video
from orchestrator.media.reach import check_url
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import check_voices, expected_frame_count

STATUS: Mapping[JobState, GenerationStatus] = {
    "queued": "PENDING",
    "running": "PROCESSING",
    "completed": "COMPLETED",
    "failed": "FAILED",
    # The SDK knows no cancelled state, and clients that wait for a state they know would wait for ever.
    "cancelled": "REJECTED",
}
"""sync.so's status of each of our states."""

UPLOADED_REF_ID = "audio"
"""By which segments name the speech that is uploaded with the request."""


Source = str | Path
"""A URL, or a file of the service."""


@dataclass(frozen=True, slots=True)
class _Speech:
    source: Source
    speaker: str
    """Who says it; "" for whoever says the first one."""
    ref_id: str | None
    """By which segments name it."""


@dataclass(frozen=True, slots=True)
class _Sources:
    video: Source
    portrait: Source | None
    speeches: list[_Speech]
    """At least one."""


def build_spec(
    request: GenerateRequest,
    context: Context,
    owner: str,
    *,
    video: Source | None = None,
    audio: Path | None = None,
    portrait: Source | None = None,
    priority: Priority = "interactive",
) -> JobSpec:
    """Return the job that a request asks for, everything checked that can be checked before its URLs are fetched. Blocks.

    Args:
        request: the request.
        context: the service.
        owner: name of the API key.
        video: an uploaded video, in place of one in the request.
        audio: an uploaded speech, in place of one in the request, or before those of further speakers.
        portrait: an uploaded picture of who speaks, in place of one in the request.
        priority: of the job.

    Raises:
        RenderError: it cannot be rendered.
    """
    if request.model != context.model and request.model not in context.model_aliases:
        raise InvalidOption(f"The model is not installed here; use {context.model}, or another name that /v2/models lists.")
    if request.projectId is not None:
        raise InvalidOption("There are no projects here; leave projectId out.")
    options = render_options(request.options)
    sources = _sources_of(request, context, owner, options.speaker, video=video, audio=audio, portrait=portrait)
    speeches = sources.speeches
    options = _with_speaker(options, speeches[0].speaker)
    if request.segments:
        options, speeches = _with_segments(options, request.segments, speeches)
    first, *others = speeches
    check_voices(options, [other.speaker for other in others])
    lengths = check_local(sources.video, [speech.source for speech in speeches], context.media_limits)
    if isinstance(sources.portrait, Path):
        check_video(sources.portrait, context.media_limits)
    if request.webhookUrl is not None:
        check_url(request.webhookUrl, context.fetch_policy)
    return JobSpec(
        video=str(sources.video),
        audio=str(first.source),
        others=tuple(JobSpeaker(audio=str(other.source), speaker=other.speaker) for other in others),
        speaker_image=None if sources.portrait is None else str(sources.portrait),
        options=options,
        interface="v2",
        client_code=request.externalId,
        owner=owner,
        webhook_url=request.webhookUrl,
        output_name=request.outputFileName,
        priority=priority,
        expected_frame_count=None if lengths is None else expected_frame_count(options, lengths),
        request=request.model_dump(mode="json", exclude_unset=True, exclude={"webhookUrl", "outputFileName", "externalId"}),
    )


def _sources_of(
    request: GenerateRequest, context: Context, owner: str, speaker: str, *, video: Source | None, audio: Path | None, portrait: Source | None
) -> _Sources:
    """Return what a request and the files beside it bring; `speaker` is the first speech's where that says nothing."""
    inputs, uploaded = _beside_files(request, has_video=video is not None, has_audio=audio is not None)
    speeches = [] if audio is None else [_Speech(audio, uploaded.speaker or speaker, uploaded.refId or UPLOADED_REF_ID)]
    for item in inputs:
        if isinstance(item, VideoInput):
            if video is not None:
                raise InvalidOption("The request has more than one video; send one video and one audio.")
            video = _source(item, context, owner)
        elif isinstance(item, SpeakerImageInput):
            if portrait is not None:
                raise InvalidOption("The request has more than one speakerImage; send one.")
            portrait = _source(item, context, owner)
        elif isinstance(item, AudioInput):
            speeches.append(_Speech(_source(item, context, owner), item.speaker or ("" if speeches else speaker), item.refId))
        else:
            raise InvalidOption("Text to speech is not done here; make the speech first, and send it as audio.")
    if video is None or not speeches:
        raise InvalidOption(f"The request has no {'video' if video is None else 'audio'}; send one video and one audio.")
    return _Sources(video, portrait, speeches)


def _with_speaker(options: RenderOptions, speaker: str) -> RenderOptions:
    """Return options with the first speech's speaker."""
    if speaker == options.speaker:
        return options
    if options.speaker != "auto":
        raise InvalidOption("options and the first audio both say who speaks; give one speaker.")
    options = options.model_copy(update={"speaker": speaker})
    options.check()
    return options


def _beside_files(request: GenerateRequest, *, has_video: bool, has_audio: bool) -> tuple[list[Input], AudioInput]:
    """Return the inputs that are not files of the request, and what it says of its uploaded speech.

    As sync.so has it, a file takes the place of the input of its kind, whether that has a URL or not. Of several speeches, which sync.so has in
    segments alone, it takes the place of the one with neither url nor assetId; where each has one, it is one more.
    """
    inputs, speech = list(request.input), AudioInput(type="audio")
    if has_video and (given := next((item for item in inputs if isinstance(item, VideoInput)), None)) is not None:
        inputs.remove(given)
    if has_audio:
        speeches = [item for item in inputs if isinstance(item, AudioInput)]
        named = [item for item in speeches if item.url is None and item.assetId is None]
        if not named and len(speeches) == 1 and speeches[0].speaker is None and not request.segments:
            named = speeches
        if named:
            speech = named[0]
            inputs.remove(speech)
    return inputs, speech


def _with_segments(options: RenderOptions, asked: Sequence[GenerationSegment], speeches: Sequence[_Speech]) -> tuple[RenderOptions, list[_Speech]]:
    """Return options with sync.so's segments, and what is said by whom: a speech of several speakers comes once for each.

    Args:
        options: of the request; they name the first speech's speaker.
        asked: the segments.
        speeches: the audio inputs, in order.

    Raises:
        InvalidOption: a segment has no audio input, or is otherwise wrong.
    """
    if options.segments is not None:
        raise InvalidOption("segments and options.segments say the same; give one of them.")
    references = [speech.ref_id for speech in speeches]
    if len(set(references) - {None}) < len([name for name in references if name is not None]):
        raise InvalidOption("Two audio inputs have the same refId; give each one of its own.")
    chosen = options.model_dump(exclude_unset=True)
    usual_mode = chosen.pop("sync_mode", None)
    segments, tracks = [], list[tuple[int, str]]()
    for number, segment in enumerate(asked, 1):
        crop, own = segment.audioInput, segment.optionsOverride or SegmentOptions()
        if crop.refId not in references:
            raise InvalidOption(f"Segment {number} has the refId of no audio input; use one that an audio input has.")
        if (crop.startTime is None) != (crop.endTime is None):
            raise InvalidOption(f"The audioInput of segment {number} has one of startTime and endTime; give both or none.")
        speech = references.index(crop.refId)
        who = chosen_speaker(own.active_speaker_detection)
        if "speaker_boxes" in who:
            raise InvalidOption(f"Segment {number} says by boxes who speaks; give coordinates, or the boxes in options for the whole video.")
        track = speech, who.get("speaker") or speeches[speech].speaker or options.speaker
        if track not in tracks:
            tracks.append(track)
        segments.append(
            {
                "start": segment.startTime,
                "end": segment.endTime,
                "audio": tracks.index(track) + 1,
                "audio_start": crop.startTime or 0.0,
                "audio_end": crop.endTime,
                "sync_mode": own.sync_mode or usual_mode,
            }
        )
    if unused := sorted(set(range(len(speeches))) - {speech for speech, _ in tracks}):
        raise InvalidOption(f"Audio input {unused[0] + 1} is in no segment; give it one, or leave it out.")
    first = tracks[0][1]
    said = [replace(speeches[speech], speaker="" if speaker == first else speaker) for speech, speaker in tracks]
    return checked({**chosen, "speaker": first, "segments": segments}), said


def generation(view: JobView, context: Context, base_url: str) -> Generation:
    """Return a job as sync.so shows it."""
    path = f"/v2/generate/{view.id}"
    has_failed = view.state in ("failed", "cancelled")
    code = (view.error_code or "cancelled") if has_failed else None
    theirs = None if code is None else sync_code(code)
    duration_s = (view.report or {}).get("duration_s")
    output_url = context.signed_url(f"{path}/result", path, base_url) if view.has_result else None
    return Generation(
        id=view.id,
        createdAt=view.created_at,
        status=STATUS[view.state],
        model=view.spec.request.get("model", context.model),
        input=view.spec.request.get("input", []),
        options=view.spec.request.get("options"),
        segments=view.spec.request.get("segments"),
        outputMediaUrl=output_url,
        outputUrl=output_url,
        outputDuration=round(duration_s, 3) if duration_s is not None else None,
        webhookUrl=view.spec.webhook_url,
        error=(view.error or "The job was cancelled.") if has_failed else None,
        code=code,
        errorCode=theirs,
        error_code=theirs,
        outputFileName=view.spec.output_name,
        externalId=view.spec.client_code,
        startedAt=view.started_at,
        finishedAt=view.finished_at,
        expiresAt=view.finished_at + timedelta(seconds=context.retention_s) if view.finished_at else None,
        progress=Progress(
            stage=view.stage,
            done=view.done,
            total=view.total,
            percent=view.percent,
            framesPerSecond=round(view.frames_per_s, 2),
            etaSeconds=round(view.eta_s, 1) if view.eta_s is not None else None,
            queuePosition=view.queue_position,
            startsInSeconds=round(view.starts_in_s, 1) if view.starts_in_s is not None else None,
            facesFound=view.faces_found,
            framesPassedThrough=view.passed_through,
            segmentsDone=view.segments_done,
            attempts=view.attempts,
            lastProblem=None if view.state in FINAL_STATES else view.error,
        ),
        progress_percent=view.percent,
        notes=(view.report or {}).get("notes", []),
        eventsUrl=context.signed_url(f"{path}/events", path, base_url),
        playlistUrl=context.signed_url(f"{path}/playlist.m3u8", path, base_url) if view.spec.has_playlist else None,
    )


def compact_json(value: Any) -> bytes:
    """Return JSON as JavaScript's JSON.stringify writes it, because sync.so's receivers check the signature over what they parsed and wrote again."""
    return json.dumps(_whole(value), separators=(",", ":"), ensure_ascii=False).encode()


def _whole(value: Any) -> Any:
    """Write 2.0 as 2, as JavaScript does."""
    if isinstance(value, dict):
        return {key: _whole(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _source(item: VideoInput | AudioInput | SpeakerImageInput, context: Context, owner: str) -> Source:
    """Return an input's URL, or the file of its asset."""
    if (item.url is None) == (item.assetId is None):
        raise InvalidOption(f"The {item.type} needs either url or assetId; send one of them.")
    seen_by = owner if context.entrance.keys else None
    if item.url is not None:
        record = own_record(item.url, context, seen_by)
        if record is not None:
            return file_of(record, context)
        check_url(item.url, context.fetch_policy)
        return item.url
    assert item.assetId is not None
    return file_of(context.assets.get(item.assetId, seen_by), context)
