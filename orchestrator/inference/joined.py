"""Several requests as one."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeVar

from orchestrator.errors import without_trace

Result = TypeVar("Result")


class Joined(Future[list[Result]]):
    """The results of several requests, in order, as one; the first error is its error. Cancelling it cancels each of them."""

    def __init__(self, parts: Sequence[Future[Result]]) -> None:
        super().__init__()
        self._parts = parts
        self._left = len(parts)
        self._lock = threading.Lock()
        self.set_running_or_notify_cancel()
        for part in parts:
            part.add_done_callback(self._count)

    def cancel(self) -> bool:
        """Ask for the requests to be given up; the error then says so."""
        for part in self._parts:
            part.cancel()
        return False

    def _count(self, _: Future[Result]) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        parts, self._parts = self._parts, ()  # which refer to this future: no cycle is left behind
        try:
            self.set_result([part.result() for part in parts])
        except BaseException as exc:  # noqa: BLE001 (whoever waits for this future has to learn of it)
            self.set_exception(without_trace(exc))
