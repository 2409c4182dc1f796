"""`POST /render`: video and speech in one request, the MP4 comes back. For curl."""

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import anyio
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message

from orchestrator.errors import LimitExceeded, RenderCancelled
from orchestrator.inference.client import TritonClient
from orchestrator.media.writer import Encoding
from orchestrator.pipeline.progress import Progress
from orchestrator.pipeline.render import plan_render, render

DISCONNECT_POLL_S = 0.5
"""How often a running render looks whether its client is still there, s."""

_DEFAULTS = Encoding()


def render_router(client: TritonClient, max_upload_bytes: int, max_concurrent_renders: int) -> APIRouter:
    """Return the route."""
    limiter = anyio.CapacityLimiter(max_concurrent_renders)
    router = APIRouter(route_class=limited_route(max_upload_bytes), tags=["render"])

    @router.post(
        "/render",
        response_class=FileResponse,
        responses={
            200: {"content": {"video/mp4": {}}, "description": "The rendered video."},
            413: {"description": "The upload or its picture is too large."},
            422: {"description": "The input cannot be rendered; `code` and `detail` say why."},
            503: {"description": "Triton cannot be reached or is overloaded; try again."},
        },
    )
    async def post_render(
        request: Request,
        video: Annotated[UploadFile, File(description="Video of a person, or a still image.")],
        audio: Annotated[UploadFile, File(description="Speech: a sound file, or a video with sound.")],
        crf: Annotated[int, Form(description="Quality of H.264, 0 (best) to 51.")] = _DEFAULTS.crf,
        preset: Annotated[str, Form(description="libx264 preset, ultrafast to veryslow.")] = _DEFAULTS.preset,
        lossless: Annotated[bool, Form(description="Keep every decoded sample exactly.")] = False,
    ) -> Response:
        """Render a video with lips that follow the speech. Closing the connection cancels the render."""
        encoding = Encoding(crf=crf, preset=preset, lossless=lossless)
        folder = Path(mkdtemp(prefix="lipsync-render-"))
        cancelled = threading.Event()

        def on_progress(progress: Progress) -> None:
            if cancelled.is_set():
                raise RenderCancelled("The client closed the connection; send the request again.")

        def run() -> None:
            for upload, name in ((video, "video"), (audio, "audio")):
                with (folder / name).open("wb") as target:
                    shutil.copyfileobj(upload.file, target, 1 << 20)
            render(plan_render(folder / "video", folder / "audio", folder / "render.mp4", on_progress), client, encoding, on_progress)

        watcher = asyncio.create_task(_watch(request, cancelled))
        try:
            await anyio.to_thread.run_sync(run, limiter=limiter)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            watcher.cancel()
        return FileResponse(
            folder / "render.mp4", media_type="video/mp4", filename="render.mp4", background=BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        )

    return router


async def _watch(request: Request, cancelled: threading.Event) -> None:
    """Set `cancelled` when the client is gone."""
    while not await request.is_disconnected():
        await asyncio.sleep(DISCONNECT_POLL_S)
    cancelled.set()


def limited_route(max_bytes: int) -> type[APIRoute]:
    """Return a route class that refuses a request body larger than `max_bytes`, before or while it arrives."""

    class LimitedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
            handler = super().get_route_handler()

            async def limited(request: Request) -> Response:
                received = 0

                async def receive() -> Message:
                    nonlocal received
                    message = await request.receive()
                    received += len(message.get("body", b""))
                    if received > max_bytes:
                        raise _too_large(max_bytes)
                    return message

                if int(request.headers.get("content-length", 0)) > max_bytes:
                    raise _too_large(max_bytes)
                return await handler(Request(request.scope, receive))

            return limited

    return LimitedRoute


def _too_large(max_bytes: int) -> LimitExceeded:
    return LimitExceeded(f"The request is larger than {max_bytes} bytes; send a smaller file, or raise LIPSYNC_MAX_UPLOAD_BYTES.")
