"""`POST /render`: video and speech in one request, the result comes back while it is rendered. For curl."""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
from fastapi import APIRouter, Request, Security
from fastapi.responses import Response, StreamingResponse
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from orchestrator import errors
from orchestrator.api.answers import PLAYABLE, next_change
from orchestrator.api.context import Context
from orchestrator.api.guard import Aborted
from orchestrator.api.health import Readiness
from orchestrator.api.problems import SHUTS_DOWN, Problem, ProblemDetails, error_kinds, error_responses, status_of, validation_sentence
from orchestrator.api.uploads import Form, form_body
from orchestrator.api.v2 import API_KEY
from orchestrator.jobs.model import FINAL_STATES, JobSpeaker, JobSpec, JobView, Segment
from orchestrator.jobs.service import JobService
from orchestrator.media.formats import Container
from orchestrator.media.limits import check_inputs, check_video
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import check_voices, expected_frame_count

_BINARY = {"schema": {"type": "string", "format": "binary"}}

READ_BYTES = 1 << 18
"""Size of a piece of a segment on its way to the client, bytes."""


_OTHER_SPEAKERS = {f"audio_{number}": f"speaker_{number}" for number in (2, 3, 4)}
"""Fields of further speakers: a file with the speech, and a point on the face."""

_OTHER_SPEAKERS_SCHEMA = {
    **{file: {"type": "string", "format": "binary", "description": "Speech of one more speaker."} for file in _OTHER_SPEAKERS},
    **{field: {"type": "string", "description": "X,Y or X,Y,FRAME: a point on his face, as speaker."} for field in _OTHER_SPEAKERS.values()},
}


def render_router(context: Context, readiness: Readiness) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["render"], dependencies=[Security(API_KEY)])
    option_schemas = RenderOptions.model_json_schema()["properties"]

    @router.post(
        "/render",
        response_class=Response,
        responses={
            200: {"content": dict.fromkeys(("video/mp4", "video/webm", "video/x-matroska"), _BINARY), "description": "The video, as it is rendered."},
            **error_responses(ProblemDetails, 401, 408, 413, 415, 422, 429, 500, 502, 503, 504, 507),
        },
        openapi_extra=form_body(
            ("video", "audio"),
            {
                "video": {"type": "string", "format": "binary", "description": "A video of a person, or a still image."},
                "audio": {"type": "string", "format": "binary", "description": "Speech: a sound file, or a video with sound."},
                "speaker_image": {"type": "string", "format": "binary", "description": "Picture of the speaker, in place of speaker."},
                **_OTHER_SPEAKERS_SCHEMA,
                **option_schemas,
            },
        ),
    )
    async def post_render(request: Request) -> Response:
        """Render a video with lips that follow the speech. Closing the connection cancels the render."""
        await readiness.check()
        await context.run(context.service.check_room)
        files, fields = ("video", "audio", "speaker_image", *_OTHER_SPEAKERS), (*RenderOptions.model_fields, *_OTHER_SPEAKERS.values())
        async with context.uploads.form(request, files, fields) as form:
            missing = [name for name in ("video", "audio") if name not in form.files]
            if missing:
                raise Problem(422, "invalid_request", f"The form has no {' and no '.join(missing)}; send both as files.")
            options = _options({name: text for name, text in form.fields.items() if name in RenderOptions.model_fields})
            others = _other_speakers(form, may_be_one=options.segments is not None)
            check_voices(options, [other.speaker for other in others])
            video, audio = form.files["video"].path, form.files["audio"].path
            lengths = await context.run(check_inputs, video, [audio, *(Path(other.audio) for other in others)], context.media_limits)
            portrait = form.files.get("speaker_image")
            if portrait is not None:
                await context.run(check_video, portrait.path, context.media_limits)
            spec = JobSpec(
                video=str(video),
                audio=str(audio),
                others=tuple(others),
                speaker_image=None if portrait is None else str(portrait.path),
                options=options,
                interface="render",
                owner=context.owner_name(request),
                request={"served_by": context.served_by},
                expected_frame_count=expected_frame_count(options, lengths),
            )
            if not spec.is_live:
                raise errors.InvalidOption(
                    f"{spec.container.name} with these options cannot be sent while it is rendered; ask for mp4 or webm without smart, or use /v2."
                )
            live = _LiveVideo(context, await context.run(context.service.submit, spec))
        try:
            await live.begin(request)
        except BaseException:
            await live.end()
            raise
        return _LiveResponse(live)

    return router


def forget_live_renders(service: JobService, served_by: str) -> None:
    """Cancel and forget the renders of connections that this service's restart has cut."""
    for view in service.find(interface="render", limit=10_000):
        if view.spec.request.get("served_by") == served_by:
            service.delete(view.id)


def _other_speakers(form: Form, *, may_be_one: bool) -> list[JobSpeaker]:
    """Return the further speakers of a form, or further tracks of one speaker where that `may_be_one`.

    Raises:
        Problem: one has a track and no point, or the other way round.
    """
    others = []
    for file, field in _OTHER_SPEAKERS.items():
        if (file in form.files) != (field in form.fields) and not (may_be_one and file in form.files):
            raise Problem(422, "invalid_option", f"{file} and {field} belong together: the speech as a file, and a point on the speaker's face.")
        if file in form.files:
            try:
                others.append(JobSpeaker(audio=str(form.files[file].path), speaker=form.fields.get(field, "")))
            except ValidationError as exc:
                raise Problem(422, "invalid_option", f"{field}: {validation_sentence(exc)}") from exc
    return others


def _options(fields: Mapping[str, str]) -> RenderOptions:
    """Return the options that a form's text fields ask for."""
    for name, text in fields.items():
        if RenderOptions.model_fields[name].annotation is bool and text not in ("true", "false"):
            raise Problem(422, "invalid_option", f"{name} must be true or false.")
    try:
        options = RenderOptions.model_validate(dict(fields))
    except ValidationError as exc:
        raise Problem(422, "invalid_option", validation_sentence(exc)) from exc
    options.check()
    return options


class _LiveVideo:
    """A job that exists for one connection."""

    def __init__(self, context: Context, view: JobView) -> None:
        self._context = context
        self._view = view
        self._revision = view.revision
        self._next_index = 0
        self._frame_count = 0
        self._waiting: list[Segment] = []

    @property
    def container(self) -> Container:
        """The kind of file that is sent."""
        return self._view.spec.container

    async def begin(self, request: Request) -> None:
        """Wait for the first segment, so that a job that fails before it is answered with its error.

        Raises:
            Problem: the job failed, or the client is gone.
        """
        while not self._waiting:
            if await request.is_disconnected():
                raise Problem(499, errors.RenderCancelled.code, "The client closed the connection.")
            if not await self._look():
                raise self._failure()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the video: the first segment whole, the others without their initialisation.

        Raises:
            Aborted: there will be no more; the connection ends without the end of the body, which tells the client.
        """
        try:
            while self._waiting or await self._look():
                while self._waiting:
                    segment = self._waiting.pop(0)
                    await self._context.run(self._context.service.storage.keep_segments, self._view.id)  # a client may take hours for all of them
                    async for piece in _read(segment.path, 0 if segment.index == 0 else segment.init_bytes):
                        yield piece
        except (Problem, errors.RenderError, OSError) as exc:
            raise Aborted from exc
        if self._view.state != "completed" or self._frame_count != (self._view.report or {}).get("frame_count"):
            raise Aborted

    async def end(self) -> None:
        """Cancel the job if it has not ended, and forget it."""
        with anyio.CancelScope(shield=True), suppress(errors.UnknownJob):
            await self._context.run(self._context.service.delete, self._view.id)

    async def _look(self) -> bool:
        """Wait a moment for new segments; return whether there may be more."""
        context, view = self._context, self._view
        if view.state not in FINAL_STATES:
            if context.stopping.is_set():
                raise Problem(503, errors.RenderInterrupted.code, SHUTS_DOWN)
            self._revision, self._view = await next_change(context, view.id, self._revision)
        if self._view.state == "completed" or self._view.segments_done > self._next_index:
            found = await context.run(context.service.segments, view.id)
            self._waiting = [segment for segment in found if segment.index >= self._next_index]
            self._next_index += len(self._waiting)
            self._frame_count += sum(segment.frame_count for segment in self._waiting)
        return bool(self._waiting) or view.state not in FINAL_STATES

    def _failure(self) -> Problem:
        code = self._view.error_code or errors.RenderCancelled.code
        status = next((status_of(kind("")) for kind in error_kinds() if kind.code == code), 500)
        return Problem(status, code, self._view.error or "The render was cancelled.")


class _LiveResponse(StreamingResponse):
    """Sends a live video; the job is over with the connection, however that ends and even if it never began."""

    def __init__(self, live: _LiveVideo) -> None:
        disposition = f'inline; filename="render{live.container.suffixes[0]}"'
        super().__init__(live.pieces(), media_type=live.container.media_type, headers={**PLAYABLE, "Content-Disposition": disposition})
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._live.end()


async def _read(path: Path, start: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(start)
        while piece := await file.read(READ_BYTES):
            yield piece
