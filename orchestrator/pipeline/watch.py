"""Whether a render may go on: cancelled from outside, or stalled."""

import threading
import time
from concurrent.futures import Future
from typing import TypeVar

from orchestrator.errors import RenderError, RenderInterrupted, RenderStalled, anew

POLL_S = 0.05
"""Longest time that a wait goes on without a look at the watch, s."""

Result = TypeVar("Result")


class Watch:
    """One render's stop signal and stall detector. Every method may be called from any thread.

    Whatever finishes something calls `tick`; whatever waits calls `check` in between. There is no limit to how long a render takes, only to
    how long nothing at all gets finished.
    """

    def __init__(self, stall_s: float | None = None) -> None:
        """Begin to watch; None never finds a stall."""
        self._stall_s = stall_s
        self._stopped: RenderError | None = None
        self._leave = threading.Event()
        self._last_s = time.monotonic()

    def stop(self, error: RenderError) -> None:
        """End the render with this error, at the next look. The first call counts."""
        self._stopped = self._stopped or error

    def leave_at_checkpoint(self) -> None:
        """Ask the render to end with `RenderInterrupted` where nothing is lost."""
        self._leave.set()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped is not None

    @property
    def stopped_by(self) -> RenderError | None:
        """What `stop` was given; whatever the render runs into afterwards may come of that."""
        return self._stopped

    @property
    def is_leaving(self) -> bool:
        """Whether the render was asked to end at its next checkpoint."""
        return self._leave.is_set()

    def checkpoint(self) -> None:
        """Say that everything up to here is safe on disk.

        Raises:
            RenderInterrupted: the render was asked to leave.
        """
        if self._leave.is_set():
            raise RenderInterrupted("The service is shutting down; the render goes on when it is back.")

    def tick(self) -> None:
        """Say that something was finished, and `check`."""
        self._last_s = time.monotonic()
        self.check()

    def waiting(self) -> None:
        """Say that a wait is no stall, and that nothing is lost by leaving. Raises what `tick` and `checkpoint` do."""
        self.tick()
        self.checkpoint()

    def check(self) -> None:
        """Go on, or not.

        Raises:
            RenderError: what `stop` was given.
            RenderStalled: nothing was finished for too long.
        """
        if self._stopped is not None:
            raise anew(self._stopped)
        if self._stall_s is not None and time.monotonic() - self._last_s > self._stall_s:
            raise RenderStalled(f"Nothing was finished for {self._stall_s:g} s; look at Triton's load and log, and at the disk of the input.")

    def result(self, future: "Future[Result]") -> Result:
        """Wait for a future, looking at the watch meanwhile.

        Raises:
            RenderError: see `check`; also whatever the future raises.
        """
        while True:
            try:
                error = future.exception(POLL_S)
            except TimeoutError:
                self.check()
                continue
            if error is None:
                self.tick()
                return future.result()
            raise anew(error) if isinstance(error, RenderError) else error
