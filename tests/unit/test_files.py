"""Files that are there as a whole or not at all."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.api.easy import deliver
from orchestrator.api.keys import LinkSigner
from orchestrator.errors import StorageError, StorageFull
from orchestrator.files import placed_when_complete, scratch_folder, write_whole, written_once
from orchestrator.jobs.model import JobSpec, JobView
from orchestrator.models.repository import new_version
from orchestrator.settings import Settings
from orchestrator.tuned import Tuned
from orchestrator.tuning import Tuning, apply


class Stop(Exception):
    """Something fails in the middle of writing."""


def fail_inside(out: Path, error: BaseException) -> None:
    with placed_when_complete(out) as partial:
        partial.write_bytes(b"half")
        raise error


def test_result_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with placed_when_complete(out) as partial:
        assert partial.parent == tmp_path, "on the same disk, or it cannot be renamed in one step"
        partial.write_bytes(b"new")
        assert not out.exists()
    assert out.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt(), GeneratorExit()])
def test_nothing_is_left_when_something_fails_inside_and_the_old_file_stays(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "out.mp4"
    with pytest.raises(type(error)):
        fail_inside(out, error)
    assert not list(tmp_path.iterdir())
    out.write_bytes(b"old")
    with pytest.raises(type(error)):
        fail_inside(out, error)
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_partial_of_a_dead_process_is_swept_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    out = tmp_path / "out.mp4"
    dead = tmp_path / f".out.mp4.{process.pid}.partial"
    living = tmp_path / f".out.mp4.{os.getppid()}.partial"
    for path in (dead, living, tmp_path / ".other.mp4.partial"):
        path.touch()
    segments = tmp_path / f".out.mp4.{process.pid}.segments"
    segments.mkdir()
    (segments / "00000.mp4").touch()
    with placed_when_complete(out), scratch_folder(out) as scratch:
        assert not dead.exists() and not segments.exists()
        assert scratch.parent == tmp_path, "on the same disk"
    assert not scratch.exists()
    assert living.exists() and (tmp_path / ".other.mp4.partial").exists() and out.exists()


@pytest.mark.parametrize("name", ["a[1].mp4", "a*.mp4", "результат 标题.mp4", "a.b.c.mp4"])
def test_any_file_name_can_be_written_and_swept(tmp_path: Path, name: str) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    stale = tmp_path / f".{name}.{process.pid}.partial"
    stale.touch()
    with placed_when_complete(tmp_path / name) as partial:
        partial.write_bytes(b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folder_that_is_not_there_is_a_storage_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the folder"), placed_when_complete(tmp_path / "none" / "out.mp4"):
        pytest.fail("the block must not run")


def test_output_that_is_a_folder_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(StorageError, match="put the result"), placed_when_complete(tmp_path / "out.mp4"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_error_about_another_file_inside_the_block_is_not_taken_for_the_outputs(tmp_path: Path) -> None:
    """A missing model file is no reason to tell the user that the disk is full."""
    with pytest.raises(FileNotFoundError), placed_when_complete(tmp_path / "out.mp4"):
        (tmp_path / "something else").read_bytes()


@contextmanager
def no_file_grows() -> Iterator[None]:
    """Have the system refuse every byte that is written to a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_file_that_cannot_be_written_stays_what_it_was_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "before")
    with no_file_grows(), pytest.raises(OSError, match="too large"):
        write_whole(path, "after")
    with no_file_grows(), pytest.raises(OSError, match="too large"):
        written_once(tmp_path / "secret", b"secret")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.json", "before")]


def apply_choice(folder: Path) -> None:
    apply(Settings(data=folder), Tuning((), None, (), Tuned(cores=1, device=None, encoder_threads=1, concurrent_renders=2)))


def deliver_video(folder: Path) -> None:
    spec = JobSpec(video="a.mp4", audio="b.wav", interface="easy", client_code="a")
    deliver(JobView(id="1", state="running", spec=spec, created_at=datetime.now(UTC)), Path(__file__), folder)


def install_model(folder: Path) -> None:
    with new_version(folder / "models", "lip_sync") as staged:
        (staged.folder / "model.onnx").write_bytes(b"weights")


@pytest.mark.parametrize("write", [LinkSigner.load, apply_choice, deliver_video, install_model])
def test_full_disk_is_called_so_whatever_is_written(write: Callable[[Path], object], tmp_path: Path) -> None:
    with no_file_grows(), pytest.raises(StorageFull, match="free space"):
        write(tmp_path)


def test_file_that_several_processes_want_to_be_the_first_to_write_has_one_content(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    program = "import sys, pathlib, orchestrator.files as files; print(files.written_once(pathlib.Path(sys.argv[1]), sys.argv[2].encode()).decode())"
    processes = [subprocess.Popen([sys.executable, "-c", program, path, str(number)], stdout=subprocess.PIPE) for number in range(4)]
    told = {process.communicate()[0].decode().strip() for process in processes}
    assert told == {path.read_text()} and [file.name for file in tmp_path.iterdir()] == ["secret"]
    assert path.stat().st_mode & 0o777 == 0o600
