"""`GET /`: a page to try the service, in English and Chinese. One file, nothing from elsewhere."""

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse


def page_router() -> APIRouter:
    """Return the route."""
    router = APIRouter(include_in_schema=False)
    html = files(__package__).joinpath("index.html").read_text()
    headers = {"Content-Security-Policy": content_security_policy(html), "Cache-Control": "no-cache"}

    @router.get("/")
    @router.head("/")
    async def page() -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(html, headers=headers)

    return router


def content_security_policy(html: str) -> str:
    """Return the policy that lets a page run its own script and style, known by their hashes, and nothing else."""
    script, style = (_hash(html, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; media-src 'self' blob:; img-src data: blob:; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )


def content_hash(text: str) -> str:
    """Return a script's or style's hash as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _hash(html: str, tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    assert found is not None
    return content_hash(found.group(1))
