"""A job's changes as server-sent events."""

import asyncio
import threading
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import anyio

from orchestrator.api.answers import event_stream
from orchestrator.api.context import Context
from orchestrator.jobs.model import JobSpec, JobView


def waiting(place: int, starts_in_s: float | None) -> JobView:
    spec = JobSpec(video="/data/a.mp4", audio="/data/b.wav")
    return JobView(id="a", state="queued", spec=spec, created_at=datetime.now(UTC), queue_position=place, starts_in_s=starts_in_s)


def test_job_that_waits_is_told_anew_when_its_place_or_its_start_changes() -> None:
    """The job itself does not change meanwhile, and the page once showed its first place until it started."""
    seen = [waiting(3, None), waiting(2, None), waiting(2, None), waiting(2, 20.2), waiting(2, 19.9), waiting(2, 14.0)]
    views = iter([*seen, seen[-1].model_copy(update={"state": "cancelled", "queue_position": None, "starts_in_s": None, "revision": 1})])

    async def told() -> list[str]:
        def wait_change(job_id: str, revision: int, timeout_s: float) -> tuple[int, JobView]:
            view = next(views)
            return view.revision, view

        service = SimpleNamespace(wait_change=wait_change)
        context = SimpleNamespace(service=service, watchers=anyio.CapacityLimiter(1), stopping=threading.Event())
        stream = event_stream(cast(Context, context), waiting(3, None), lambda view: f"{view.queue_position} {view.starts_in_s}")
        parts: list[Any] = [part async for part in stream.body_iterator]
        return [line.removeprefix("data: ") for part in parts for line in part.splitlines() if line.startswith("data: ")]

    assert asyncio.run(told()) == ["3 None", "2 None", "2 20.2", "2 14.0", "None None"]
