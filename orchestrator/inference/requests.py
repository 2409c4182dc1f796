"""Several requests: some of them sent ahead of the one that is waited for, or all as one."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

from orchestrator.errors import passed_to

Request = TypeVar("Request")
Result = TypeVar("Result")


def sent_ahead(requests: Iterator[Request], count: int = 2) -> Iterator[Request]:
    """Yield requests in order, `count` of them sent before the first is waited for: taking one out of the iterator is what sends it."""
    waiting = deque(islice(requests, count))
    while waiting:
        yield waiting.popleft()
        waiting.extend(islice(requests, 1))


class Joined(Future[list[Result]]):
    """The results of several requests, none for none, in order, as one; the first error is its error. Cancelling it cancels each of them."""

    def __init__(self, parts: Sequence[Future[Result]]) -> None:
        super().__init__()
        self._parts = parts
        self._left = len(parts)
        self._lock = threading.Lock()
        self.set_running_or_notify_cancel()
        for part in parts:
            part.add_done_callback(self._count)
        if not parts:
            self.set_result([])

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
        with passed_to(self):
            self.set_result([part.result() for part in parts])
