"""The service's composition root."""

from importlib.metadata import version

from fastapi import FastAPI

from orchestrator.api.health import Readiness, health_router
from orchestrator.api.problems import add_problem_handlers
from orchestrator.api.render import render_router
from orchestrator.inference.client import TritonClient
from orchestrator.settings import Settings


def create_app(client: TritonClient, settings: Settings) -> FastAPI:
    """Return the HTTP service over a Triton that the caller opened and closes."""
    app = FastAPI(title="Lip-sync render service", version=version("lipsync-triton"))
    add_problem_handlers(app)
    app.include_router(health_router(Readiness(client, settings.device)))
    app.include_router(render_router(client, settings.max_upload_bytes, settings.max_concurrent_renders))
    return app
