"""`GET /healthz`: the process lives. `GET /readyz`: a render that comes now will find models that work."""

import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from orchestrator.errors import RenderError
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


def health_router(readiness: Readiness) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "Triton or a model is not ready; the body says which and why."}})
    def readyz() -> dict[str, Any]:
        """Tell whether Triton has every role ready and the self-test passed."""
        return {"status": "ready", "roles": {role: asdict(status) for role, status in readiness.check().items()}}

    return router
