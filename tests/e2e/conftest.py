"""Programs as a user starts them, on inputs that a user might give."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.leash import leashed

LIPSYNC = str(Path(sys.executable).with_name("lipsync"))


def lipsync(*arguments: str | Path, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([LIPSYNC, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False)


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def has_descendant(process_id: int, name_part: str) -> bool:
    """Tell whether a process has one below it with such a name."""
    for child in psutil.Process(process_id).children(recursive=True):
        try:
            if name_part in child.name():
                return True
        except psutil.NoSuchProcess:
            continue  # it ended while we looked
    return False


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


@contextmanager
def running(*arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """Start `lipsync ...` and make sure that it is gone at the end."""
    with subprocess.Popen(leashed(signal.SIGTERM, LIPSYNC, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail if the test leaves a process or a piece of shared memory behind."""
    processes, memory = {process.pid for process in psutil.process_iter()}, shared_memory()

    def is_clean() -> bool:
        mine = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in processes]
        return shared_memory() <= memory and not [process for process in mine if any("triton" in part for part in process.info["cmdline"] or ())]

    yield
    wait_until(is_clean, "every Triton process and its shared memory gone", timeout_s=30)
