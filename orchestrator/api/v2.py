"""`/v2/generate`: jobs as sync.so has them, so that its SDK works here; and cancel, events, result and live video, which it does not have."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.responses import PlainTextResponse, Response
from fastapi.security import APIKeyHeader

from orchestrator.api.answers import event_stream, json_line, playlist, video_file, wait_for_end
from orchestrator.api.context import Context
from orchestrator.api.problems import Problem, V2Error, error_responses, file_responses, refuse_repeated
from orchestrator.api.uploads import form_body, idempotency_key, media_type, parse_body, parse_json, read_json
from orchestrator.api.v2_jobs import build_spec, generation
from orchestrator.api.v2_schema import FILE_NAME, GenerateRequest, Generation
from orchestrator.errors import NotReady
from orchestrator.jobs.model import FINAL_STATES, JobSpec, JobView
from orchestrator.media.formats import CONTAINERS

API_KEY = APIKeyHeader(name="x-api-key", auto_error=False, description="Needed where the service has keys.")
"""For the OpenAPI document; the guard has checked the key before a route is reached."""

JobId = Annotated[str, Path(description="The job's id.", max_length=64)]

POLL_AGAIN_S = 2
"""What who waited in vain is told to wait before the next request, s. As sync.so has it."""

FORM_FILES = ("video", "image", "audio", "speakerImage")
"""Files of a multipart request, each in place of an input of the JSON request; an image is a video that stands still."""

FORM_FIELDS = ("model", "options", "webhookUrl", "outputFileName", "externalId")
"""Text fields of a multipart request; options hold JSON."""

FORM_LISTS = ("input", "segments")
"""Text fields of JSON that may come several times. sync.so's JavaScript SDK sends each input in a part of its own."""

FORM_OPTIONS = ("sync_mode", "temperature", "active_speaker", "active_speaker_detection")
"""Options that sync.so's ComfyUI node has as fields of their own, beside `options`."""

_FORM: dict[str, Any] = {
    "model": {"type": "string", "minLength": 1, "maxLength": 128},
    "video": {"type": "string", "format": "binary", "description": "A video of a person, or a still image."},
    "image": {"type": "string", "format": "binary", "description": "In place of a video, a still image."},
    "audio": {"type": "string", "format": "binary", "description": "Speech: a sound file, or a video with sound."},
    "speakerImage": {"type": "string", "format": "binary", "description": "A picture of who speaks."},
    "input": {
        "type": "array",
        "items": {"type": "string"},
        "description": "JSON as in the JSON request, for what is not uploaded: a list, or one input in each part of this name.",
    },
    "segments": {
        "type": "array",
        "items": {"type": "string"},
        "description": "JSON as in the JSON request, as for input; the audio uploaded here has the refId audio.",
    },
    "options": {"type": "string", "description": "JSON as in the JSON request."},
    **{name: {"type": "string", "description": "The option of this name."} for name in FORM_OPTIONS},
    "webhookUrl": {"type": "string"},
    "outputFileName": {"type": "string", "pattern": FILE_NAME},
    "externalId": {"type": "string", "minLength": 1, "maxLength": 255},
}

_VIDEO_TYPES = [container.media_type for container in CONTAINERS.values()]


def v2_router(context: Context) -> APIRouter:
    """Return the routes of jobs."""
    router = APIRouter(prefix="/v2", tags=["v2"], dependencies=[Security(API_KEY)])

    def shown(view: JobView, base_url: str) -> Generation:
        return generation(view, context, base_url)

    @router.post(
        "/generate",
        status_code=201,
        response_model=Generation,
        responses=error_responses(V2Error, 400, 401, 404, 408, 409, 413, 415, 429, 500, 507),
        openapi_extra={
            "parameters": [
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "required": False,
                    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,128}$"},
                    "description": "The same key with the same request returns the same job.",
                }
            ],
            **form_body(("model",), _FORM, GenerateRequest),
        },
    )
    async def generate(request: Request) -> Generation:
        """Accept a job. It is on disk when this answers; URLs are fetched afterwards, by the job."""
        owner, key = context.owner_name(request), idempotency_key(request)
        if key is None:  # else the job may be there already
            await context.run(context.service.check_room)
        async with _spec(request, context, owner) as spec:
            view = await context.run(context.service.submit, spec, idempotency_key=key)
        return shown(view, context.base_url(request))

    @router.get("/generate/{job_id}", responses=error_responses(V2Error, 400, 401, 404))
    async def get_generation(
        job_id: JobId,
        request: Request,
        response: Response,
        wait: Annotated[bool, Query(description="Answer when the job has ended, or the time is up.")] = False,
        timeout: Annotated[float, Query(ge=1, le=10, description="How long to wait at most, s.")] = 5,
        include: Annotated[Literal["progress"] | None, Query(description="The progress is always there.")] = None,
    ) -> Generation:
        """Return a job."""
        refuse_repeated(request, "wait", "timeout", "include")
        view = await context.job(job_id, request)
        if wait:
            view = await wait_for_end(context, view, timeout, request.is_disconnected)
            response.headers["X-Sync-Wait-Mode"] = "long_poll"
            response.headers["X-Sync-Wait-Timeout-Seconds"] = f"{timeout:g}"
            if view.state not in FINAL_STATES:
                response.headers["Retry-After"] = str(POLL_AGAIN_S)
        return shown(view, context.base_url(request))

    @router.post("/generate/{job_id}/cancel", responses=error_responses(V2Error, 400, 401, 404))
    async def cancel_generation(job_id: JobId, request: Request) -> Generation:
        """Cancel a job; one that has ended stays as it is."""
        view = await context.job(job_id, request)
        return shown(await context.run(context.service.cancel, view.id), context.base_url(request))

    @router.delete("/generate/{job_id}", status_code=204, responses=error_responses(V2Error, 400, 401, 404))
    async def delete_generation(job_id: JobId, request: Request) -> Response:
        """Forget a job, cancelled first if need be, with its result and the inputs that nothing else uses."""
        view = await context.job(job_id, request)
        await context.run(context.service.delete, view.id)
        return Response(status_code=204)

    @router.get(
        "/generate/{job_id}/events",
        response_class=PlainTextResponse,
        responses={
            200: {
                "description": "Server-sent events; the data of each is the job.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **error_responses(V2Error, 400, 401, 404),
        },
    )
    async def events(job_id: JobId, request: Request) -> Response:
        """Stream the job's changes until it has ended. Event names: progress, completed, failed, cancelled."""
        view, base_url = await context.job(job_id, request), context.base_url(request)
        return event_stream(context, view, lambda changed: json_line(shown(changed, base_url).model_dump(mode="json")))

    @router.get(
        "/generate/{job_id}/result",
        response_class=Response,
        responses={**file_responses("The video.", *_VIDEO_TYPES), **error_responses(V2Error, 401, 404, 409)},
    )
    @router.head("/generate/{job_id}/result", include_in_schema=False)
    async def result(job_id: JobId, request: Request) -> Response:
        """Return the result, or a range of it; the media type is that of the container asked for."""
        view = await context.job(job_id, request)
        path = await context.run(context.service.result, view.id)
        return video_file(path, f"{view.spec.output_name or view.id}{path.suffix}")

    @router.get(
        "/generate/{job_id}/playlist.m3u8",
        response_class=PlainTextResponse,
        responses={
            200: {"description": "HLS playlist.", "content": {"application/vnd.apple.mpegurl": {"schema": {"type": "string"}}}},
            **error_responses(V2Error, 400, 401, 404, 409),
        },
    )
    @router.head("/generate/{job_id}/playlist.m3u8", include_in_schema=False)
    async def hls_playlist(job_id: JobId, request: Request) -> Response:
        """Return the HLS playlist of what is rendered so far."""
        view = await context.job(job_id, request)
        segments = await context.run(context.service.segments, view.id)
        query = f"?{request.url.query}" if request.url.query else ""
        return PlainTextResponse(playlist(view, segments, query), media_type="application/vnd.apple.mpegurl")

    @router.get(
        "/generate/{job_id}/segments/{index}.mp4",
        response_class=Response,
        responses={**file_responses("A segment: initialisation, then one fragment.", *_VIDEO_TYPES), **error_responses(V2Error, 401, 404, 409)},
    )
    @router.head("/generate/{job_id}/segments/{index}.mp4", include_in_schema=False)
    async def segment(job_id: JobId, index: Annotated[int, Path(ge=0, le=10**9)], request: Request) -> Response:
        """Return one finished segment of the live video."""
        view = await context.job(job_id, request)
        for found in await context.run(context.service.segments, view.id):
            if found.index == index and found.path.is_file():
                return video_file(found.path, f"{index}{found.path.suffix}")
        raise NotReady("This part of the video is not there; read the playlist again.")

    return router


@asynccontextmanager
async def _spec(request: Request, context: Context, owner: str) -> AsyncIterator[JobSpec]:
    """Read a request in either form."""
    kind = media_type(request)
    if kind == b"application/json":
        body = parse_body(GenerateRequest, await read_json(request))
        yield await context.run(build_spec, body, context, owner)
        return
    if kind != b"multipart/form-data":
        raise Problem(415, "unsupported_media_type", "Send the request as application/json or multipart/form-data.")
    async with context.uploads.form(request, FORM_FILES, (*FORM_FIELDS, *FORM_OPTIONS), FORM_LISTS) as form:
        fields: dict[str, Any] = {**form.fields, "input": []}
        flat = {name: fields.pop(name) for name in FORM_OPTIONS if name in fields}
        for name, values in form.lists.items():
            parsed = [parse_json(value) for value in values]
            fields[name] = [one for value in parsed for one in (value if isinstance(value, list) else [value])]
        if "options" in form.fields:
            fields["options"] = parse_json(form.fields["options"])
        if flat:
            fields["options"] = _with_flat(fields.get("options"), flat)
        video, image, audio, portrait = (form.files[name].path if name in form.files else None for name in FORM_FILES)
        if video is not None and image is not None:
            raise Problem(422, "invalid_option", "The request has a video and an image; send one of them.")
        yield await context.run(build_spec, parse_body(GenerateRequest, fields), context, owner, video=video or image, audio=audio, portrait=portrait)


def _with_flat(options: Any, flat: Mapping[str, str]) -> Any:
    """Return a form's options with those that are fields of their own.

    Raises:
        Problem: one is in both places.
    """
    if options is None:
        options = {}
    if not isinstance(options, dict):
        return options  # refused as a whole
    if doubly := sorted(options.keys() & flat.keys()):
        raise Problem(422, "invalid_option", f"The form has {doubly[0]} in options, too; give it once.")
    return options | {name: value if name == "sync_mode" else parse_json(value) for name, value in flat.items()}
