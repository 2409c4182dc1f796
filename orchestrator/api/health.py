"""`GET /healthz`: the process lives. `GET /readyz`: a render that comes now will find models that work."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from orchestrator.api.problems import Problem, ProblemDetails, error_responses
from orchestrator.errors import RenderError, RenderInterrupted
from orchestrator.inference.client import TritonClient
from orchestrator.inference.selftest import RoleStatus, check_ready, self_test


class Readiness:
    """Remembers that the self-test passed until Triton is seen not ready, so that probes stay cheap."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._roles: Mapping[str, RoleStatus] | None = None

    def check(self) -> Mapping[str, RoleStatus]:
        """Return the roles, all ready and tested.

        Raises:
            RenderError: why not.
        """
        with self._lock:
            try:
                check_ready(self._client)
                if self._roles is None:
                    self._roles = self_test(self._client)
            except RenderError:
                self._roles = None
                raise
            return self._roles


def health_router(readiness: Readiness, is_accepting: Callable[[], bool]) -> APIRouter:
    """Return the routes; `is_accepting` tells whether jobs are taken on."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses=error_responses(ProblemDetails, 502, 503, 504))
    def readyz() -> dict[str, Any]:
        """Tell whether jobs are taken on, Triton has every role ready and the self-test passed."""
        if not is_accepting():
            raise Problem(503, RenderInterrupted.code, "The service is starting or shutting down; ask again in a minute.")
        return {"status": "ready", "roles": {role: asdict(status) for role, status in readiness.check().items()}}

    return router
