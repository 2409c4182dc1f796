"""Stages that overlap: order, bounds, errors, and ends that leave nothing behind."""

import gc
import threading
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest

from orchestrator.errors import InferenceUnavailable, RenderCancelled
from orchestrator.inference.requests import Joined
from orchestrator.pipeline.concurrency import batched, in_flight, prefetch
from orchestrator.pipeline.watch import Watch


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


def test_program_that_is_told_to_end_does_not_wait_for_a_stage_that_waits() -> None:
    """Under a Triton that hung, each stage once took the whole of `JOIN_S` to be left."""

    class Interrupted(Watch):
        def check(self) -> None:
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt
            super().check()

    watch, ended = Interrupted(), list[BaseException]()

    def source() -> Iterator[int]:
        try:
            watch.result(Future[int]())
        except BaseException as exc:
            ended.append(exc)
            raise
        yield 0

    with pytest.raises(KeyboardInterrupt):
        next(prefetch(source(), 1, "stage", watch))
    assert [type(error) for error in ended] == [RenderCancelled]


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


def test_prefetch_that_nobody_reads_starts_nothing() -> None:
    source = Source(10)
    prefetch(source.items(), 2, "stage-not-started").close()
    assert source.taken == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "stage-not-started"]


def test_prefetch_closes_its_source_when_the_consumer_fails() -> None:
    source = Source(10**9)
    with pytest.raises(RuntimeError, match="consumer"), closing(prefetch(source.items(), 2, "stage-of-a-failure")) as items:
        for item in items:
            if item == 3:
                raise RuntimeError("consumer")
    assert source.is_closed
    assert not [thread for thread in threading.enumerate() if thread.name == "stage-of-a-failure"]


def test_prefetch_raises_what_its_source_raises_when_it_is_done() -> None:
    """A source that fails while it cleans up has not succeeded."""

    def items() -> Generator[int]:
        yield 1
        raise OSError("while closing the file")

    stage = prefetch(items(), 2, "stage")
    assert next(stage) == 1
    with pytest.raises(OSError, match="closing"):
        next(stage)


def test_error_of_the_source_wins_over_the_error_of_closing_it() -> None:
    class Sore(Generator[int, None, None]):
        def send(self, value: None) -> int:
            raise ValueError("first")

        def throw(self, *args: object) -> int:
            raise OSError("second")

        def close(self) -> None:
            raise OSError("second")

    with pytest.raises(ValueError, match="first"):
        next(prefetch(Sore(), 1, "stage"))


def test_stages_in_a_row_close_from_the_end_to_the_start() -> None:
    source = Source(10**9)
    first = prefetch(source.items(), 2, "stage-one")
    with closing(prefetch(first, 2, "stage-two")) as items:
        assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert source.is_closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stage-")]


def test_in_flight_waits_for_everything_when_its_source_fails() -> None:
    running = Future[int]()
    running.set_running_or_notify_cancel()
    threading.Timer(0.05, running.set_result, [1]).start()
    with pytest.raises(OSError, match="the disk is gone"):
        list(in_flight(lambda item: running, Source(10, fail_at=2).items(), 5))
    assert running.done()


def test_in_flight_waits_for_everything_when_a_request_cannot_be_made() -> None:
    running = Future[int]()
    running.set_running_or_notify_cancel()
    threading.Timer(0.05, running.set_result, [1]).start()

    def submit(item: int) -> Future[int]:
        if item == 2:
            raise ConnectionError("no server")
        return running

    with pytest.raises(ConnectionError, match="no server"):
        list(in_flight(submit, range(10), 5))
    assert running.done()


def test_closing_in_flight_cancels_what_has_not_begun() -> None:
    futures = [Future[int]() for _ in range(3)]
    futures[0].set_result(0)
    results = in_flight(lambda item: futures[item], range(3), 3)
    assert next(results) == (0, 0)
    results.close()
    assert futures[1].cancelled() and futures[2].cancelled()


def test_results_before_an_error_are_still_handed_out() -> None:
    def answer(item: int) -> Future[int]:
        future = Future[int]()
        if item == 3:
            future.set_exception(ValueError("third"))
        else:
            future.set_result(item)
        return future

    results = in_flight(answer, range(10), 3)
    assert [next(results) for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(ValueError, match="third"):
        next(results)


def test_no_items_are_no_results() -> None:
    assert list(prefetch((), 1, "stage")) == []
    assert list(in_flight(lambda item: Future[int](), (), 1)) == []


def test_prefetch_raises_the_error_of_a_source_that_cannot_even_begin() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise OSError("no source")

    with pytest.raises(OSError, match="no source"):
        list(prefetch(Broken(), 1, "test-decode"))


def test_groups_end_when_enough_items_count_or_too_many_do_not() -> None:
    def numbers() -> Generator[int]:
        yield from range(12)

    assert list(batched(numbers(), lambda number: number >= 5, 2)) == [[0, 1, 2, 3], [4, 5, 6], [7, 8], [9, 10], [11]]


def test_group_counts_no_more_than_asked_for_but_for_one_item_that_is_larger_alone() -> None:
    def numbers() -> Generator[int]:
        yield from (2, 2, 0, 1, 7, 1, 3)

    assert list(batched(numbers(), lambda number: number, 4)) == [[2, 2], [0, 1], [7], [1, 3]]


def test_closing_the_groups_closes_the_source() -> None:
    closed = threading.Event()

    def numbers() -> Generator[int]:
        try:
            yield from range(12)
        finally:
            closed.set()

    with closing(batched(numbers(), lambda number: True, 2)) as groups:
        next(groups)
    assert closed.is_set()


class Picture:
    """Something that a stage holds."""


def test_error_from_a_request_in_a_stage_leaves_nothing_behind_that_the_stage_held() -> None:
    held: list[weakref.ref[Picture]] = []

    def stage() -> Generator[Picture]:
        picture = Picture()
        held.append(weakref.ref(picture))
        answer = Future[int]()
        answer.set_exception(InferenceUnavailable("Triton is away."))
        for item, _ in in_flight(lambda _: Joined([answer]), [picture], 1):
            yield item

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(InferenceUnavailable, match="away"):
            list(prefetch(stage(), 1, "stage"))
        assert held[0]() is None
    finally:
        gc.enable()
