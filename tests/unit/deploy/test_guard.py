"""What the guard sees of the machine's processes."""

import shutil
import subprocess
import sys

import pytest

OTHER_USER = """
import os
from deploy.local.guard import processes
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print(sorted(pid for pid, _ in processes()) == [os.getpid()])
"""
"""The first process of a namespace is root's, this one is not any more."""

HIDDEN = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", 'mount -t proc -o hidepid=1 proc /proc && "$0" -c "$1"; exit $?']


def may_hide() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*HIDDEN, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_hide(), reason="needs to be allowed namespaces and mounts")
def test_processes_of_others_that_a_machine_hides_are_none_of_ours() -> None:
    done = subprocess.run([*HIDDEN, sys.executable, OTHER_USER], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
