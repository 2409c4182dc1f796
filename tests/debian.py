"""Programs that tests need and that come from the system's packages."""

import os
import shutil
import subprocess


def install(package: str) -> None:
    """Install a Debian package, where this is root on Debian. Whoever calls looks for the program afterwards; what apt says is in its log."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
        subprocess.run(["apt-get", "-qq", *command], check=False, capture_output=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
