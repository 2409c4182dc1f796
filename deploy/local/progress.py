"""Whether a Triton that is not ready yet still does anything.

Stopped for a second while it loads models (a paused container or virtual machine), Triton loses a wake-up now and then: every thread of it and of
its stubs then waits for another one, for ever. How long loading takes says nothing (TensorRT builds engines for minutes, a disk may be slow), but
whoever loads is seen at it: he computes, waits for a disk, fills memory, begins a process, or writes into the log.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.local.guard import processes, stat_fields
from deploy.local.log import TritonLog

LOOK_S = 5.0
"""Between two looks, s."""

STILL_S = 60.0
"""A start in which nothing was to be seen for so long stands still, s. Time in which this process stood still itself does not count."""

IDLE_SHARE = 0.02
"""Of a core, what stubs that wait for each other may use: six of them took 0.0015 together, to look after their parent."""

BUSY = frozenset("RD")
"""States of a thread that computes, or would if a core were free, and of one that waits for a disk or for memory from it."""

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Sight:
    """What is seen of the processes that load models."""

    is_busy: bool
    cpu_s: float
    traces: tuple[object, ...]
    """Processes, page faults and the length of the log: none of them changes while nothing happens."""


class StartWatch:
    """Looks after one start."""

    def __init__(self, guard_pid: int, log: TritonLog) -> None:
        """Begin to watch the Triton of a guard, which leads their process group."""
        self._group = guard_pid
        self._log = log
        self._seen: _Sight | None = None
        self._looked_s = time.monotonic()
        self._still_s = 0.0

    def stands_still(self) -> bool:
        """Tell whether nothing has happened for `STILL_S`; called all the time, it looks every `LOOK_S`."""
        if time.monotonic() - self._looked_s >= LOOK_S:
            before, self._seen = self._seen, self._look()
            self._looked_s = time.monotonic()
            self._still_s = self._still_s + LOOK_S if before is not None and _is_same(before, self._seen) else 0.0
        return self._still_s >= STILL_S

    def _look(self) -> _Sight:
        """Look at the stubs, which do the loading; at Triton itself, which reads the GPUs' counters all the while, only if there are none."""
        members = {pid: int(parent) for pid, (_, parent, group, *_) in processes() if int(group) == self._group != pid}
        watched = sorted(pid for pid, parent in members.items() if parent != self._group) or sorted(members)
        states, ticks, faults = set[str](), 0, 0
        for pid in watched:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                fields = stat_fields(Path(f"/proc/{pid}"))
                faults += int(fields[7]) + int(fields[9])
                ticks += int(fields[11]) + int(fields[12])
                states |= {stat_fields(thread)[0] for thread in Path(f"/proc/{pid}/task").iterdir()}
        return _Sight(bool(states & BUSY), ticks * TICK_S, (watched, faults, self._log.size_bytes()))


def _is_same(before: _Sight, now: _Sight) -> bool:
    return not now.is_busy and now.traces == before.traces and now.cpu_s - before.cpu_s < IDLE_SHARE * LOOK_S
