"""The embedded Triton of a service: started again when it dies."""

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deploy.local.server import LocalTriton
from orchestrator.errors import RenderError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.selftest import check_ready
from orchestrator.session import metrics_address, start_embedded
from orchestrator.settings import Settings

log = logging.getLogger("lipsync.triton")

POLL_S = 0.2
"""How often to look whether Triton still lives, s."""

MIN_BACK_OFF_S, MAX_BACK_OFF_S = 0.5, 30.0
"""Wait before a restart, doubled each time Triton does not live for `STABLE_S`, s."""

STABLE_S = 60.0

PROBE_S = 5.0
"""How often to ask Triton whether it is ready, s."""

HUNG_S = 60.0
"""A Triton that lives but was not ready for this long is ended and started again, s."""


class SupervisedTriton:
    """An embedded Triton and its supervisor. `client` stays the same across restarts; while Triton is away its requests fail as unavailable."""

    def __init__(self, settings: Settings) -> None:
        """Start Triton.

        Raises:
            InferenceUnavailable: it does not start.
            ContractMismatch: the model repository lacks a role.
        """
        self._settings = settings
        self._server: LocalTriton = start_embedded(settings)
        self.client = TritonClient(self._server.grpc_address, settings.request_deadline_s, self._server.metrics_address, settings.transport)
        self.restart_count = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="triton-supervisor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the supervisor, then Triton."""
        self._closed.set()
        self._thread.join()
        self.client.close()
        self._server.stop()

    def _supervise(self) -> None:
        back_off_s = MIN_BACK_OFF_S
        while not self._closed.is_set():
            started_s = time.monotonic()
            cause = self._wait_for_trouble()
            if cause is None:
                return
            log.warning("%s; starting it again", cause)
            self._server.stop()
            back_off_s = MIN_BACK_OFF_S if time.monotonic() - started_s > STABLE_S else min(MAX_BACK_OFF_S, 2 * back_off_s)
            while not self._closed.wait(back_off_s):
                try:
                    self._server = start_embedded(self._settings)
                except RenderError as exc:
                    log.error("Triton does not start: %s", exc)
                    back_off_s = min(MAX_BACK_OFF_S, 2 * back_off_s)
                    continue
                self.client.reconnect(self._server.grpc_address, self._server.metrics_address)
                self.restart_count += 1
                log.info("Triton is back")
                break

    def _wait_for_trouble(self) -> str | None:
        """Return why Triton has to be started again; None when the supervisor is closed."""
        ready_s = probed_s = time.monotonic()
        while not self._closed.is_set():
            with suppress(subprocess.TimeoutExpired):
                return f"Triton ended by itself with status {self._server.wait(POLL_S)}"
            if time.monotonic() - probed_s > PROBE_S:
                with suppress(RenderError):
                    check_ready(self.client)
                    ready_s = time.monotonic()
                probed_s = time.monotonic()
                if probed_s - ready_s > HUNG_S:
                    return f"Triton lives but was not ready for {probed_s - ready_s:.0f} s"
        return None


@contextmanager
def supervised_triton(settings: Settings) -> Iterator[TritonClient]:
    """Connect to the Triton the settings name, or to an embedded one that lives, and is started again, for as long as the block runs.

    Raises:
        InferenceUnavailable: the embedded Triton does not start.
        ContractMismatch: the model repository lacks a role.
    """
    if settings.triton:
        metrics = metrics_address(settings.triton, settings.triton_metrics)
        with TritonClient(settings.triton, settings.request_deadline_s, metrics, settings.transport) as client:
            yield client
        return
    triton = SupervisedTriton(settings)
    try:
        yield triton.client
    finally:
        triton.close()
