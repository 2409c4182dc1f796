"""Whatever ends, and however: no process of the pip-installed Triton is left, no zombie, and no shared memory."""

import fcntl
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from onnx import TensorProto, helper, save

from deploy.local.guard import FAMILY, STUB_DIED, sweep
from deploy.local.server import LocalTriton

SHARED_MEMORY = Path("/dev/shm")

PATIENCE_S = 60.0
"""What ends is waited for much longer than it takes, s: a machine that stands still for a while makes nothing false."""

OWNER = """
import os, sys, time
from pathlib import Path
from deploy.local.server import LocalTriton
triton = LocalTriton.start(Path(sys.argv[1]), Path(sys.argv[2]))
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(600)  # holds the pipe to the guard open
print(triton.shared_memory_prefix, triton.http_address, flush=True)
time.sleep(600)
"""
"""A program that owns a Triton, to be killed."""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with one model in two processes."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "negate" / "1").mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "negate" / "1" / "model.onnx")
    (folder / "negate" / "config.pbtxt").write_text("""
        backend: "onnxruntime"
        max_batch_size: 8
        input [{ name: "x" data_type: TYPE_FP32 dims: [1] }]
        output [{ name: "y" data_type: TYPE_FP32 dims: [1] }]
        instance_group [{ kind: KIND_CPU count: 2 }]
    """)
    return folder


class Family:
    """The processes of one server, noted while it runs."""

    def __init__(self, owner: psutil.Process, prefix: str) -> None:
        self.prefix = prefix
        self.guard = next(process for process in owner.children() if prefix in process.cmdline())
        self.triton = self.guard.children()[0]
        self.stubs = self.triton.children()
        assert len(self.stubs) == 2
        assert len(self.regions()) >= 3  # two stubs' and the lock

    def regions(self) -> list[str]:
        """What lies in shared memory for this server."""
        return sorted(region.name for region in SHARED_MEMORY.glob(f"{self.prefix}*"))

    @contextmanager
    def spared(self) -> Iterator[None]:
        """Keep what it leaves from other servers that start on this machine meanwhile: each sweeps up what nobody locks."""
        with (SHARED_MEMORY / f"{self.prefix}lock").open() as lock:
            holder = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_EX))  # it waits for the guard's end
            holder.start()
            yield
            holder.join(PATIENCE_S)

    def alive(self) -> list[psutil.Process]:
        """Which of its processes exist, zombies included."""
        return [process for process in (self.guard, self.triton, *self.stubs) if process.is_running()]

    def wait_until_gone(self) -> None:
        """Wait until nothing is left."""
        wait_for(lambda: not self.alive(), self.alive)
        wait_for(lambda: not self.regions(), self.regions)


def wait_for(condition: Callable[[], bool], describe: Callable[[], object]) -> None:
    """Poll until the condition holds; fail with a description of what is there instead."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(0.02)


def is_ready(http_address: str) -> bool:
    """Ask a server for its readiness."""
    connection = http.client.HTTPConnection(http_address, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture
def owner(home: Path, repository: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], Family]]:
    """Another process that owns a server, and the server's processes."""
    extra = getattr(request, "param", ())
    with subprocess.Popen([sys.executable, "-c", OWNER, home, repository, *extra], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            prefix = process.stdout.readline().split()[0]
            forked = [child for child in psutil.Process(process.pid).children() if prefix not in child.cmdline()]
            yield process, Family(psutil.Process(process.pid), prefix)
            for child in forked:
                child.kill()
        finally:
            process.kill()


def test_server_outlives_the_thread_that_started_it_and_stops_once_and_for_all(home: Path, repository: Path) -> None:
    started: list[LocalTriton] = []
    thread = threading.Thread(target=lambda: started.append(LocalTriton.start(home, repository, drain_s=0.2)))
    thread.start()
    thread.join()
    [server] = started
    family = Family(psutil.Process(), server.shared_memory_prefix)
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(1.5)
    assert is_ready(server.http_address)
    (SHARED_MEMORY / f"{server.shared_memory_prefix}client").touch()  # a client's region goes with the server
    threads = [threading.Thread(target=server.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.stop()
    assert (family.alive(), family.regions()) == ([], [])
    assert server.poll() == 0, "the guard ended by itself, which it does soon after the time to drain"


def test_exception_in_the_block_stops_the_server(home: Path, repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), LocalTriton.start(home, repository, drain_s=0.2) as server:
        family = Family(psutil.Process(), server.shared_memory_prefix)
        raise KeyboardInterrupt
    assert (family.alive(), family.regions(), server.poll()) == ([], [], 0)


@pytest.mark.parametrize("owner", [(), ("fork",)], indirect=True, ids=["alone", "whose fork holds the pipe"])
def test_killed_owner_leaves_nothing(owner: tuple[subprocess.Popen[str], Family]) -> None:
    process, family = owner
    process.kill()
    family.wait_until_gone()


def test_owner_that_exits_without_stopping_leaves_nothing(owner: tuple[subprocess.Popen[str], Family]) -> None:
    process, family = owner
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE_S)
    family.wait_until_gone()


def test_killed_triton_is_seen_and_leaves_nothing(home: Path, repository: Path) -> None:
    with LocalTriton.start(home, repository) as server:
        family = Family(psutil.Process(), server.shared_memory_prefix)
        family.triton.kill()
        assert server.wait(PATIENCE_S) == 128 + signal.SIGKILL
        assert (family.alive(), family.regions()) == ([], [])


def test_dead_stub_ends_the_server_that_would_go_on_without_it(home: Path, repository: Path) -> None:
    with LocalTriton.start(home, repository) as server:
        family = Family(psutil.Process(), server.shared_memory_prefix)
        family.stubs[0].kill()
        assert server.wait(PATIENCE_S) == STUB_DIED
        assert (family.alive(), family.regions()) == ([], [])


def test_killed_guard_leaves_nothing_after_stop(home: Path, repository: Path) -> None:
    with LocalTriton.start(home, repository) as server:
        family = Family(psutil.Process(), server.shared_memory_prefix)
        family.guard.kill()
        assert server.wait(PATIENCE_S) == -signal.SIGKILL
    assert family.regions() == []
    family.wait_until_gone()


def test_killed_guard_and_owner_leave_nothing_but_an_empty_lock(owner: tuple[subprocess.Popen[str], Family]) -> None:
    process, family = owner
    with family.spared():
        process.send_signal(signal.SIGSTOP)
        family.guard.kill()
        process.kill()
        process.wait(PATIENCE_S)
        wait_for(lambda: not family.alive(), family.alive)
        assert family.regions() == [f"{family.prefix}lock"]
    sweep()
    assert family.regions() == []


def test_everything_killed_is_swept_by_the_next_start(home: Path, repository: Path, owner: tuple[subprocess.Popen[str], Family]) -> None:
    process, family = owner
    with family.spared():
        for victim in (family.guard, family.triton, *family.stubs):
            victim.send_signal(signal.SIGSTOP)
        for victim in (family.guard, family.triton, *family.stubs):
            victim.kill()
        process.kill()
        process.wait(PATIENCE_S)
        wait_for(lambda: not family.alive(), family.alive)
        assert len(family.regions()) == 3
    LocalTriton.start(home, repository, drain_s=0.2).stop()
    assert family.regions() == []


def test_sweep_spares_what_is_in_use() -> None:
    prefix = f"{FAMILY}test{os.getpid()}_"
    lock, region = SHARED_MEMORY / f"{prefix}lock", SHARED_MEMORY / f"{prefix}region"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        region.touch()
        sweep()
        assert region.exists()
    sweep()
    assert not region.exists()
    assert not lock.exists()


def test_two_servers_side_by_side_do_not_disturb_each_other(home: Path, repository: Path) -> None:
    with LocalTriton.start(home, repository, drain_s=0.2) as first, LocalTriton.start(home, repository, drain_s=0.2) as second:
        staying = Family(psutil.Process(), second.shared_memory_prefix)
        first.stop()
        assert len(staying.alive()) == 4
        assert len(staying.regions()) == 3
        assert is_ready(second.http_address)
    assert (staying.alive(), staying.regions()) == ([], [])
