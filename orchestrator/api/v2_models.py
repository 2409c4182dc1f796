"""`/v2/models`: what is installed. `/v2/analyze/cost`: how long a render would take here."""

from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Security

from orchestrator.api.context import Context
from orchestrator.api.holds import Hold
from orchestrator.api.problems import V2Error, error_responses
from orchestrator.api.uploads import json_body, parse_body, read_json
from orchestrator.api.v2 import API_KEY
from orchestrator.api.v2_jobs import build_spec
from orchestrator.api.v2_schema import Cost, GenerateRequest, ModelInfo
from orchestrator.media.limits import check_inputs, check_video
from orchestrator.media.reach import is_url
from orchestrator.pipeline.plan import expected_frame_count

MEASURED_JOBS = 20
"""Finished jobs whose speed an estimate goes by."""

UNMEASURED_FRAMES_PER_S = 10.0
"""Speed assumed before any job has finished: that of a small CPU host."""


def models_router(context: Context, version: str) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v2", tags=["v2"], dependencies=[Security(API_KEY)])
    described: dict[str, Any] = {
        "responses": error_responses(V2Error, 400, 401, 404, 408, 413, 500, 502, 507),
        "openapi_extra": json_body(GenerateRequest),
    }

    @router.get("/models", responses=error_responses(V2Error, 401))
    async def list_models() -> list[ModelInfo]:
        """Return the installed lip model, and the names that stand for it."""
        installed = ModelInfo(id=context.model, name=context.model, version=version, description="The installed lip model.")
        others = [
            ModelInfo(id=name, name=name, version=version, description=f"Stands for {context.model}.")
            for name in sorted(context.model_aliases - {context.model})
        ]
        return [installed, *others]

    @router.post("/analyze/cost", **described)
    @router.post("/generations/estimate", **described)
    async def estimate_cost(request: Request) -> list[Cost]:
        """Return how many frames a request would have and how many seconds they would take, without making a job. Its URLs are fetched."""
        body = parse_body(GenerateRequest, await read_json(request))
        return [await anyio.to_thread.run_sync(_estimate, body, context, context.owner_name(request), limiter=context.fetchers)]

    return router


def _estimate(body: GenerateRequest, context: Context, owner: str) -> Cost:
    spec = build_spec(body, context, owner)
    with context.holds.holding() as hold:
        video, *speeches = (_local(source, context, hold) for source in (spec.video, *spec.speeches))
        frames = expected_frame_count(spec.options, check_inputs(video, speeches, context.media_limits))
        if spec.speaker_image is not None:
            check_video(_local(spec.speaker_image, context, hold), context.media_limits)
    return Cost(estimatedFrameCount=frames, estimatedGenerationCost=round(frames / _frames_per_s(context), 1))


def _local(source: str, context: Context, hold: Hold) -> Path:
    """Return an input's file; fetched and held if it is a URL."""
    return context.fetched(source, hold).path if is_url(source) else Path(source)


def _frames_per_s(context: Context) -> float:
    """Return the speed of the latest jobs, everything from reading to the finished file included, output frames a second."""
    reports = [view.report for view in context.service.find(state="completed", limit=MEASURED_JOBS) if view.report]
    frames = sum(report["frame_count"] for report in reports)
    seconds = sum(sum(report["stage_s"].values()) for report in reports)
    return frames / seconds if frames and seconds else UNMEASURED_FRAMES_PER_S
