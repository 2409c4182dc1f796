"""`lipsync triton` as a program."""

import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc

from deploy.local.server import LocalTriton
from orchestrator import cli_triton, embedded
from orchestrator.cli_triton import serve_triton
from orchestrator.embedded import Serving, SupervisedTriton
from orchestrator.errors import InferenceUnavailable
from orchestrator.inference.selftest import check_ready
from orchestrator.settings import Settings
from tests.programs import descendants, running, wait_until

PROMPT_S = 20.0
"""In which a program ends that is told to, s; requests in flight get ten."""


class Told:
    """What a program prints, read while it runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def __str__(self) -> str:
        return "".join(self.lines)

    def wait_for(self, text: str, count: int = 1) -> None:
        wait_until(lambda: str(self).count(text) >= count or self.process.poll() is not None, text)
        assert str(self).count(text) >= count, str(self)

    def addresses(self) -> list[str]:
        return [line.split()[1] for line in self.lines if line.startswith("gRPC ")]

    def end(self, number: signal.Signals) -> None:
        """Tell the program to end, and check that it does so soon and well."""
        began = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(timeout=60) == 0, str(self)
        assert time.monotonic() - began < PROMPT_S
        self._reader.join()
        assert "Traceback" not in str(self)


@contextmanager
def triton_command() -> Iterator[Told]:
    with running("triton", "--grpc-port", "0", "--http-port", "0", "--metrics-port", "0") as process:
        told = Told(process)
        yield told
    told._reader.join()


def tritonserver(process_id: int) -> psutil.Process:
    return descendants(process_id, "tritonserver")[0]


@pytest.fixture
def breakable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Serve a copy of the models; return what breaks one of them, so that Triton does not start any more."""
    copy = shutil.copytree(Settings().model_repository, tmp_path / "models")
    monkeypatch.setenv("LIPSYNC_MODEL_REPOSITORY", str(copy))

    def break_one() -> None:
        for config in (copy / "lip_sync").rglob("*.pbtxt"):
            config.write_text(config.read_text() + "nonsense: 1\n")

    return break_one


@pytest.mark.usefixtures("nothing_left")
def test_it_serves_the_models_until_it_is_told_to_stop_and_starts_a_triton_that_dies_again() -> None:
    with triton_command() as told:
        told.wait_for("models   ")
        assert "Triton is loading its models" in str(told)
        assert all(name in str(told) for name in ("gRPC ", "HTTP ", "metrics ", "lip_sync"))
        tritonserver(told.process.pid).kill()
        told.wait_for("models   ", 2)
        assert "Triton ended by itself with status 137; starting it again" in str(told) and "Triton is back" in str(told)
        with tritonclient.grpc.InferenceServerClient(told.addresses()[-1]) as client:
            assert client.is_model_ready("lip_sync")
        told.end(signal.SIGTERM)


@pytest.mark.usefixtures("nothing_left")
def test_it_ends_soon_while_triton_starts() -> None:
    with triton_command() as told:
        wait_until(lambda: bool(descendants(told.process.pid, "stub")), "a model is being loaded")
        told.end(signal.SIGINT)


@pytest.mark.usefixtures("nothing_left")
def test_it_ends_soon_while_triton_is_started_again() -> None:
    with triton_command() as told:
        told.wait_for("models   ")
        tritonserver(told.process.pid).kill()
        told.wait_for("starting it again")
        wait_until(lambda: bool(descendants(told.process.pid, "stub")), "a model is being loaded again")
        told.end(signal.SIGTERM)


@pytest.mark.usefixtures("nothing_left")
def test_it_ends_soon_while_triton_cannot_be_started_again(breakable: Callable[[], None]) -> None:
    with triton_command() as told:
        told.wait_for("models   ")
        breakable()
        tritonserver(told.process.pid).kill()
        told.wait_for("Triton does not start: The embedded Triton did not start. Triton could not load the model 'lip_sync'", 2)
        told.end(signal.SIGINT)


@pytest.mark.usefixtures("nothing_left")
def test_it_ends_soon_although_triton_hangs() -> None:
    with triton_command() as told:
        told.wait_for("models   ")
        tritonserver(told.process.pid).suspend()
        told.end(signal.SIGTERM)


def test_triton_that_never_comes_up_again_is_an_error(
    breakable: Callable[[], None],
    own_tritonservers: Callable[[], list[psutil.Process]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(embedded, "MAX_BACK_OFF_S", 0.2)
    monkeypatch.setattr(cli_triton, "MAX_FAILED_STARTS", 3)

    def break_and_kill(server: LocalTriton) -> None:
        breakable()
        own_tritonservers()[0].kill()

    monkeypatch.setattr(cli_triton, "_show", break_and_kill)
    with pytest.raises(InferenceUnavailable, match="could not load the model 'lip_sync'"):
        serve_triton(Settings(device="cpu"), Serving())
    assert caplog.text.count("Triton does not start: ") == 2, "the third one is the error"
    caplog.clear()


def test_supervisor_is_closed_without_waiting_for_a_start(own_tritonservers: Callable[[], list[psutil.Process]]) -> None:
    triton = SupervisedTriton(Settings(device="cpu"))
    [first] = own_tritonservers()
    first.kill()
    first.wait(10)
    wait_until(lambda: bool(own_tritonservers()), "Triton is started again")
    own_tritonservers()[0].suspend()
    for ask in (lambda: check_ready(triton.client), lambda: triton.client.metadata("lip_sync")):
        with pytest.raises(InferenceUnavailable, match="it is started again by itself"):
            ask()
    began = time.monotonic()
    triton.close()
    assert time.monotonic() - began < PROMPT_S


def test_triton_is_started_again_although_the_system_had_no_room_for_it_at_first(
    own_tritonservers: Callable[[], list[psutil.Process]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedded, "MAX_BACK_OFF_S", 0.2)
    with closing(SupervisedTriton(Settings(device="cpu"))) as triton:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
            own_tritonservers()[0].kill()
            wait_until(lambda: "Triton does not start: " in caplog.text, "there is no place for its log")
        wait_until(lambda: triton.client.reconnect_count == 1, "it is back")
    caplog.clear()
