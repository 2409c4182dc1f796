"""`GET /healthz`: the process lives. `GET /readyz`: a render that comes now will find models that work."""

import threading
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from orchestrator.errors import RenderError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.selftest import SelfTest, Wanted, check_ready, self_test


class Readiness:
    """Remembers that the self-test passed until Triton is seen not ready, so that probes stay cheap."""

    def __init__(self, client: TritonClient, wanted: Wanted = "auto") -> None:
        self._client = client
        self._wanted = wanted
        self._lock = threading.Lock()
        self._passed: SelfTest | None = None

    def check(self) -> SelfTest:
        """Return what the self-test found, all roles ready and tested.

        Raises:
            RenderError: why not.
        """
        with self._lock:
            try:
                check_ready(self._client)
                if self._passed is None:
                    self._passed = self_test(self._client, self._wanted)
            except RenderError:
                self._passed = None
                raise
            return self._passed


def health_router(readiness: Readiness) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "Triton or a model is not ready; the body says which and why."}})
    def readyz() -> dict[str, Any]:
        """Tell whether Triton has every role ready and the self-test passed; and of each role its pack, licence, device, provider and speed."""
        return {"status": "ready", **asdict(readiness.check())}

    return router
