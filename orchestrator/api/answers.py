"""Answers about a job that are the same for every interface: the result, its events, the live video."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import anyio.to_thread
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from orchestrator.api.context import Context
from orchestrator.api.problems import problem
from orchestrator.errors import InvalidOption, NotReady, UnknownJob
from orchestrator.jobs.model import FINAL_STATES, JobView, Segment
from orchestrator.media.encoding import GOP_S
from orchestrator.media.formats import CONTAINERS, container_of

WAIT_S = 1.0
"""Longest time a thread waits for one job to change, s."""

HEARTBEAT_S = 15.0
"""Longest silence on a stream of events, s; proxies drop connections that say nothing."""

PLAYABLE = {
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "private",
}
"""Headers of a video, which browsers also open by itself."""

UNUSABLE_RANGE = {
    400: ("invalid_request", "The Range header is malformed; write it as bytes=FIRST-LAST, or leave it out."),
    416: ("range_not_satisfiable", "The range is not in the file, whose length Content-Range says; ask for a part of it, or for all."),
}
"""Code and sentence by the status that a range is answered with which cannot be sent."""


class RangedFile(FileResponse):
    """A file with Range requests; a range that cannot be sent is answered as other errors are."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if not Headers(scope=scope).get("range", "bytes=").lower().startswith("bytes="):  # another unit, which RFC 9110 has a server ignore
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}
        refusal: Response | None = None

        async def send_unless_refused(message: Message) -> None:
            nonlocal refusal
            if message["type"] == "http.response.start" and (why := UNUSABLE_RANGE.get(message["status"])) is not None:
                refusal = problem(scope, message["status"], *why)
                if (length := Headers(raw=message["headers"]).get("content-range")) is not None:
                    refusal.headers["Content-Range"] = length
            if refusal is None:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if refusal is not None:
            await refusal(scope, receive, send)


def video_file(path: Path, name: str) -> RangedFile:
    """Return a video with Range requests, of the media type that its path says, `name` being what a browser would save it as."""
    media_type = CONTAINERS[container_of(path) or "mp4"].media_type
    disposition = f"inline; filename*=UTF-8''{quote(name)}"
    return RangedFile(path, media_type=media_type, headers={**PLAYABLE, "Content-Disposition": disposition})


async def next_change(context: Context, job_id: str, seen: int, most_s: float = WAIT_S) -> tuple[int, JobView]:
    """Wait a moment for a job to change."""
    return await anyio.to_thread.run_sync(context.service.wait_change, job_id, seen, min(WAIT_S, most_s), limiter=context.watchers)


async def wait_for_end(context: Context, view: JobView, timeout_s: float, is_gone: Callable[[], Awaitable[bool]]) -> JobView:
    """Wait until a job has ended, the time is up, the client is gone or the service shuts down; return the job as it is then.

    Raises:
        UnknownJob: it was deleted meanwhile.
    """
    deadline = time.monotonic() + timeout_s
    while view.state not in FINAL_STATES and not context.stopping.is_set() and (left_s := deadline - time.monotonic()) > 0:
        if await is_gone():
            break
        _, view = await next_change(context, view.id, view.revision, left_s)
    return view


def event_stream(context: Context, view: JobView, shown: Callable[[JobView], str]) -> StreamingResponse:
    """Return a job's changes as server-sent events, from what it is now to its end. Each event's data is `shown(view)`, one line of JSON."""

    async def events() -> AsyncIterator[str]:
        yield "retry: 2000\n\n"
        yield _event(view, shown)
        seen, current, silent_s = view.revision, view, 0.0
        told = _unwritten(view)
        while current.state not in FINAL_STATES and not context.stopping.is_set():
            before = seen
            try:
                seen, current = await next_change(context, view.id, seen)
            except UnknownJob:
                return  # it was deleted
            if seen != before or told != _unwritten(current):
                told = _unwritten(current)
                yield _event(current, shown)
                silent_s = 0.0
                continue
            silent_s += WAIT_S
            if silent_s >= HEARTBEAT_S:
                yield ": still there\n\n"
                silent_s = 0.0

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def _unwritten(view: JobView) -> tuple[int | None, int | None, str | None]:
    """Return what changes without a change of the job itself: its place among those that wait, in how many seconds it starts, what holds it up."""
    return view.queue_position, None if view.starts_in_s is None else round(view.starts_in_s), view.error_code


def playlist(view: JobView, segments: list[Segment], query: str) -> str:
    """Return the HLS playlist of a job's finished segments; it grows until the job has ended.

    Raises:
        InvalidOption: the video's parts are none that HLS plays.
        NotReady: there is no segment (yet, or no more).
    """
    if not view.spec.has_playlist:
        raise InvalidOption("A video with these options has no HLS playlist; wait for the result, or ask for h264 in mp4 without smart.")
    if not segments:
        is_coming = view.state not in FINAL_STATES
        raise NotReady("No part of the video is rendered yet; ask again in a second." if is_coming else "The live video is over; get the result.")
    # The first segment is shorter than those to come, and a player may count on the number that it read first.
    target_s = max(GOP_S, -int(-max(segment.duration_s for segment in segments) // 1))
    lines = ["#EXTM3U", "#EXT-X-VERSION:7", f"#EXT-X-TARGETDURATION:{target_s}", "#EXT-X-MEDIA-SEQUENCE:0", "#EXT-X-PLAYLIST-TYPE:EVENT"]
    lines.append(f'#EXT-X-MAP:URI="segments/{segments[0].index}.mp4{query}",BYTERANGE="{segments[0].init_bytes}@0"')
    for segment in segments:
        lines.append(f"#EXTINF:{float(segment.duration_s):.6f},")
        lines.append(f"#EXT-X-BYTERANGE:{segment.size_bytes - segment.init_bytes}@{segment.init_bytes}")
        lines.append(f"segments/{segment.index}.mp4{query}")
    if view.state in FINAL_STATES:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def _event(view: JobView, shown: Callable[[JobView], str]) -> str:
    kind = view.state if view.state in FINAL_STATES else "progress"
    return f"id: {view.revision}\nevent: {kind}\ndata: {shown(view)}\n\n"


def json_line(value: object) -> str:
    """Return JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
