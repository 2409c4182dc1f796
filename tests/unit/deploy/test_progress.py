"""A Triton that loads is told from one that stands still by what its processes do; here other processes do it, in a group like Triton's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.local import progress
from deploy.local.log import TritonLog
from deploy.local.progress import StartWatch

LOOK_S, STILL_S = 0.1, 0.5

GROUP = """
import subprocess, sys
triton = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-I', '-S', '-c', sys.argv[1]]).returncode)"
sys.exit(subprocess.run([sys.executable, "-I", "-S", "-c", triton if sys.argv[2] == "stub" else sys.argv[1], sys.argv[1]]).returncode)
"""
"""A guard with a Triton that does what is given, or has a stub that does."""

WAITS = "import time\nwhile True: time.sleep(0.05)"
"""As the stubs' threads do that look after their parent."""

WORKS = {
    "computes": "while True: pass",
    "fills memory": "import mmap, time\nmemory = mmap.mmap(-1, 1 << 26)\nfor page in range(0, 1 << 26, 4096): memory[page] = 1; time.sleep(0.05)",
    "begins processes": "import os, time\nwhile True:\n  if os.fork() == 0: time.sleep(0.3); os._exit(0)\n  time.sleep(0.2)",
    "logs": "import time\nwhile True: print('loading', flush=True); time.sleep(0.1)",
}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_S", LOOK_S)
    monkeypatch.setattr(progress, "STILL_S", STILL_S)


@contextmanager
def watched(code: str, doer: str, folder: Path) -> Iterator[StartWatch]:
    """Run this code in a group of processes and watch them."""
    log = TritonLog(folder / "log")
    command = [sys.executable, "-I", "-S", "-c", GROUP, code, doer]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log.file, stderr=log.file, start_new_session=True) as guard:
        try:
            yield StartWatch(guard.pid, log)
            assert guard.poll() is None, log.text()
        finally:
            os.killpg(guard.pid, signal.SIGKILL)
            log.close()


def is_found_still(watch: StartWatch, within_s: float) -> bool:
    """Look for so long, or until the processes are found to stand still; tell whether they were."""
    deadline = time.monotonic() + within_s
    while not (is_still := watch.stands_still()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_still


@pytest.mark.parametrize("doer", ["stub", "triton"])
def test_processes_that_only_wait_are_found_to_stand_still(doer: str, tmp_path: Path) -> None:
    with watched(WAITS, doer, tmp_path) as watch:
        assert is_found_still(watch, 60.0)


@pytest.mark.parametrize(("work", "doer"), [*((work, "stub") for work in WORKS), ("computes", "triton")])
def test_processes_that_do_something_are_left_alone(work: str, doer: str, tmp_path: Path) -> None:
    with watched(WORKS[work], doer, tmp_path) as watch:
        assert not is_found_still(watch, 3 * STILL_S)


def test_time_in_which_nobody_could_look_does_not_count(tmp_path: Path) -> None:
    with watched(WAITS, "stub", tmp_path) as watch:
        for _ in range(2):
            time.sleep(2 * STILL_S)  # as when this process is stopped, too
            assert not watch.stands_still()
