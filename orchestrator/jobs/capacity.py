"""How many renders this host runs at a time: what was set, else what `lipsync tune` measured, else what cores and memory allow."""

import logging
from contextlib import suppress
from pathlib import Path

from deploy.local.gpu import gpu_expected
from orchestrator.cores import available_cores
from orchestrator.media.encoding import Encoding
from orchestrator.pipeline.frames import CPU_FRAMES_BYTES, GPU_FRAMES_BYTES
from orchestrator.pipeline.segments import SERIAL_THREADS
from orchestrator.settings import Settings
from orchestrator.tuned import encoder_threads, read_tuned

log = logging.getLogger("lipsync.jobs")

SERIAL_JOB_BYTES, JOB_BYTES = 700 << 20, 1150 << 20
"""What one render up to 1080p takes at most, whatever the encoder: where its segments are encoded one after the other (`SERIAL_THREADS`), and where
two are at a time. Measured of a new video, which is analysed meanwhile, with 2, 4 and 16 threads: 440, 670, 850 MB with H.264, 630, 900, 980 with
HEVC, 700, 1140, 1130 with AV1, 130 of which the libraries take once for all renders. A new video of 2160x3240 with H.264 took 790 MB with 2."""

LEAST_RENDERS = 2
"""So that a short job need not wait until a long one is done, where there is memory for both."""


def concurrent_renders(settings: Settings) -> int:
    """Return how many renders run at a time; the setting wins. The log says why."""
    tuned = read_tuned(settings.data)
    if settings.max_concurrent_renders is not None:
        count, why = settings.max_concurrent_renders, "as LIPSYNC_MAX_CONCURRENT_RENDERS says"
    else:
        by_cores = renders_by_cores(available_cores(), _encoder_threads(settings))
        wanted, why = (by_cores, "by the cores") if tuned is None else (tuned.concurrent_renders, "as `lipsync tune` measured")
        count = within_memory(wanted, available_bytes(), job_bytes(settings))
        if count < wanted:
            why = f"for lack of memory; {wanted} {why}"
    log.info("renders at a time: %d, %s", count, why)
    return count


def renders_by_cores(cores: int, threads: int) -> int:
    """Return how many renders fill so many cores: an encoder fills as many as it has threads, and one more render fills the gaps."""
    return max(LEAST_RENDERS, cores // threads + 1)


def job_bytes(settings: Settings) -> int:
    """Return what one render up to 1080p takes at most on this host. GPUs want more frames under way; a Triton elsewhere is taken to have one."""
    own = SERIAL_JOB_BYTES if _encoder_threads(settings) <= SERIAL_THREADS else JOB_BYTES
    may_have_gpu = settings.device != "cpu" and (settings.device != "auto" or settings.triton is not None or gpu_expected() is not None)
    return own + (GPU_FRAMES_BYTES - CPU_FRAMES_BYTES if may_have_gpu else 0)


def within_memory(count: int, memory_bytes: int, each_bytes: int) -> int:
    """Return how many of so many renders have the memory they may take; one always runs."""
    return max(1, min(count, memory_bytes // each_bytes))


def available_bytes(root: Path = Path("/")) -> int:
    """Return the memory that can be had: the system's, or what the container's limit (cgroup v2 or v1) leaves. Cached files make room."""
    meminfo = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    free = int(meminfo["MemAvailable"].split()[0]) << 10
    group = root / "sys/fs/cgroup"
    for limit, used, stat, total in (
        ("memory.max", "memory.current", "memory.stat", ""),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_"),
    ):
        with suppress(OSError, ValueError):  # other files, or `max`
            stats = dict(line.split() for line in (group / stat).read_text().splitlines())
            cached = int(stats[f"{total}active_file"]) + int(stats[f"{total}inactive_file"])
            free = max(0, min(free, int((group / limit).read_text()) - int((group / used).read_text()) + cached))
    return free


def _encoder_threads(settings: Settings) -> int:
    return Encoding(thread_count=encoder_threads(settings)).resolved_thread_count
