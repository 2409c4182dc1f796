"""Programs as a user starts them, what they leave behind, and waiting for what they do."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from deploy.local import guard
from orchestrator.inference.client import TritonClient
from orchestrator.inference.usage import model_use
from tests.leash import leashed

LIPSYNC = str(Path(sys.executable).with_name("lipsync"))


def lipsync(*arguments: str | Path, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([LIPSYNC, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def abandoned_memory(family: str = "lipsync_") -> set[str]:
    """Return the names of our shared memory whose owner is gone: nobody holds its lock, or there is none."""
    left = {path.name for path in guard.REGIONS.glob(f"{family}*")}
    for lock in guard.REGIONS.glob(f"{family}*lock"):
        with suppress(FileNotFoundError), lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left -= {name for name in left if name.startswith(lock.name.removesuffix("lock"))}
    return left


def is_ours(process: psutil.Process) -> bool:
    """Tell whether these tests started a process, or one that did: it has their data folder. Other tests may run beside them."""
    with suppress(psutil.Error):
        return process.environ().get("LIPSYNC_DATA") == os.environ["LIPSYNC_DATA"]
    return False


def descendants(process_id: int, name_part: str) -> list[psutil.Process]:
    """Return those below a process that have such a name."""
    found = []
    for child in psutil.Process(process_id).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended while we looked
            if name_part in child.name():
                found.append(child)
    return found


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def wait_until_idle(client: TritonClient) -> None:
    """Wait until Triton counts no more inferences of the lip model: it ends the batches that it is computing."""
    counts = [-1]

    def is_still() -> bool:
        counts.append(model_use(client, "lip_sync").inference_count)
        time.sleep(0.5)
        return counts[-1] == counts[-2]

    wait_until(is_still, "Triton is idle")


@contextmanager
def running(*arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """Start `lipsync ...` and make sure that it is gone at the end."""
    with subprocess.Popen(leashed(signal.SIGTERM, LIPSYNC, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
