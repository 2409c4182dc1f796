"""`GET /docs`: the API to read and to try, in Swagger UI. Its files come from the package fastapi-offline, so nothing is fetched from elsewhere."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from orchestrator.api.page import content_hash

_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}

DOCS_PATHS = ("/docs", *(f"/docs/{name}" for name in _FILES))

_SCRIPT = 'SwaggerUIBundle({ url: "/openapi.json", dom_id: "#ui", deepLinking: true });'

_HTML = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Lip-sync API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script>{_SCRIPT}</script>
</body>
</html>
"""

_POLICY = (
    f"default-src 'none'; script-src 'self' {content_hash(_SCRIPT)}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_router() -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/docs", include_in_schema=False)
    folder = files("fastapi_offline") / "static"
    contents = {name: (folder / name).read_bytes() for name in _FILES}

    @router.get("")
    @router.head("")
    async def docs() -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(_HTML, headers={"Content-Security-Policy": _POLICY})

    def add(name: str, media_type: str) -> None:
        @router.get(f"/{name}")
        async def part() -> Response:
            """Return a part of Swagger UI."""
            return Response(contents[name], media_type=media_type, headers={"Cache-Control": "max-age=3600"})

    for name, media_type in _FILES.items():
        add(name, media_type)
    return router
