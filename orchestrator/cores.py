"""The cores of this machine that this process may use."""

import math
import os
from contextlib import suppress
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Count the cores this process may use: its affinity, and in a container its CPU quota (cgroup v2 or v1), a part of a core as a whole one.

    The embedded Triton's backend, which imports nothing from here, has a twin of it.
    """
    cores = len(os.sched_getaffinity(0))
    group = root / "sys/fs/cgroup"
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # other files, or `max`
            quota, period = (int(number) for file in files for number in (group / file).read_text().split())
            if quota > 0:
                cores = min(cores, math.ceil(quota / period))
    return cores
