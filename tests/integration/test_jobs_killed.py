"""Jobs in processes that are killed, told to leave, or run out of space."""

import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from deploy.local import guard
from orchestrator.inference.client import TritonClient
from orchestrator.jobs import caretaker
from orchestrator.jobs.model import JobSpec
from orchestrator.media.planes import sample_views
from orchestrator.pipeline.options import RenderOptions
from tests.clips import frames_of, write_video
from tests.jobs import Worker, expected, is_over, only_job, options, wait_for, worker, working
from tests.programs import abandoned_memory, wait_until


def noisy(clip: Path, path: Path) -> Path:
    """Write a clip with the noise of a sensor in the dark over it, which an edit smooths away and `match_grain` puts back."""
    noise = np.random.default_rng(1)

    def noisy_one(picture: av.VideoFrame) -> av.VideoFrame:
        luma = sample_views(picture)[0]
        luma[:] = np.clip(luma + noise.normal(0, 12, luma.shape), 0, 255)
        return picture

    return write_video(path, map(noisy_one, frames_of(clip)), {"qp": "10", "preset": "ultrafast"})


def test_job_killed_in_the_middle_goes_on_from_its_last_segment_to_the_same_bits(
    database_url: str | None, spec: Callable[..., JobSpec], small_clip: Path, client: TritonClient, tmp_path: Path
) -> None:
    wanted = spec(5.0).model_copy(update={"video": str(noisy(small_clip, tmp_path / "noisy.mp4"))})
    settings = {"data": str(tmp_path / "data"), "triton": client.address, "database_url": database_url}
    with worker(settings, {"job": wanted}) as service:
        service.pause_at(2)
        service.start()
        service.wait_until_paused()
        service.kill()
        segments = service.view.storage.segments(only_job(service).id)
        stamps = {path: path.stat().st_mtime_ns for path in segments.glob("0*.mp4")}
        percent = only_job(service).percent
        assert only_job(service).state == "running" and stamps
        service.start()
        done = wait_for(service.view, only_job(service).id, is_over)
        assert (done.state, done.attempts, done.segments_done) == ("completed", 2, 4), service.log()
        assert done.percent >= percent
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "no finished segment is rendered again"
        assert service.view.result(done.id).read_bytes() == expected(wanted, client, tmp_path / "expected.mp4")
        assert service.kill(signal.SIGTERM) == 0
        assert '"job": "' in service.log() and str(tmp_path) not in service.log(), "logs carry the job's id and no path of its user"


def test_sigterm_leaves_at_a_checkpoint_and_the_next_start_goes_on(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    wanted = spec(5.0)
    with worker({"data": str(tmp_path / "data"), "triton": client.address}, {"job": wanted, "later": spec(0.2, priority="batch")}) as service:
        service.pause_at(1)
        service.start()
        job_id = next(view.id for view in service.view.find() if view.spec.priority == "interactive")
        service.wait_until_paused()
        assert service.kill(signal.SIGTERM) == 0
        left = service.view.get(job_id)
        assert (left.state, left.queue_position) == ("queued", 1), service.log()
        assert not list(service.view.storage.segments(job_id).glob("*.partial"))
        service.start()
        done = wait_for(service.view, job_id, is_over)
        assert done.state == "completed"
        assert service.view.result(job_id).read_bytes() == expected(wanted, client, tmp_path / "expected.mp4")


@pytest.mark.usefixtures("nothing_left_of_triton")
def test_killed_triton_is_started_again_and_its_jobs_are_retried(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    wanted = spec(5.0)
    with worker({"data": str(tmp_path / "data")}, {}, settled_s=1.0) as service:
        process = service.start()
        for victim in ("tritonserver", "triton_python_backend_stub"):
            service.pause_at(1)
            job_id = service.view.submit(wanted).id
            service.wait_until_paused()
            find(process.pid, victim).kill()
            service.resume()
            retried = wait_for(service.view, job_id, lambda view: view.error_code is not None or view.attempts > 1)
            assert retried.error_code in ("inference_unavailable", None)
            done = wait_for(service.view, job_id, is_over)
            assert (done.state, done.attempts >= 2) == ("completed", True), service.log()
            assert done.attempts == 2 or victim != "tritonserver", "an attempt waits for a Triton that is started again"
            assert service.view.result(job_id).read_bytes() == expected(wanted, client, tmp_path / "expected.mp4")
            service.view.delete(job_id)
        assert service.log().count("starting it again") == 2
        assert service.log().index("Triton is loading the models of ") < service.log().index("Triton is ready: gRPC 127.0.0.1:")
        assert service.kill(signal.SIGTERM) == 0


def find(service_pid: int, name: str) -> psutil.Process:
    """Return Triton itself or, of its stubs, one of the lip model: the others have nothing to do any more."""
    for child in psutil.Process(service_pid).children(recursive=True):
        if name.startswith(child.name()) and (name == "tritonserver" or any("/lip_sync/" in part for part in child.cmdline())):
            return child
    raise AssertionError(f"no {name} runs")


@pytest.fixture
def nothing_left_of_triton() -> Iterator[None]:
    yield
    wait_until(lambda: not abandoned_memory(guard.FAMILY), "the shared memory of dead Tritons is gone")


def test_disk_that_fills_up_fails_the_job_cleanly_and_the_service_recovers(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path
) -> None:
    """A limit on the size of files stands in for a full disk: the system gives it the same way, and it can be lifted."""
    large = spec(5.0, options=RenderOptions(lossless=True, preset="ultrafast"))
    with worker({"data": str(tmp_path / "data"), "triton": client.address, "max_attempts": 2}, {"large": large}, settled_s=1.0) as service:
        service.pause_at(0)
        limits = psutil.Process(service.start().pid)
        service.wait_until_paused()
        limits.rlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
        service.resume()
        failed = wait_for(service.view, only_job(service).id, is_over)
        assert (failed.state, failed.error_code, failed.attempts) == ("failed", "storage_full", 2), (failed, service.log())
        wait_until(lambda: not service.view.storage.job_folder(failed.id).exists(), "nothing is left of it")
        limits.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        service.pause_at(1)
        retried = service.view.submit(large)
        service.wait_until_paused()
        # Now not even the databases can be written, so that nobody can write down that the attempt has ended.
        limits.rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        service.resume()
        time.sleep(1)
        folder = str(service.view.storage.job_folder(retried.id))
        wait_until(lambda: not any(file.path.startswith(folder) for file in limits.open_files()), "the attempt has ended")
        limits.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        done = wait_for(service.view, retried.id, is_over)
        assert (done.state, done.attempts) == ("completed", 2), (done, service.log())
        assert service.view.result(done.id).read_bytes() == expected(large, client, tmp_path / "expected.mp4")


def test_another_host_takes_over_what_a_host_that_is_gone_was_at(
    postgres_database: str, spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caretaker, "ROUND_S", 0.5)
    monkeypatch.setattr(caretaker, "HOST_GONE_S", 2.0)
    wanted = spec(5.0)
    settings = {"data": str(tmp_path / "data"), "triton": client.address, "database_url": postgres_database, "host_name": "first"}
    with worker(settings, {"job": wanted}) as first:
        first.pause_at(1)
        first.start()
        job_id = only_job(first).id
        first.wait_until_paused()
        first.kill()
        second = options(tmp_path / "data", database_url=postgres_database, host_name="second")
        with working(second, client) as service:
            done = wait_for(service, job_id, is_over)
            assert (done.state, done.attempts) == ("completed", 2)
            assert service.result(job_id).read_bytes() == expected(wanted, client, tmp_path / "expected.mp4")
            first.start()  # the first host comes back to a job that is done
            time.sleep(1)
            assert service.get(job_id).attempts == 2
            assert first.kill(signal.SIGTERM) == 0


JOB_COUNT = 20


@pytest.mark.usefixtures("nothing_left_of_triton")
def test_twenty_jobs_end_correct_and_once_although_service_and_triton_are_killed_at_random(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path
) -> None:
    chance = random.Random(20260729)
    kinds = [spec(0.2), spec(0.6), spec(2.4)]
    wanted = {f"job {number}": kinds[number % 3] for number in range(JOB_COUNT)}
    references = {kind.audio: expected(kind, client, tmp_path / "expected.mp4") for kind in kinds}
    placed: dict[str, int] = {}
    settings = {"data": str(tmp_path / "data"), "max_concurrent_renders": 2}
    with worker(settings, wanted) as service:
        service.start()
        for completed, victim in ((1, "service"), (4, "triton"), (8, "both"), (12, "service")):
            wait_until(partial(enough_done, service, placed, completed), f"{completed} jobs are done", timeout_s=600)
            time.sleep(chance.uniform(0.0, 1.0))
            kill(service, victim)
        wait_until(lambda: all(is_over(view) for view in service.view.find(limit=100)), "every job is over", timeout_s=600)
        note_results(service, placed)
        jobs = service.view.find(limit=100)
        assert [(view.state, view.error) for view in jobs] == [("completed", None)] * JOB_COUNT, service.log()
        assert all(service.view.result(view.id).read_bytes() == references[view.spec.audio] for view in jobs)
        assert max(view.attempts for view in jobs) > 1, "something was interrupted"
        assert service.process is not None
        children = psutil.Process(service.process.pid).children(recursive=True)
        assert not [child for child in children if child.status() == psutil.STATUS_ZOMBIE]
        assert service.kill(signal.SIGTERM) == 0
        left = [path for path in (tmp_path / "data").rglob("*") if "partial" in path.name or path.parent.name == "incoming"]
        assert not left


def enough_done(service: Worker, placed: dict[str, int], count: int) -> bool:
    return note_results(service, placed) >= count


def note_results(service: Worker, placed: dict[str, int]) -> int:
    """Write down when each result was put in place, and check that none was put there twice; return how many there are."""
    for view in service.view.find(state="completed", limit=100):
        stamp = service.view.result(view.id).stat().st_mtime_ns
        assert placed.setdefault(view.id, stamp) == stamp, "a completed job was rendered again"
    return len(placed)


def kill(service: Worker, victim: str) -> None:
    assert service.process is not None
    if victim in ("triton", "both"):
        for child in psutil.Process(service.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended by itself meanwhile
                if child.name() == "tritonserver":
                    child.kill()
    if victim in ("service", "both"):
        service.kill()
        service.start()
