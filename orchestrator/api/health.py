"""`GET /healthz`: the process lives. `GET /readyz`: a render that comes now will find models that work."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import anyio
import anyio.to_thread
from fastapi import APIRouter

from orchestrator.api.problems import Problem, ProblemDetails, error_responses
from orchestrator.errors import RenderError, RenderInterrupted, anew
from orchestrator.inference.client import TritonClient
from orchestrator.inference.selftest import SelfTest, check_ready, self_test
from orchestrator.settings import Device


class Readiness:
    """Remembers that the self-test passed until Triton is seen not ready, so that probes stay cheap.

    One look at a time, on one thread: a Triton that hangs answers none, and whoever asks meanwhile must not take the threads of all else.
    """

    def __init__(self, client: TritonClient, wanted: Device = "auto") -> None:
        self._client = client
        self._wanted = wanted
        self._lock = anyio.Lock()
        self._looked_s = 0.0
        self._found: SelfTest | RenderError | None = None

    async def check(self) -> SelfTest:
        """Return what the self-test found, all roles ready and tested. A look that began after the call is good enough.

        Raises:
            RenderError: why not.
        """
        asked_s = time.monotonic()
        async with self._lock:
            if self._found is None or self._looked_s < asked_s:
                self._looked_s = time.monotonic()
                self._found = await anyio.to_thread.run_sync(self._look, self._found)
            found = self._found
        if isinstance(found, RenderError):
            raise anew(found)
        return found

    def _look(self, before: SelfTest | RenderError | None) -> SelfTest | RenderError:
        try:
            check_ready(self._client)
            return before if isinstance(before, SelfTest) else self_test(self._client, self._wanted)
        except RenderError as exc:
            return exc.with_traceback(None)


def health_router(readiness: Readiness, is_accepting: Callable[[], bool]) -> APIRouter:
    """Return the routes; `is_accepting` tells whether jobs are taken on."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    @router.head("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses=error_responses(ProblemDetails, 502, 503, 504))
    @router.head("/readyz", include_in_schema=False)
    async def readyz() -> dict[str, Any]:
        """Tell whether jobs are taken on, Triton has every role ready and the self-test passed; and of each role its pack, device and speed."""
        if not is_accepting():
            raise Problem(503, RenderInterrupted.code, "The service is starting or shutting down; ask again in a minute.")
        return {"status": "ready", **asdict(await readiness.check())}

    return router
