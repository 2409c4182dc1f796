"""What the tests start ends with them."""

import signal
import subprocess
import sys

import pytest

from tests.leash import SETPRIV


@pytest.mark.skipif(SETPRIV is None, reason="setpriv is not installed")
def test_process_on_the_leash_ends_when_its_parent_is_killed() -> None:
    program = (
        "import signal, subprocess, sys, time\nfrom tests.leash import leashed\n"
        "subprocess.Popen(leashed(signal.SIGTERM, 'sh', '-c', 'echo started; exec sleep 600'))\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stdout.read() == "", "the pipe closes with the last process that holds it"
