"""What every test is held to: no error in the log, no thread and no zombie left behind."""

import logging
import threading
from collections.abc import Iterator

import psutil
import pytest


@pytest.fixture(autouse=True)
def leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    # gRPC keeps threads of its own for as long as a channel is open; ours carry names.
    ours = [thread for thread in threading.enumerate() if thread not in threads and "decode" in thread.name]
    assert not ours, f"threads left behind: {ours}"
    zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    assert not zombies, f"zombies left behind: {zombies}"
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, f"errors were logged: {errors}"
