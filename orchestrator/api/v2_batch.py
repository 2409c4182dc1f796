"""`/v2/batch`: many requests in one file of JSON lines. They wait behind the requests of people who sit in front of a screen."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.responses import PlainTextResponse, Response

from orchestrator.api.answers import json_line
from orchestrator.api.batches import MAX_BATCH_BYTES, batch_jobs, batch_view, check_rows, has_ended, outcome, read_items, start_batch
from orchestrator.api.context import Context
from orchestrator.api.problems import Problem, V2Error, error_responses, refuse_repeated
from orchestrator.api.uploads import form_body, media_type, parse_body, read_json
from orchestrator.api.v2 import API_KEY
from orchestrator.api.v2_schema import BatchRequest, BatchStatus, BatchView, Moment, Validated
from orchestrator.errors import NotReady
from orchestrator.jobs.records import Batch, new_id
from orchestrator.media.reach import check_url

_BODY = form_body(
    ("input",),
    {
        "input": {
            "type": "string",
            "format": "binary",
            "description": "JSON lines: {request_id, endpoint: /v2/generate, payload}. At most 500 lines and 5 MB.",
        },
        "webhook_url": {"type": "string", "description": "Called when every request has ended."},
        "dry_run": {"type": "string", "enum": ["true", "false"], "description": "Only check the file."},
    },
    BatchRequest,
)

BatchId = Annotated[str, Path(description="The batch's id.", max_length=64)]


def batch_router(context: Context) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v2/batch", tags=["v2"], dependencies=[Security(API_KEY)])

    def find(batch_id: str, request: Request) -> Batch:
        return context.batches.get(batch_id, context.owner(request))

    @router.post(
        "",
        status_code=201,
        response_model=BatchView | Validated,
        responses=error_responses(V2Error, 400, 401, 404, 408, 413, 415, 429, 500, 507),
        openapi_extra=_BODY,
    )
    async def create(request: Request) -> BatchView | Validated:
        """Check every line, or row of JSON, then accept them all, or none."""
        owner = context.owner_name(request)
        if media_type(request) == b"application/json":
            body = parse_body(BatchRequest, await read_json(request, MAX_BATCH_BYTES))
            items = await context.run(check_rows, enumerate(body.rows, 1), context, owner)
            dry_run, webhook_url = body.dry_run, body.webhook_url
        else:
            async with context.uploads.form(request, ("input",), ("webhook_url", "dry_run")) as form:
                items = await context.run(read_items, form.files.get("input"), context, owner)
            word, webhook_url = form.fields.get("dry_run", "false").lower(), form.fields.get("webhook_url")
            if word not in ("true", "false"):
                raise Problem(422, "invalid_option", "dry_run must be true or false.")
            dry_run = word == "true"
        if webhook_url is not None:
            check_url(webhook_url, context.fetch_policy)
        if dry_run:
            return Validated()
        batch = Batch(id=new_id(), owner=owner, created_at=datetime.now(UTC), webhook_url=webhook_url, is_announced=webhook_url is None, items=items)
        return batch_view(await context.run(start_batch, batch, context), context, context.base_url(request))

    @router.get("", responses=error_responses(V2Error, 400, 401))
    async def list_batches(
        request: Request,
        status: Annotated[BatchStatus | None, Query()] = None,
        created_after: Annotated[Moment | None, Query()] = None,
        created_before: Annotated[Moment | None, Query()] = None,
    ) -> list[BatchView]:
        """Return batches, newest first."""
        refuse_repeated(request, "status", "created_after", "created_before")
        after, before, base_url = created_after, created_before, context.base_url(request)

        def shown() -> list[BatchView]:
            found = context.batches.all(context.owner(request))
            found = [batch for batch in found if (after is None or batch.created_at > after) and (before is None or batch.created_at < before)]
            views = [batch_view(batch, context, base_url) for batch in found]
            return [view for view in views if status in (None, view.status)]

        return await context.run(shown)

    @router.get("/{batch_id}", responses=error_responses(V2Error, 400, 401, 404))
    async def get_batch(batch_id: BatchId, request: Request) -> BatchView:
        """Return a batch."""
        batch = await context.run(find, batch_id, request)
        return await context.run(batch_view, batch, context, context.base_url(request))

    @router.get(
        "/{batch_id}/output",
        response_class=PlainTextResponse,
        responses={
            200: {"description": "JSON lines: {request_id, response}.", "content": {"application/jsonl": {"schema": {"type": "string"}}}},
            **error_responses(V2Error, 400, 401, 404, 409),
        },
    )
    async def output(batch_id: BatchId, request: Request) -> Response:
        """Return the outcome of every request, one a line."""
        batch, base_url = await context.run(find, batch_id, request), context.base_url(request)

        def lines() -> str:
            found = list(batch_jobs(batch, context))
            if not has_ended(found):
                raise NotReady("The batch has not ended yet; ask again later.")
            return "".join(
                json_line({"request_id": item.request_id, "response": outcome(item, view, context, base_url)}) + "\n" for item, view in found
            )

        return PlainTextResponse(await context.run(lines), media_type="application/jsonl")

    return router
