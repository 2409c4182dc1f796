"""A PostgreSQL server for the tests, out of the system's package."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.debian import install
from tests.leash import leashed
from tests.programs import free_port


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, installed first if need be and allowed."""
    if not _installed():
        install("postgresql")
    return _installed()


def _installed() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server on a free port and yield the URL of an empty database."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed and cannot be; `apt-get install postgresql` as root runs these tests")
    # PostgreSQL refuses to run as root, so root lends it its package's user.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="lipsync-postgres-"))
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    port = free_port()
    try:
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tests", "-E", "UTF8", "--no-sync"],
            user=user, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        options = ("-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off")
        command = leashed(signal.SIGINT, programs / "postgres", *options)
        with (folder / "log").open("wb") as log, subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log) as server:
            try:
                _wait_until_it_answers(programs, port, server)
                yield f"postgresql://tests@127.0.0.1:{port}/postgres"
            finally:
                server.send_signal(signal.SIGINT)  # "fast": does not wait for clients
                server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_it_answers(programs: Path, port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while subprocess.run([programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], check=False, capture_output=True).returncode:
        assert server.poll() is None and time.monotonic() < deadline, "PostgreSQL does not start"
        time.sleep(0.1)
