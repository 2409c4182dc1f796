"""Start the pip-packaged Triton, wait until it serves, and stop it without a trace."""

import contextlib
import http.client
import json
import logging
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local import guard
from deploy.local.home import TritonHome
from deploy.local.log import TritonLog, explain_failure, is_accident, is_port_taken, show_end
from deploy.local.prepare import Ports, TritonStartError, check_before_start, choose_ports, make_command
from deploy.local.progress import STILL_S, StartWatch

__all__ = ["LocalTriton", "TritonStartError"]

logger = logging.getLogger("lipsync.triton")

START_ATTEMPTS = 5
"""How often to try other ports when somebody took a picked one before Triton bound it."""

RESTARTS = 1
"""How often to start a Triton again that crashed, or stands still, while it loads: another time it does so for a reason that stays."""

READY_S = 3600.0
"""How long models may load, s; the first start with TensorRT builds an engine for each, which takes minutes. One that does nothing at all is known
sooner."""

POLL_S = 0.02
"""Between two looks at a Triton that is starting, which takes 0.2 s at best."""

KILL_S = 10.0
"""How long ending may take beyond the drain time. Killing, reaping and sweeping take 0.05 s; a Triton whose guard was killed takes 4 s."""


class _PortLost(TritonStartError):
    """Another program bound one of Triton's ports first."""


class _StartAccident(TritonStartError):
    """Triton crashed or stood still, as it may not do the next time."""


class LocalTriton:
    """A running Triton that belongs to this process and ends with it. Made by `start`; all methods are thread-safe.

    `grpc_address`, `http_address` and `metrics_address` are `host:port`. Shared memory whose name begins with `shared_memory_prefix` is
    removed with the server, also when this process is killed.
    """

    def __init__(self, process: subprocess.Popen[bytes], prefix: str, host: str, ports: Ports, log: TritonLog, drain_s: float) -> None:
        """Wrap a guard that was just started; use `start`."""
        reachable = "127.0.0.1" if host == "0.0.0.0" else host
        self.grpc_address = f"{reachable}:{ports.grpc}"
        self.http_address = f"{reachable}:{ports.http}"
        self.metrics_address = f"{reachable}:{ports.metrics}"
        self.shared_memory_prefix = prefix
        self._guard = process
        self._log = log
        self._drain_s = drain_s
        self._stopping = threading.Lock()
        self._stopped = False

    @classmethod
    def start(
        cls,
        home: Path,
        model_repository: Path,
        *,
        config_name: str | None = "cpu",
        host: str = "127.0.0.1",
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        log_path: Path | None = None,
        extra_args: Sequence[str] = (),
        drain_s: float = 1.0,
        is_given_up: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Start Triton and return when every model in the repository is ready.

        One that crashes or stands still meanwhile is started a second time.

        Args:
            home: where `deploy.local.install` put Triton.
            model_repository: the folder of models to serve.
            config_name: which `configs/NAME.pbtxt` to prefer to a model's `config.pbtxt`; None for none.
            host: the IPv4 address to listen on.
            grpc_port: 0 picks a free one, as for the other two.
            http_port: see `grpc_port`.
            metrics_port: see `grpc_port`.
            log_path: where to append Triton's log; None keeps it until Triton ends.
            extra_args: more options for `tritonserver`.
            drain_s: how long requests in flight get to finish when the server is stopped.
            is_given_up: asked all the time whether nobody waits for the start any more, which then fails.

        Raises:
            TritonStartError: Triton is not installed, a port is taken, a model did not load, loading took too long, or Triton crashed twice.
        """
        triton = check_before_start(home, model_repository)
        wanted = Ports(grpc_port, http_port, metrics_port)
        picks_left = START_ATTEMPTS - 1 if 0 in (grpc_port, http_port, metrics_port) else 0
        restarts_left = RESTARTS
        while True:
            ports = choose_ports(host, wanted)
            prefix = f"{guard.FAMILY}{uuid.uuid4().hex[:16]}_"
            command = make_command(triton, model_repository, config_name, host, ports, prefix, drain_s, extra_args)
            log = TritonLog(log_path)
            server = cls(_spawn_guard(triton, command, prefix, drain_s, log), prefix, host, ports, log, drain_s)
            try:
                server._wait_until_ready(is_given_up)
            except _PortLost:
                server.stop()
                if not picks_left:
                    raise
                picks_left -= 1
            except _StartAccident as accident:
                server.stop()
                if not restarts_left:
                    raise
                restarts_left -= 1
                logger.warning("%s\nTriton is started once more.", accident)
            except BaseException:
                server.stop()
                raise
            else:
                return server

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop the server."""
        self.stop()

    def poll(self) -> int | None:
        """Tell whether the server has ended: None while it runs, else its exit status (128 + N: killed by signal N)."""
        return self._guard.poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until the server ends and return its exit status, as `poll` does.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._guard.wait(timeout_s)

    def read_new_log(self) -> str:
        """Return what Triton logged since the last call; nothing once it was stopped."""
        with self._stopping:
            return "" if self._stopped else self._log.read_new()

    def model_names(self) -> list[str]:
        """Ask the server which models it serves."""
        index = json.loads(_http(self.http_address, "POST", "/v2/repository/index"))
        return sorted(model["name"] for model in index)

    def stop(self) -> None:
        """End the server with all its processes and shared memory. Does nothing the second time."""
        with self._stopping:
            if self._stopped:
                return
            self._stopped = True
            pipe = self._guard.stdin
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError), pipe:
                pipe.write(b"stop")  # closing is not enough: a process that this one forked may hold the pipe open
            try:
                self._guard.wait(self._drain_s + KILL_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._guard.pid, signal.SIGKILL)
                self._guard.wait()
            if not self._is_gone():  # its guard was killed, and Triton does not end by itself
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._guard.pid, signal.SIGKILL)  # still ours: whoever holds the lock is of this group
                self._is_gone()
            self._log.close()

    def _is_gone(self) -> bool:
        """Wait until no process holds the server's lock, `KILL_S` at most, and remove its shared memory; at once where the guard did its work."""
        deadline = time.monotonic() + KILL_S
        while not guard.remove_if_unused(self.shared_memory_prefix):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _wait_until_ready(self, is_given_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        watch = StartWatch(self._guard.pid, self._log)
        while not self._is_ready():
            if (status := self._guard.poll()) is not None:
                log = self._log.text()
                kind = _PortLost if is_port_taken(log) else _StartAccident if is_accident(log, status) else TritonStartError
                raise kind(explain_failure(log, status))
            if is_given_up():
                raise TritonStartError("The start of Triton was given up.")
            if watch.stands_still():
                raise _StartAccident(f"Triton stood still for {STILL_S:g} s while it was starting.{show_end(self._log.text())}")
            if time.monotonic() > deadline:
                raise TritonStartError(f"Triton was not ready after {READY_S:g} s: look into its log.{show_end(self._log.text())}")
            time.sleep(POLL_S)

    def _is_ready(self) -> bool:
        """Ask whether all models are ready, and whether it is this server that answers and not another one on its port."""
        try:
            _http(self.http_address, "GET", "/v2/health/ready")
            name = json.loads(_http(self.http_address, "GET", "/v2"))["name"]
            _http(self.metrics_address, "GET", "/metrics")
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return False
        return bool(name == self.shared_memory_prefix)


def _spawn_guard(triton: TritonHome, command: list[str], prefix: str, drain_s: float, log: TritonLog) -> subprocess.Popen[bytes]:
    """Start the guard, in a session of its own so that a Ctrl-C in the terminal reaches only this process, which then stops it."""
    return subprocess.Popen(
        [str(triton.python), "-I", "-S", guard.__file__, str(os.getpid()), str(drain_s), prefix, *command],
        stdin=subprocess.PIPE,
        stdout=log.file,
        stderr=log.file,
        env=triton.environment(),
        cwd=triton.root,  # where TensorRT's engine cache goes: a model repository may be read-only
        start_new_session=True,
    )


def _http(address: str, method: str, path: str) -> bytes:
    """Return the body of an answer with status 200; urllib would go through a proxy.

    Raises:
        OSError: nothing answers there.
        http.client.HTTPException: the answer has another status.
    """
    connection = http.client.HTTPConnection(address, timeout=5)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"{method} {path} answered {response.status}")
        return body
