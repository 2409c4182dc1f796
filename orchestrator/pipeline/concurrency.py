"""The two ways stages overlap: one thread ahead of its consumer, and a bounded window of requests kept in order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import closing
from typing import TypeVar

from orchestrator.errors import RenderCancelled
from orchestrator.pipeline.watch import POLL_S, Watch

JOIN_S = 10.0
"""How long a stage that was told to stop may take, s. It looks between two packets, so only a disk that hangs takes longer."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class _End:
    """Travels through the queue behind the last item, with the error that ended the source, if one did."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(source: Iterable[Item], max_items: int, name: str, watch: Watch | None = None) -> Generator[Item]:
    """Run a stage in a thread of its own, at most `max_items` ahead of the consumer.

    Closing the returned generator stops the thread, closes the source and joins. An error in the source is raised here, at the position
    where it happened.

    Raises:
        RenderError: the watch says that the render must not go on.
    """
    watch = watch or Watch()
    items: queue.Queue[Item | _End] = queue.Queue(max_items)
    stopped = threading.Event()

    def run() -> None:
        error: BaseException | None = None
        iterator: Iterator[Item] | None = None
        try:
            iterator = iter(source)
            for item in iterator:
                if not _put(items, item, stopped):
                    break
        except BaseException as exc:  # noqa: BLE001 (raised again in the consumer's thread)
            error = exc
        finally:
            if isinstance(iterator, Generator):
                try:
                    iterator.close()
                except BaseException as exc:  # noqa: BLE001
                    error = error or exc
            _put(items, _End(error), stopped)
            error = None  # see `passed_to`

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = items.get(timeout=POLL_S)
            except queue.Empty:
                watch.check()
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    try:
                        raise item.error
                    finally:
                        del item  # see `passed_to`
                return
            yield item
    except (KeyboardInterrupt, SystemExit):
        watch.stop(RenderCancelled("The program ends."))  # else the stages wait for a Triton that hangs
        raise
    finally:
        stopped.set()
        thread.join(JOIN_S)


def _put(items: "queue.Queue[Item | _End]", item: Item | _End, stopped: threading.Event) -> bool:
    """Put an item, unless the consumer leaves first; returns whether it went in."""
    while not stopped.is_set():
        try:
            items.put(item, timeout=0.05)
            return True
        except queue.Full:
            continue
    return False


def in_flight(
    submit: Callable[[Item], Future[Result]],
    source: Iterable[Item],
    max_in_flight: int,
    watch: Watch | None = None,
) -> Generator[tuple[Item, Result]]:
    """Submit each item and yield it with its result, in order, with at most `max_in_flight` results awaited.

    Closing the generator, or the first error, cancels what is still under way and waits for it, so no request outlives its render.

    Raises:
        RenderError: the watch says that the render must not go on.
    """
    watch = watch or Watch()
    pending: deque[tuple[Item, Future[Result]]] = deque()

    def answered() -> tuple[Item, Result]:
        item, future = pending[0]
        result = watch.result(future)
        pending.popleft()  # only now: what is given up while it is awaited has to be cancelled, too
        return item, result

    try:
        for item in source:
            pending.append((item, submit(item)))
            if len(pending) >= max_in_flight:
                yield answered()
        while pending:
            yield answered()
    finally:
        wait([future for _, future in pending if not future.cancel()], JOIN_S)


def batched(source: Generator[Item], count: Callable[[Item], int], size: int) -> Generator[list[Item]]:
    """Group items so that a group counts at most `size`, but for a single item that does alone, with at most `2 * size` items; closes the source."""
    with closing(source):
        batch: list[Item] = []
        counted = 0
        for item in source:
            own = count(item)
            if batch and counted + own > size:
                yield batch
                batch, counted = [], 0
            batch.append(item)
            counted += own
            if counted >= size or len(batch) == 2 * size:
                yield batch
                batch, counted = [], 0
        if batch:
            yield batch
