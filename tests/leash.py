"""Processes of the tests that end with them, even where pytest is killed."""

import shutil
import signal
from pathlib import Path

SETPRIV = shutil.which("setpriv")
"""Part of util-linux, which every glibc distribution has; without it such processes outlive a pytest that is killed."""


def leashed(number: signal.Signals, *command: str | Path) -> list[str | Path]:
    """Return the command of a process that gets this signal when the thread that starts it ends, which has to be the tests' main thread."""
    return [SETPRIV, "--pdeathsig", number.name.removeprefix("SIG"), "--", *command] if SETPRIV else list(command)
