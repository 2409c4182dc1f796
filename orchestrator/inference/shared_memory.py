"""System shared memory between this process and a Triton on the same host: regions for the tensors of the requests under way.

A region has a name in /dev/shm only until Triton has opened it, so nothing is left there however either of the two ends. Triton itself keeps
what was registered, so each pool has a prefix of its own and holds a lock on it (`deploy/local/guard.py`); whoever opens the next pool on
that Triton takes back what belongs to a lock that nobody holds.

CUDA shared memory is not used: crops are cut from, and mouths put into, pictures in host memory, so this process would make the copy to the GPU
and back that Triton makes now, and would need a CUDA context of its own for it.
"""

import mmap
import os
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from deploy.local import guard

FAMILY = "lipsync_client_"
"""Begins every prefix, so that a later pool finds what dead processes left registered."""

CONTROL_DEADLINE_S = 10.0
"""Deadline of registering and unregistering, s."""

CLOSING_DEADLINE_S = 2.0
"""Deadline of unregistering when a pool is closed, s: whoever ends does not wait long for a Triton that hangs."""

AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")
"""Statuses of a Triton that does not answer; what it was asked for comes to nothing next time, too."""

MAX_POOL_BYTES = 256 << 20
"""Memory of a pool. Requests beyond it travel in gRPC messages. Twelve requests of a full batch of 512 px crops fit."""

QUARANTINE_S = 180.0
"""How long a region stays after its request was given up, s: Triton may still be at it. Longer than its queue and a request's deadline."""

_PAGE_BYTES = mmap.PAGESIZE


@dataclass(slots=True, eq=False)
class Region:
    """Memory that Triton has open, too."""

    name: str
    """Under which Triton knows it."""
    size_bytes: int
    bytes: NDArray[np.uint8]
    """(size_bytes,) the memory."""

    def view(self, offset: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return a writable array over part of the region."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        array: NDArray[Any] = self.bytes[offset : offset + count].view(dtype).reshape(shape)
        return array


def make_region(connection: Any, name: str, size_bytes: int) -> Region:
    """Make memory and have Triton open it.

    Args:
        connection: tritonclient's.
        name: no other region has.
        size_bytes: at least what the tensors take.

    Raises:
        InferenceServerException: Triton cannot open it: it runs on another host, as another user, or in a container with a /dev/shm of its own.
        OSError: there is no such memory, or not enough.
    """
    path = guard.REGIONS / name
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, size_bytes)  # else a full /dev/shm shows only when the memory is written to, as SIGBUS
        memory = mmap.mmap(file, size_bytes)
        connection.register_system_shared_memory(name, f"/{name}", size_bytes, client_timeout=CONTROL_DEADLINE_S)
    finally:
        os.close(file)
        path.unlink()
    return Region(name, size_bytes, np.frombuffer(memory, np.uint8))


class SharedMemoryPool:
    """The regions of one connection. Safe to use from several threads."""

    def __init__(self, connection: Any) -> None:
        """Claim a prefix, prove that Triton sees this host's memory, and take back what dead processes left registered.

        Raises:
            InferenceServerException, OSError: see `make_region`.
        """
        self._connection = connection
        self._prefix = f"{FAMILY}{uuid.uuid4().hex[:16]}_"
        self._lock = threading.Lock()
        self._free: list[Region] = []
        self._given_up: list[tuple[float, Region]] = []
        self._names: set[str] = set()
        self._size_bytes = 0
        self._claimed = guard.claim(self._prefix)
        try:
            self._free.append(self._make(_PAGE_BYTES))
            self._take_back()
        except BaseException:
            self._release()
            raise

    def take(self, size_bytes: int) -> Region | None:
        """Return a region that is nobody's, None if there is no memory for one; to be given to `give_back` or `give_up`."""
        with self._lock:
            self._drop_given_up()
            fitting = [region for region in self._free if size_bytes <= region.size_bytes]
            if fitting:
                region = min(fitting, key=lambda region: region.size_bytes)
                self._free.remove(region)
                return region
            size_bytes = -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES
            try:
                while self._size_bytes + size_bytes > MAX_POOL_BYTES:  # too small ones make room
                    if not self._free or not self._drop(self._free[-1]):
                        return None
                    self._free.pop()
                return self._make(size_bytes)
            except (InferenceServerException, OSError):
                return None

    def give_back(self, region: Region) -> None:
        """Say that a region's request has been answered."""
        with self._lock:
            self._free.append(region)

    def give_up(self, region: Region) -> None:
        """Say that a region's request ended without an answer: Triton may still read or write there."""
        with self._lock:
            self._given_up.append((time.monotonic(), region))

    def close(self) -> None:
        """Have Triton let go of every region. What it is still at when the time for that is over, or all where it hangs, a later pool takes back."""
        with self._lock:
            deadline = time.monotonic() + CLOSING_DEADLINE_S
            with suppress(InferenceServerException):
                while self._names and time.monotonic() < deadline:
                    self._names = {name for name in self._names if not self._let_go(name, CLOSING_DEADLINE_S)}
                    time.sleep(0.01 if self._names else 0.0)
            self._names.clear()
            self._free.clear()
        self._release()

    def _make(self, size_bytes: int) -> Region:
        region = make_region(self._connection, f"{self._prefix}{uuid.uuid4().hex[:8]}", size_bytes)
        self._names.add(region.name)
        self._size_bytes += size_bytes
        return region

    def _take_back(self) -> None:
        """Unregister the regions of processes that are gone. Only who shares Triton's /dev/shm can tell, and this pool has just proven that."""
        status = self._connection.get_system_shared_memory_status(as_json=True, client_timeout=CONTROL_DEADLINE_S)
        for name in status.get("regions", {}):
            prefix = f"{name.rpartition('_')[0]}_"
            if name.startswith(FAMILY) and prefix != self._prefix and guard.remove_if_unused(prefix):
                self._let_go(name)
        guard.sweep(FAMILY)

    def _drop_given_up(self) -> None:
        """Let go of the regions that Triton is done with by now. Others took their place long ago: used again, they would only make the pool grow."""
        now = time.monotonic()
        try:
            while self._given_up and now - self._given_up[0][0] > QUARANTINE_S:
                region = self._given_up[0][1]
                is_gone = self._drop(region)
                self._given_up.pop(0)
                if not is_gone:
                    self._given_up.append((now, region))
        except InferenceServerException:  # Triton is away; whoever comes next is not to wait for it, too
            self._given_up = [(now, region) for _, region in self._given_up]

    def _drop(self, region: Region) -> bool:
        if not self._let_go(region.name):
            return False
        self._names.discard(region.name)
        self._size_bytes -= region.size_bytes
        return True

    def _let_go(self, name: str, deadline_s: float = CONTROL_DEADLINE_S) -> bool:
        """Have Triton let go of a region; return False while it is at it, which it is for a moment after its answer, too.

        Raises:
            InferenceServerException: Triton does not answer.
        """
        try:
            self._connection.unregister_system_shared_memory(name, client_timeout=deadline_s)
        except InferenceServerException as exc:
            if exc.status() in AWAY:
                raise
            return False
        return True

    def _release(self) -> None:
        guard.remove_regions(self._prefix)
        os.close(self._claimed)
