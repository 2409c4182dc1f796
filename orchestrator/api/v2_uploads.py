"""`/v2/assets/upload`: links to send large files to, which become assets when they are registered."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Security
from fastapi.responses import Response

from orchestrator.api.asset_uploads import LINK_VALID_S, is_over
from orchestrator.api.context import Context
from orchestrator.api.problems import Problem, V2Error, error_responses
from orchestrator.api.uploads import json_body, parse_body, read_json
from orchestrator.api.v2 import API_KEY
from orchestrator.api.v2_schema import UploadLink, UploadRequest
from orchestrator.errors import LimitExceeded
from orchestrator.jobs.records import Upload, new_id


def uploads_router(context: Context) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v2/assets/upload", tags=["v2"], dependencies=[Security(API_KEY)])

    @router.post(
        "",
        status_code=201,
        responses=error_responses(V2Error, 400, 401, 408, 413, 500, 507),
        openapi_extra=json_body(UploadRequest),
    )
    async def create_upload(request: Request) -> UploadLink:
        """Return a link to send a large file to, and the URL to register it by as an asset."""
        body = parse_body(UploadRequest, await read_json(request))
        if body.size > (most := context.fetch_policy.max_bytes):
            raise LimitExceeded(f"The file is larger than {most} bytes; send a smaller one, or raise LIPSYNC_MAX_UPLOAD_BYTES.")
        upload = await context.run(_announce, body, context, context.owner_name(request))
        path, base_url = f"/v2/assets/upload/{upload.id}", context.base_url(request)
        return UploadLink(uploadUrl=context.signed_url(path, path, base_url, LINK_VALID_S), url=f"{base_url}{path}", expiresIn=LINK_VALID_S)

    @router.put(
        "/{upload_id}",
        response_class=Response,
        responses=error_responses(V2Error, 400, 401, 404, 408, 409, 413, 500, 507),
        openapi_extra={"requestBody": {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def upload(upload_id: Annotated[str, Path(max_length=64)], request: Request) -> Response:
        """Take the file that a link was given out for; sent again, it replaces the one before until it is registered."""
        announced = await context.run(context.asset_uploads.get, upload_id, context.owner(request))
        if is_over(announced, LINK_VALID_S):
            raise Problem(401, "unauthorized", "The upload link has expired; ask for another one.")
        if request.headers.get("content-type", "").lower() != announced.content_type.lower():
            raise Problem(422, "invalid_request", f"The upload was announced as {announced.content_type}; send it with this Content-Type.")
        if await context.run(context.assets.find, announced.id) is not None:
            raise Problem(409, "idempotency_conflict", "This upload is registered as an asset already; ask for another link.")
        async with context.uploads.body(request, announced.name, announced.size_bytes) as path:
            await context.run(context.asset_uploads.save, announced.model_copy(update={"path": path}))
        return Response()

    return router


def _announce(body: UploadRequest, context: Context, owner: str) -> Upload:
    context.service.storage.check_space()
    upload = Upload(id=new_id(), owner=owner, created_at=datetime.now(UTC), name=body.fileName, content_type=body.contentType, size_bytes=body.size)
    return context.asset_uploads.save(upload)
