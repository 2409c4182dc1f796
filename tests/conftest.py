"""What every test is held to (no error in the log, no thread and no zombie left behind), and what whole renders need."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from hypothesis import settings as hypothesis_settings
from numpy.typing import NDArray

from deploy.demo.clip import make_clip
from deploy.local.server import LocalTriton
from orchestrator.embedded import Serving, SupervisedTriton
from orchestrator.inference.client import TritonClient
from orchestrator.inference.selftest import await_ready
from orchestrator.settings import Settings
from tests.clips import frames_of, write_speech, write_video
from tests.programs import descendants, free_port

# A machine that other work keeps busy makes no property false.
hypothesis_settings.register_profile("busy machine", deadline=None)
hypothesis_settings.load_profile("busy machine")


# A shell that runs the tests in the background has SIGINT ignored, and so would the programs they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where this is set, pytest shows how two videos that should be equal differ, byte by byte, and does not come to an end with it.
os.environ.pop("CI", None)


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder of the tests' own, for this process and the programs it starts."""
    path = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIPSYNC_DATA", str(path))
        yield path


@pytest.fixture(autouse=True)
def leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    threads = set(threading.enumerate())
    yield
    # gRPC keeps threads of its own for as long as a channel is open; ours carry names.
    ours = [thread for thread in threading.enumerate() if thread not in threads and ("decode" in thread.name or "segment" in thread.name)]
    assert not ours, f"threads left behind: {ours}"
    zombies = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    assert not zombies, f"zombies left behind: {zombies}"
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "this thread was made a real-time one, which takes the cores from every program started later"
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, f"errors were logged: {errors}"


@pytest.fixture(scope="session")
def triton() -> Iterator[LocalTriton]:
    """The Triton of many tests. One that dies fails the test that meets it, and is back at the same addresses for those behind it."""
    started: list[LocalTriton] = []
    supervised = SupervisedTriton(Settings(device="cpu"), Serving("127.0.0.1", *(free_port() for _ in range(3))), on_start=started.append)
    try:
        yield started[0]
    finally:
        supervised.close()


@pytest.fixture(scope="session")
def client(triton: LocalTriton) -> Iterator[TritonClient]:
    with TritonClient(triton.grpc_address) as connection:
        yield connection


@pytest.fixture
def own_tritonservers() -> Callable[[], list[psutil.Process]]:
    """Return what finds the Tritons that the test itself has started in this process, which may have one for other tests."""
    others = descendants(os.getpid(), "tritonserver")
    return lambda: [server for server in descendants(os.getpid(), "tritonserver") if server not in others]


@pytest.fixture(autouse=True)
def triton_is_back(request: pytest.FixtureRequest) -> None:
    if {"triton", "client"} <= set(request.fixturenames):
        await_ready(request.getfixturevalue("client"), 60)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of a real face, 25 frames, 640 x 640."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, duration_s=1)
    return path


@pytest.fixture(scope="session")
def pair(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip's person on the left, and mirrored and a little smaller on the right, 512 x 256, 25 frames."""
    path = tmp_path_factory.mktemp("pair") / "pair.mp4"

    def both(frame: av.VideoFrame) -> NDArray[np.uint8]:
        picture = np.full((256, 512, 3), 90, np.uint8)
        picture[:, :256] = frame.reformat(256, 256, format="rgb24").to_ndarray()
        picture[16:240, 272:496] = frame.reformat(224, 224, format="rgb24").to_ndarray()[:, ::-1]
        return picture

    return write_video(path, map(both, frames_of(clip)))


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.5 s: syllables for a second, silence for 0.7 s, syllables again."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    return write_speech(path, 2.5, silent_s=(1.0, 1.7))
