"""`GET /healthz`: the process lives. `GET /readyz`: a render that comes now will find models that work."""

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from orchestrator.api.problems import Problem, ProblemDetails, error_responses
from orchestrator.errors import RenderError, RenderInterrupted
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


def health_router(readiness: Readiness, is_accepting: Callable[[], bool]) -> APIRouter:
    """Return the routes; `is_accepting` tells whether jobs are taken on."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses=error_responses(ProblemDetails, 502, 503, 504))
    def readyz() -> dict[str, Any]:
        """Tell whether jobs are taken on, Triton has every role ready and the self-test passed; and of each role its pack, device and speed."""
        if not is_accepting():
            raise Problem(503, RenderInterrupted.code, "The service is starting or shutting down; ask again in a minute.")
        return {"status": "ready", **asdict(readiness.check())}

    return router
