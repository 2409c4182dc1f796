"""Stages that overlap: order, bounds, errors, and ends that leave nothing behind."""

import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from orchestrator.pipeline.concurrency import in_flight, prefetch


class Source:
    """Counts what was taken from it, and knows whether it was closed."""

    def __init__(self, count: int, fail_at: int | None = None) -> None:
        self.taken = 0
        self.is_closed = False
        self._count = count
        self._fail_at = fail_at

    def items(self) -> Generator[int]:
        try:
            for item in range(self._count):
                if item == self._fail_at:
                    raise OSError("the disk is gone")
                self.taken += 1
                yield item
        finally:
            self.is_closed = True


def test_prefetch_keeps_order_and_ends() -> None:
    assert list(prefetch(range(100), 3, "stage")) == list(range(100))


def test_prefetch_is_never_further_ahead_than_it_may() -> None:
    source = Source(100)
    with closing(prefetch(source.items(), 2, "stage")) as items:
        for item in items:
            assert source.taken <= item + 1 + 2 + 1  # in hand, in the queue, waiting to be put


def test_prefetch_raises_the_sources_error_after_the_items_before_it() -> None:
    items = prefetch(Source(10, fail_at=4).items(), 2, "stage")
    assert [next(items) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_closing_prefetch_early_closes_the_source_and_joins_the_thread() -> None:
    source = Source(10**9)
    with closing(prefetch(source.items(), 2, "stage-to-close")) as items:
        next(items)
    assert source.is_closed
    assert not [thread for thread in threading.enumerate() if thread.name == "stage-to-close"]


def test_in_flight_keeps_order_and_its_window() -> None:
    waiting = set[int]()
    with ThreadPoolExecutor(8) as pool:

        def submit(item: int) -> Future[int]:
            waiting.add(item)
            assert len(waiting) <= 3
            return pool.submit(lambda: item * item)

        for item, result in in_flight(submit, range(50), 3):
            waiting.discard(item)
            assert result == item * item


def test_in_flight_raises_the_first_error_and_waits_for_the_rest() -> None:
    finished = threading.Event()
    first, second = Future[int](), Future[int]()
    first.set_exception(ValueError("first"))
    second.set_running_or_notify_cancel()

    def finish() -> None:
        finished.set()
        second.set_result(1)

    threading.Timer(0.05, finish).start()
    with pytest.raises(ValueError, match="first"):
        list(in_flight(lambda item: (first, second)[item], range(2), 2))
    assert finished.is_set()
