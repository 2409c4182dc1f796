"""`/v2/generations`: the list of jobs, and sync.so's newer paths to one of them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from fastapi.responses import PlainTextResponse

from orchestrator.api.context import Context
from orchestrator.api.problems import V2Error, error_responses, refuse_repeated, refuse_unsupported
from orchestrator.api.v2 import API_KEY, JobId
from orchestrator.api.v2_jobs import STATUS, generation
from orchestrator.api.v2_schema import Generation, GenerationCount, GenerationStatus, Moment, Unpacked
from orchestrator.errors import NotReady
from orchestrator.jobs.model import FINAL_STATES, JobState, JobView

_ANY: tuple[JobState | None, ...] = (None,)

Statuses = Annotated[list[GenerationStatus] | None, Unpacked, Query(description="Given several times or separated by commas.")]


def generations_router(context: Context) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v2/generations", tags=["v2"], dependencies=[Security(API_KEY)])

    def shown(view: JobView, base_url: str) -> Generation:
        return generation(view, context, base_url)

    @router.get("", responses=error_responses(V2Error, 400, 401, 404))
    async def list_generations(
        request: Request,
        status: Statuses = None,
        ids: Annotated[list[str] | None, Unpacked, Query(description="Ids, given several times or separated by commas.", max_length=1000)] = None,
        external_id: Annotated[str | None, Query(alias="externalId", max_length=255)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        cursor: Annotated[str | None, Query(max_length=64, description="Only jobs created before this one: the last id of the page before.")] = None,
        before: Annotated[Moment | None, Query(description="Only jobs created before this time.")] = None,
    ) -> list[Generation]:
        """Return jobs, newest first."""
        refuse_repeated(request, "externalId", "limit", "cursor", "before")
        refuse_unsupported(request, "projectId", "source")
        owner, base_url = context.owner(request), context.base_url(request)
        states = _states(status)

        def find() -> list[JobView]:
            bounds = [before, None if cursor is None else context.service.get(cursor, owner).created_at]
            first = min((bound for bound in bounds if bound is not None), default=None)
            if ids is not None:
                views = context.service.find(ids=ids, owner=owner, limit=len(ids), before=first)
                views = [view for view in views if view.state in (states or (view.state,))]
            else:
                views = [
                    view
                    for state in (states or _ANY)
                    for view in context.service.find(interface="v2", client_code=external_id, owner=owner, state=state, limit=limit, before=first)
                ]
            return sorted(views, key=lambda view: view.created_at, reverse=True)[:limit]

        return [shown(view, base_url) for view in await context.run(find)]

    @router.get("/count", responses=error_responses(V2Error, 400, 401))
    async def count_generations(request: Request, status: Statuses = None) -> GenerationCount:
        """Return how many jobs there are, of all or of some statuses."""
        refuse_unsupported(request, "projectId", "source", "generationSource", "type")
        count = await context.run(context.service.count, interface="v2", owner=context.owner(request), states=_states(status))
        return GenerationCount(count=count)

    @router.get("/{job_id}", responses=error_responses(V2Error, 400, 401, 404))
    async def get_generation(job_id: JobId, request: Request) -> Generation:
        """Return a job."""
        return shown(await context.job(job_id, request), context.base_url(request))

    @router.get("/{job_id}/download", response_class=PlainTextResponse, responses=error_responses(V2Error, 400, 401, 404, 409))
    async def download_url(job_id: JobId, request: Request) -> str:
        """Return the link to a completed job's video as plain text; it works without a key."""
        view = await context.job(job_id, request)
        await context.run(context.service.result, view.id)
        return shown(view, context.base_url(request)).outputMediaUrl or ""

    @router.delete("/{job_id}", responses=error_responses(V2Error, 400, 401, 404, 409))
    async def delete_generation(job_id: JobId, request: Request) -> Generation:
        """Forget a job that has ended, with its result and the inputs that nothing else uses; return what it was."""
        view = await context.job(job_id, request)
        if view.state not in FINAL_STATES:
            raise NotReady(f"The job is {view.state}; wait for its end, or cancel it, before it is deleted.")
        await context.run(context.service.delete, view.id)
        return shown(view.model_copy(update={"has_result": False}), context.base_url(request))

    return router


def _states(statuses: list[GenerationStatus] | None) -> list[JobState]:
    """Return our states of sync.so's statuses."""
    return [state for state, shown_as in STATUS.items() if shown_as in (statuses or ())]
