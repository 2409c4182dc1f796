"""`/v2/assets`: files that are uploaded once and used by many jobs. A video among them is an avatar: its face track is made once and kept."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Security
from fastapi.responses import PlainTextResponse, Response

from orchestrator.api.answers import PLAYABLE, RangedFile
from orchestrator.api.asset_uploads import file_of, own_record
from orchestrator.api.context import Context
from orchestrator.api.problems import Problem, V2Error, error_responses, file_responses, refuse_repeated, refuse_unsupported
from orchestrator.api.uploads import StoredFile, form_body, json_body, media_type, parse_body, read_json
from orchestrator.api.v2 import API_KEY
from orchestrator.api.v2_schema import MAX_ASSET_NAME, AssetPage, AssetRequest, AssetSort, AssetUpdate, AssetView, Unpacked
from orchestrator.errors import MissingStream
from orchestrator.jobs.records import Asset, InputType, new_id
from orchestrator.media.limits import MediaKind, check_limits, summarise

DISCONNECT_POLL_S = 0.2
"""How often it is looked whether a client still waits for its URL to be fetched, s."""

AssetId = Annotated[str, Path(description="The asset's id.", max_length=64)]

_FORM = {
    "file": {"type": "string", "format": "binary"},
    "name": {"type": "string", "minLength": 1, "maxLength": MAX_ASSET_NAME, "description": "Not the file's."},
}

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
        return asset_view(asset, request, context)

    def find(asset_id: str, request: Request) -> Asset:
        return context.assets.get(asset_id, context.owner(request))

    @router.post(
        "",
        status_code=201,
        response_model=AssetView,
        responses=error_responses(V2Error, 400, 401, 408, 413, 415, 500, 507),
        openapi_extra=form_body(("file",), _FORM, AssetRequest),
    )
    async def create_asset(request: Request) -> AssetView:
        """Upload a video, an image or a sound file; or, with JSON, register one that was uploaded to a link, or that lies at a public URL."""
        if media_type(request) == b"application/json":
            return shown(await _register(request, context), request)
        async with context.uploads.form(request, ("file",), ("name",)) as form:
            name = form.fields.get("name")
            if name is not None and not 1 <= len(name) <= MAX_ASSET_NAME:
                raise Problem(422, "invalid_option", f"name must have 1 to {MAX_ASSET_NAME} characters.")
            if "file" not in form.files:
                raise Problem(422, "invalid_request", "The form has no file; send the media as the part named file.")
            asset = await context.run(_store, form.files["file"], name, context, context.owner_name(request))
        return shown(asset, request)

    @router.get("", responses=error_responses(V2Error, 400, 401))
    async def list_assets(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: Annotated[int, Query(ge=0, lt=10**9, description="nextCursor of the page before.")] = 0,
        search_query: Annotated[str | None, Query(alias="searchQuery", max_length=255)] = None,
        sort_by: Annotated[AssetSort, Query(alias="sortBy")] = "dateDesc",
        types: Annotated[list[MediaKind] | None, Unpacked, Query(description="Kinds, given several times or separated by commas.")] = None,
    ) -> AssetPage:
        """Return assets."""
        refuse_repeated(request, "limit", "cursor", "searchQuery", "sortBy")
        refuse_unsupported(request, "projectId", "userId")
        found = await context.run(context.assets.all, context.owner(request))
        needle = (search_query or "").lower()
        found = [asset for asset in found if (not types or asset.kind in types) and needle in asset.name.lower()]
        field = sort_by.removesuffix("Asc").removesuffix("Desc")
        found.sort(key=_SORT_KEYS[field], reverse=sort_by.endswith("Desc"))
        stop = cursor + limit
        following = str(stop) if stop < len(found) else None
        return AssetPage(items=[shown(asset, request) for asset in found[cursor:stop]], nextCursor=following, totalCount=len(found))

    @router.get("/{asset_id}", responses=error_responses(V2Error, 400, 401, 404))
    async def get_asset(asset_id: AssetId, request: Request) -> AssetView:
        """Return an asset."""
        return shown(await context.run(find, asset_id, request), request)

    @router.patch("/{asset_id}", responses=error_responses(V2Error, 400, 401, 404, 408, 413, 500, 507), openapi_extra=json_body(AssetUpdate))
    async def update_asset(asset_id: AssetId, request: Request) -> AssetView:
        """Rename an asset."""
        asset, body = await context.run(find, asset_id, request), parse_body(AssetUpdate, await read_json(request))
        if body.name is not None:
            renamed = {"name": body.name, "updated_at": datetime.now(UTC)}
            asset = await context.run(context.assets.update, asset.id, lambda found: found.model_copy(update=renamed))
        return shown(asset, request)

    @router.delete("/{asset_id}", status_code=204, responses=error_responses(V2Error, 400, 401, 404))
    async def delete_asset(asset_id: AssetId, request: Request) -> Response:
        """Forget an asset. Jobs that use it are not disturbed; its file goes when nothing uses it any more."""
        asset = await context.run(find, asset_id, request)
        await context.run(context.assets.delete, asset.id)
        return Response(status_code=204)

    @router.get("/{asset_id}/download", response_class=PlainTextResponse, responses=error_responses(V2Error, 400, 401, 404))
    async def download(asset_id: AssetId, request: Request) -> str:
        """Return the asset's url as plain text."""
        return shown(await context.run(find, asset_id, request), request).url

    @router.get(
        "/{asset_id}/content",
        response_class=Response,
        responses={**file_responses("The file.", "application/octet-stream"), **error_responses(V2Error, 401, 404)},
    )
    async def content(asset_id: AssetId, request: Request) -> Response:
        """Return an asset's file, or a range of it."""
        asset = await context.run(find, asset_id, request)
        return RangedFile(file_of(asset, context), media_type="application/octet-stream", headers={**PLAYABLE, "Content-Disposition": "attachment"})

    return router


def asset_view(asset: Asset, request: Request, context: Context) -> AssetView:
    """Return an asset as sync.so shows it."""
    path = f"/v2/assets/{asset.id}"
    return AssetView(
        id=asset.id,
        createdAt=asset.created_at,
        updatedAt=asset.updated_at or asset.created_at,
        name=asset.name,
        url=context.signed_url(f"{path}/content", path, context.base_url(request)),
        size=asset.size_bytes,
        format=asset.format,
        type=asset.kind,
        inputType=asset.input_type,
        durationSeconds=round(asset.duration_s, 3) if asset.duration_s is not None else None,
        width=asset.width,
        height=asset.height,
    )


async def _register(request: Request, context: Context) -> Asset:
    """Make an asset of what a request names by URL."""
    body = parse_body(AssetRequest, await read_json(request))
    if body.projectId is not None:
        raise Problem(422, "invalid_option", "There are no projects here; leave projectId out.")
    record = await context.run(own_record, body.url, context, context.owner(request))
    path = None if record is None else await context.run(file_of, record, context)
    if isinstance(record, Asset):
        return record
    owner = context.owner_name(request)
    if record is not None and path is not None:
        stored = StoredFile(path, record.name, record.size_bytes)
        return await context.run(_store, stored, body.name, context, owner, wanted=body.type, asset_id=record.id)
    with context.holds.holding() as hold:
        is_gone = threading.Event()
        watch = asyncio.create_task(_note_end(request, is_gone))
        try:
            stored = await anyio.to_thread.run_sync(context.fetched, body.url, hold, is_gone.is_set, limiter=context.fetchers)
        finally:
            watch.cancel()
        return await context.run(_store, stored, body.name, context, owner, wanted=body.type, input_type="URL")


async def _note_end(request: Request, is_gone: threading.Event) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(DISCONNECT_POLL_S)
    is_gone.set()


def _store(
    stored: StoredFile,
    name: str | None,
    context: Context,
    owner: str,
    *,
    wanted: MediaKind | None = None,
    asset_id: str | None = None,
    input_type: InputType = "UPLOAD",
) -> Asset:
    """Check an uploaded file and remember it."""
    summary = summarise(stored.path)
    check_limits(stored.path, summary, context.media_limits)
    if wanted is not None and not (summary.has_audio if wanted == "AUDIO" else summary.size_wh):
        lacking = "sound" if wanted == "AUDIO" else "picture"
        raise MissingStream(f"The file has no {lacking}, so it cannot be registered as {wanted}; send another one, or say that it is {summary.kind}.")
    return context.assets.save(
        Asset(
            id=asset_id or new_id(),
            owner=owner,
            created_at=datetime.now(UTC),
            name=(name or stored.name)[:MAX_ASSET_NAME],
            path=stored.path,
            size_bytes=stored.size_bytes,
            kind=summary.kind,
            format=summary.format,
            duration_s=float(summary.duration_s) if summary.duration_s is not None else None,
            width=summary.size_wh[0] if summary.size_wh else None,
            height=summary.size_wh[1] if summary.size_wh else None,
            input_type=input_type,
        )
    )
