"""Programs that tests need and that come from the system's packages."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def install(package: str) -> None:
    """Install a Debian package, where this is root on Debian. Whoever calls looks for the program afterwards; what apt says is in its log."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    with Path(tempfile.gettempdir(), "lipsync-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side may both come here, and apt would refuse the second
        for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *command], check=False, capture_output=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def run_ffmpeg(*arguments: object) -> None:
    """Run Debian's FFmpeg, another release than PyAV's; what is there already is written over."""
    if shutil.which("ffmpeg") is None:
        install("ffmpeg")
    if shutil.which("ffmpeg") is None:
        pytest.skip("FFmpeg is not installed and cannot be; `apt-get install ffmpeg` as root runs these tests")
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)], check=True)
