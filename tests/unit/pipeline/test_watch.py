"""Stopping, leaving and stalling."""

import threading
import time
from concurrent.futures import Future

import pytest

from orchestrator.errors import RenderCancelled, RenderInterrupted, RenderStalled
from orchestrator.pipeline.concurrency import in_flight, prefetch
from orchestrator.pipeline.watch import Watch


def test_stop_ends_a_wait_for_an_answer_that_never_comes() -> None:
    watch = Watch()
    threading.Timer(0.05, watch.stop, [RenderCancelled("stop")]).start()
    with pytest.raises(RenderCancelled, match="stop"):
        watch.result(Future[int]())


def test_first_stop_counts() -> None:
    watch = Watch()
    watch.stop(RenderCancelled("first"))
    watch.stop(RenderInterrupted("second"))
    with pytest.raises(RenderCancelled, match="first"):
        watch.check()


def test_stall_is_found_only_where_nothing_is_finished() -> None:
    watch = Watch(stall_s=0.2)
    for _ in range(6):
        time.sleep(0.05)
        watch.tick()
    with pytest.raises(RenderStalled, match=r"0\.2 s"):
        watch.result(Future[int]())


def test_answer_of_an_unstopped_wait_is_passed_on_and_so_is_its_error() -> None:
    answered, failed = Future[int](), Future[int]()
    answered.set_result(7)
    failed.set_exception(TimeoutError("the answer's own"))
    assert Watch().result(answered) == 7
    with pytest.raises(TimeoutError, match="the answer's own"):
        Watch().result(failed)


def test_leaving_is_only_at_a_checkpoint() -> None:
    watch = Watch()
    watch.checkpoint()
    watch.leave_at_checkpoint()
    watch.check()
    watch.tick()
    assert watch.is_leaving
    with pytest.raises(RenderInterrupted):
        watch.checkpoint()


def test_stopped_stages_let_go_of_sources_and_requests_that_hang() -> None:
    watch, asked = Watch(), list[Future[int]]()
    released = threading.Event()

    def source() -> "list[int]":
        released.wait(5)
        return []

    def submit(item: int) -> Future[int]:
        asked.append(Future())
        return asked[-1]

    threading.Timer(0.05, watch.stop, [RenderCancelled("stop")]).start()
    with pytest.raises(RenderCancelled):
        list(in_flight(submit, range(3), 2, watch))
    assert all(future.cancelled() for future in asked), "what is under way is cancelled"

    stage = prefetch((item for _ in range(1) for item in source()), 1, "stage-that-hangs", watch)
    threading.Timer(0.2, released.set).start()
    with pytest.raises(RenderCancelled):
        next(stage)
