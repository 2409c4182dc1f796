"""Stand between an owner and its Triton, so that neither leaves anything behind.

The owner starts this file as a script, with only the standard library, and holds the write end of the pipe on its standard input:

    owner ──pipe──> guard (session leader, child subreaper) ──> tritonserver ──> one stub per model instance

- The owner writes to the pipe, closes it or is gone (kill -9 included): the guard ends Triton.
- Triton ends by itself (kill -9 included): the guard kills the stubs and ends with Triton's status.
- A stub ends by itself: Triton would go on without it and refuse every request that it would have got, so the guard ends Triton, with `STUB_DIED`.
- The guard is killed: Linux sends Triton SIGTERM, and Triton takes its stubs along.

As subreaper the guard inherits and reaps every process Triton leaves behind. It then deletes the server's shared memory, which is recognised
by a prefix of its own. An exclusive `flock` on `<prefix>lock` says that the prefix is in use; Triton and its stubs inherit it, so it is held
for as long as any of them lives, whatever their process ids, and in every container that shares /dev/shm. Each guard first
removes what belongs to a prefix whose lock nobody holds.
"""

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

REGIONS = Path("/dev/shm")
FAMILY = "lipsync_triton_"
"""Begins every prefix, so that a guard finds what dead servers left."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Numbers of prctl(2) from linux/prctl.h."""

STUB_DIED = 70
"""Status that says so (EX_SOFTWARE of sysexits.h)."""

OWNER_CHECK_S = 1.0
"""How often to look for the owner itself: a process that it forked may hold its end of the pipe open."""


def main() -> int:
    """Run `guard.py OWNER_PID DRAIN_S PREFIX COMMAND...` and return the status to end with.

    It is 0 when Triton was asked to stop, `STUB_DIED`, or Triton's own: 128 + N when signal N killed it.
    """
    owner_pid, drain_s, prefix, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]
    signals = _signal_pipe()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    sweep()
    lock = claim(prefix)
    triton = _Child(command, lock)
    try:
        dead: set[int] = set()
        stub_died = False
        while triton.status() is None and not stub_died and not _stop_wanted(owner_pid, signals):
            # Triton reaps at once the stubs it ends itself; one that still lies there a look later died on its own.
            was_dead, dead = dead, triton.dead_stubs()
            stub_died = bool(was_dead & dead)
        ended_by_itself = STUB_DIED if stub_died else triton.status()
        if ended_by_itself is None:
            triton.terminate()
            deadline = time.monotonic() + drain_s
            while triton.status() is None and (left_s := deadline - time.monotonic()) > 0:
                _drain(signals, left_s)
    finally:
        while children := list(_children(os.getpid())):
            for pid, _ in children:
                os.kill(pid, signal.SIGKILL)
            _drain(signals, 0.05)
            triton.status()
        remove_regions(prefix)
    if ended_by_itself is None:
        return 0
    return ended_by_itself if ended_by_itself >= 0 else 128 - ended_by_itself


class _Child:
    """The server. Reaps every child of the guard, because all of Triton's orphans become that."""

    def __init__(self, command: list[str], lock: int) -> None:
        guard_pid = os.getpid()

        def die_with_guard() -> None:
            _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != guard_pid:  # it was killed before the line above
                os._exit(1)

        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(lock,), preexec_fn=die_with_guard)  # noqa: PLW1509 - one thread

    def status(self) -> int | None:
        """Reap whatever has ended; tell the server's exit status (negative: the signal that killed it), None while it runs."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self._process.pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode

    def dead_stubs(self) -> set[int]:
        """Return the server's children that have ended and that it has not reaped."""
        return {pid for pid, state in _children(self._process.pid) if state == "Z"}

    def terminate(self) -> None:
        """Ask the server to end; it finishes the requests in flight."""
        os.kill(self._process.pid, signal.SIGTERM)


def sweep(family: str = FAMILY) -> None:
    """Remove the shared memory of servers (or another family's processes) that are gone."""
    for lock_file in REGIONS.glob(f"{family}*lock"):
        remove_if_unused(lock_file.name.removesuffix("lock"))


def remove_if_unused(prefix: str) -> bool:
    """Remove everything under a prefix unless a process still holds its lock; tell whether it is gone."""
    try:
        lock = os.open(REGIONS / f"{prefix}lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except PermissionError:  # another user's
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        remove_regions(prefix)
        return True
    finally:
        os.close(lock)


def remove_regions(prefix: str) -> None:
    """Remove everything under a prefix, its lock file last."""
    for region in REGIONS.glob(f"{prefix}*"):
        if region.name != f"{prefix}lock":
            region.unlink(missing_ok=True)
    (REGIONS / f"{prefix}lock").unlink(missing_ok=True)


def claim(prefix: str) -> int:
    """Create and hold a prefix's lock for as long as the returned file is open; again if another guard's sweep came between the two."""
    while True:
        lock = os.open(REGIONS / f"{prefix}lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink > 0:
            return lock
        os.close(lock)


def _signal_pipe() -> int:
    """Have SIGCHLD and the signals that ask to stop written to a pipe; return its read end."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return read_end


def _stop_wanted(owner_pid: int, signals: int) -> bool:
    """Wait for something to happen, a second at most; tell whether the owner is gone or wants Triton gone."""
    stdin = sys.stdin.fileno()
    ready, _, _ = select.select((stdin, signals), (), (), OWNER_CHECK_S)
    received = os.read(signals, 1024) if signals in ready else b""
    return stdin in ready or bool(set(received) - {signal.SIGCHLD}) or os.getppid() != owner_pid


def _drain(signals: int, timeout_s: float) -> None:
    """Wait for a signal, so that the end of a child is seen at once."""
    if select.select((signals,), (), (), timeout_s)[0]:
        os.read(signals, 1024)


def processes() -> Iterator[tuple[int, list[str]]]:
    """List the ids of all processes, each with its fields, see `stat_fields`; other users' only where the machine shows them (hidepid)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                yield int(entry.name), stat_fields(entry)


def stat_fields(folder: Path) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, process group, and so on, see proc(5)."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _children(parent: int) -> Iterator[tuple[int, str]]:
    """List a process's children, each with its state."""
    for pid, (state, parent_pid, *_) in processes():
        if int(parent_pid) == parent:
            yield pid, state


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    sys.exit(main())
