"""The cores of this machine that this process may use."""

import math
import os
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Count the cores this process may use: its affinity, and in a container its CPU quota (cgroup v2), a part of a core as a whole one.

    The embedded Triton's backend, which imports nothing from here, has a twin of it.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (root / "sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else min(cores, max(1, math.ceil(int(quota) / int(period))))
