"""The embedded Triton of a service: started again when it dies."""

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.local.server import LocalTriton
from orchestrator.errors import RenderError
from orchestrator.inference.client import TritonClient
from orchestrator.session import start_embedded
from orchestrator.settings import Settings

log = logging.getLogger("lipsync.triton")

POLL_S = 0.2
"""How often to look whether Triton still lives, s."""

MIN_BACK_OFF_S, MAX_BACK_OFF_S = 0.5, 30.0
"""Wait before a restart, doubled each time Triton does not live for `STABLE_S`, s."""

STABLE_S = 60.0


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
        self.client = TritonClient(self._server.grpc_address, settings.request_deadline_s)
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
        back_off_s, started_s = MIN_BACK_OFF_S, time.monotonic()
        while not self._closed.is_set():
            try:
                status = self._server.wait(POLL_S)
            except subprocess.TimeoutExpired:
                continue
            log.error("Triton ended by itself with status %d; starting it again", status)
            self._server.stop()
            back_off_s = MIN_BACK_OFF_S if time.monotonic() - started_s > STABLE_S else min(MAX_BACK_OFF_S, 2 * back_off_s)
            while not self._closed.wait(back_off_s):
                try:
                    self._server = start_embedded(self._settings)
                except RenderError as exc:
                    log.error("Triton does not start: %s", exc)
                    back_off_s = min(MAX_BACK_OFF_S, 2 * back_off_s)
                    continue
                self.client.reconnect(self._server.grpc_address)
                self.restart_count += 1
                started_s = time.monotonic()
                log.info("Triton is back")
                break


@contextmanager
def supervised_triton(settings: Settings) -> Iterator[TritonClient]:
    """Connect to the Triton the settings name, or to an embedded one that lives, and is started again, for as long as the block runs.

    Raises:
        InferenceUnavailable: the embedded Triton does not start.
        ContractMismatch: the model repository lacks a role.
    """
    if settings.triton:
        with TritonClient(settings.triton, settings.request_deadline_s) as client:
            yield client
        return
    triton = SupervisedTriton(settings)
    try:
        yield triton.client
    finally:
        triton.close()
