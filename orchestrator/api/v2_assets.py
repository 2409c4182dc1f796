"""`/v2/assets`: files that are uploaded once and used by many jobs. A video among them is an avatar: its face track is made once and kept."""

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.responses import FileResponse, Response

from orchestrator.api.answers import PLAYABLE
from orchestrator.api.context import Context
from orchestrator.api.problems import Problem, V2Error, error_responses
from orchestrator.api.uploads import StoredFile
from orchestrator.api.v2 import API_KEY
from orchestrator.api.v2_schema import AssetPage, AssetSort, AssetType, AssetView
from orchestrator.errors import MissingFile
from orchestrator.jobs.records import Asset, new_id
from orchestrator.media.limits import check_limits, summarise

AssetId = Annotated[str, Path(description="The asset's id.", max_length=64)]

_SORT_KEYS: dict[str, Callable[[Asset], Any]] = {
    "name": lambda asset: asset.name.lower(),
    "date": lambda asset: asset.created_at,
    "duration": lambda asset: asset.duration_s or 0.0,
    "size": lambda asset: asset.size_bytes,
    "kind": lambda asset: asset.kind,
}


def assets_router(context: Context) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v2/assets", tags=["v2"], dependencies=[Security(API_KEY)])

    def shown(asset: Asset, request: Request) -> AssetView:
        path = f"/v2/assets/{asset.id}"
        return AssetView(
            id=asset.id,
            createdAt=asset.created_at,
            updatedAt=asset.created_at,
            name=asset.name,
            url=context.signed_url(f"{path}/content", path, context.base_url(request)),
            size=asset.size_bytes,
            format=asset.format,
            type=asset.kind,
            durationSeconds=round(asset.duration_s, 3) if asset.duration_s is not None else None,
            width=asset.width,
            height=asset.height,
        )

    def find(asset_id: str, request: Request) -> Asset:
        return context.assets.get(asset_id, context.owner(request))

    @router.post(
        "",
        status_code=201,
        response_model=AssetView,
        responses=error_responses(V2Error, 401, 408, 413, 415, 422, 500, 507),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["file"],
                            "properties": {
                                "file": {"type": "string", "format": "binary"},
                                "name": {"type": "string", "maxLength": 255, "description": "In place of the file's name."},
                            },
                        }
                    }
                },
            }
        },
    )
    async def upload(request: Request) -> AssetView:
        """Upload a video, an image or a sound file."""
        form = await context.uploads.read_form(request, ("file",), ("name",))
        if "file" not in form.files:
            raise Problem(422, "invalid_request", "The form has no file; send the media as the part named file.")
        asset = await context.run(_store, form.files["file"], form.fields.get("name"), context, context.owner_name(request))
        return shown(asset, request)

    @router.get("", responses=error_responses(V2Error, 401, 422))
    async def list_assets(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: Annotated[str | None, Query(max_length=64)] = None,
        search_query: Annotated[str | None, Query(alias="searchQuery", max_length=255)] = None,
        sort_by: Annotated[AssetSort, Query(alias="sortBy")] = "dateDesc",
        types: Annotated[list[str] | None, Query(description="Kinds, given several times or separated by commas.")] = None,
        project_id: Annotated[str | None, Query(alias="projectId", description="Not supported.")] = None,
    ) -> AssetPage:
        """Return assets."""
        if project_id is not None:
            raise Problem(422, "invalid_option", "There are no projects here; leave projectId out.")
        kinds = [part.strip() for value in types or [] for part in value.split(",") if part.strip()]
        if not set(kinds) <= set(get_args(AssetType)):
            raise Problem(422, "invalid_request", f"There is no such type; use {', '.join(get_args(AssetType))}.")
        start = _cursor_start(cursor)
        found = await context.run(context.assets.all, context.owner(request))
        needle = (search_query or "").lower()
        found = [asset for asset in found if (not kinds or asset.kind in kinds) and needle in asset.name.lower()]
        field = sort_by.removesuffix("Asc").removesuffix("Desc")
        found.sort(key=_SORT_KEYS[field], reverse=sort_by.endswith("Desc"))
        stop = start + limit
        following = base64.urlsafe_b64encode(str(stop).encode()).decode() if stop < len(found) else None
        return AssetPage(items=[shown(asset, request) for asset in found[start:stop]], nextCursor=following, totalCount=len(found))

    @router.get("/{asset_id}", responses=error_responses(V2Error, 401, 404, 422))
    async def get_asset(asset_id: AssetId, request: Request) -> AssetView:
        """Return an asset."""
        return shown(await context.run(find, asset_id, request), request)

    @router.delete("/{asset_id}", status_code=204, responses=error_responses(V2Error, 401, 404, 422))
    async def delete_asset(asset_id: AssetId, request: Request) -> Response:
        """Forget an asset. Jobs that use it are not disturbed; its file goes when nothing uses it any more."""
        asset = await context.run(find, asset_id, request)
        await context.run(context.assets.delete, asset.id)
        return Response(status_code=204)

    @router.get(
        "/{asset_id}/content",
        response_class=Response,
        responses={
            200: {"description": "The file.", "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            206: {"description": "A part of it.", "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            400: {"description": "The Range header is malformed.", "content": {"text/plain": {}}},
            416: {"description": "The range is not in the file.", "content": {"text/plain": {}}},
            **error_responses(V2Error, 401, 404, 422),
        },
    )
    async def content(asset_id: AssetId, request: Request) -> Response:
        """Return an asset's file, or a range of it."""
        asset = await context.run(find, asset_id, request)
        if not context.storage.holds(asset.path):
            raise MissingFile("The file of this asset is gone; upload it again.")
        return FileResponse(asset.path, media_type="application/octet-stream", headers={**PLAYABLE, "Content-Disposition": "attachment"})

    return router


def _store(stored: StoredFile, name: str | None, context: Context, owner: str) -> Asset:
    """Check an uploaded file and remember it."""
    summary = summarise(stored.path)
    check_limits(stored.path, summary, context.media_limits)
    return context.assets.save(
        Asset(
            id=new_id(),
            owner=owner,
            created_at=datetime.now(UTC),
            name=(name or stored.name)[:255],
            path=stored.path,
            size_bytes=stored.size_bytes,
            kind=summary.kind,
            format=summary.format,
            duration_s=float(summary.duration_s) if summary.duration_s is not None else None,
            frame_rate=float(summary.frame_rate) if summary.frame_rate is not None else None,
            width=summary.size_wh[0] if summary.size_wh else None,
            height=summary.size_wh[1] if summary.size_wh else None,
        )
    )


def _cursor_start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        start = int(base64.urlsafe_b64decode(cursor.encode()).decode())
    except (ValueError, binascii.Error):
        start = -1
    if not 0 <= start <= 10**9:
        raise Problem(422, "invalid_request", "The cursor is not one that this service gave; start from the first page.")
    return start
