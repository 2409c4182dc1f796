"""`/v2/assets/batch` and `/v2/assets/uploaded`: assets by many ids, and by their content."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Security

from orchestrator.api.context import Context
from orchestrator.api.problems import V2Error, error_responses, refuse_repeated
from orchestrator.api.uploads import json_body, parse_body, read_json
from orchestrator.api.v2 import API_KEY
from orchestrator.api.v2_assets import asset_view
from orchestrator.api.v2_schema import AssetIds, AssetView, Sha256, UploadedAsset
from orchestrator.media.limits import MediaKind


def asset_lookup_router(context: Context) -> APIRouter:
    """Return the routes, which have to come before that of an asset's id."""
    router = APIRouter(prefix="/v2/assets", tags=["v2"], dependencies=[Security(API_KEY)])

    @router.post("/batch", responses=error_responses(V2Error, 400, 401, 408, 413), openapi_extra=json_body(AssetIds))
    async def get_assets(request: Request) -> list[AssetView]:
        """Return several assets by their ids, each once and in the order asked for; what is not there is left out."""
        ids = parse_body(AssetIds, await read_json(request)).ids
        owner, wanted = context.owner(request), dict.fromkeys([ids] if isinstance(ids, str) else ids)
        found = await context.run(lambda: [context.assets.find(asset_id, owner) for asset_id in wanted])
        return [asset_view(asset, request, context) for asset in found if asset is not None]

    @router.get("/uploaded", responses=error_responses(V2Error, 400, 401))
    async def find_uploaded(
        request: Request,
        digest: Annotated[Sha256, Query(alias="contentSha256", description="Of the file's bytes.")],
        kind: Annotated[MediaKind, Query(alias="type")],
    ) -> UploadedAsset:
        """Return the newest asset of this content and kind, so that a client need not send the file again."""
        refuse_repeated(request, "contentSha256", "type")
        storage, found = context.service.storage, await context.run(context.assets.all, context.owner(request))
        matching = (asset for asset in found if asset.kind == kind and storage.digest_of(asset.path) == digest and storage.holds(asset.path))
        asset = await context.run(next, matching, None)
        return UploadedAsset(asset=None if asset is None else asset_view(asset, request, context))

    return router
