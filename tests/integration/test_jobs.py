"""Jobs on the real Triton and the real DBOS, over SQLite and PostgreSQL, in this process and in processes that are killed."""

import errno
import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from dbos import DBOS
from prometheus_client import CollectorRegistry, generate_latest

from deploy.local.server import LocalTriton
from orchestrator import embedded
from orchestrator.errors import (
    FetchFailed,
    IdempotencyConflict,
    InvalidOption,
    MissingFile,
    NotReady,
    QueueFull,
    StorageError,
    StorageFull,
    UnknownJob,
)
from orchestrator.inference import client as client_module
from orchestrator.inference.client import TritonClient
from orchestrator.inference.usage import model_use
from orchestrator.jobs import caretaker as caretaker_module
from orchestrator.jobs import webhooks as webhooks_module
from orchestrator.jobs.engine import DELIVERIES, RENDERS, Next, workflow_id
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.model import JobSpec, JobView
from orchestrator.jobs.runner import queued_again
from orchestrator.jobs.service import JobService
from orchestrator.jobs.storage import Storage
from orchestrator.jobs.webhooks import sign
from orchestrator.pipeline.segments import SegmentFolder
from orchestrator.settings import Settings
from tests.jobs import busy_threads, expected, is_over, options, wait_for, working
from tests.programs import wait_until, wait_until_idle


def test_job_is_what_a_render_is_and_says_how_far_it_is(
    database_url: str | None, spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path
) -> None:
    wanted = spec(10.0)
    with working(options(tmp_path / "data", database_url=database_url), client) as service:
        job = service.submit(wanted)
        assert (job.state, job.queue_position, job.percent) == ("queued", 1, 0)
        seen: list[JobView] = [job]
        while not is_over(seen[-1]):
            seen.append(service.wait_change(job.id, seen[-1].revision, 10)[1])
        done = seen[-1]
        assert (done.state, done.percent, done.error_code, done.attempts) == ("completed", 100, None, 1), done.error
        assert [view.percent for view in seen] == sorted(view.percent for view in seen), "progress never falls"
        assert any(0 < view.percent < 100 and view.stage == "render" and view.eta_s is not None for view in seen)
        assert (done.segments_done, done.faces_found, done.done, done.total) == (6, 25, 250, 250)
        assert done.report is not None and done.report["frame_count"] == 250 and str(tmp_path) not in json.dumps(done.report)
        assert service.result(job.id).read_bytes() == expected(wanted, client, tmp_path / "expected.mp4")
        segments = service.segments(job.id)
        assert [float(segment.duration_s) for segment in segments] == [0.48, 2.0, 2.0, 2.0, 2.0, 1.52], "the first one is there soon"
        assert all(segment.path.stat().st_size == segment.size_bytes > segment.init_bytes > 0 for segment in segments)
        second = service.submit(wanted)
        wait_for(service, second.id, is_over)
        assert model_use(client, "face_detector").inference_count > 0
        assert [view.id for view in service.find()] == [second.id, job.id]
        assert [view.id for view in service.find(ids=[job.id, "none", job.id])] == [job.id]
        assert not service.find(ids=[])
        assert [view.id for view in service.find(before=service.get(second.id).created_at)] == [job.id]
        registry = CollectorRegistry()
        service.register_metrics(registry)
        shown = generate_latest(registry).decode()
        assert 'lipsync_jobs{state="completed"} 2.0' in shown and 'lipsync_stage_seconds_count{stage="render"} 2.0' in shown


def test_encoder_of_a_job_has_as_many_threads_as_this_host_is_to_give_it(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    with working(options(tmp_path / "data", encoder_threads=3), client) as service:
        job = wait_for(service, service.submit(spec(0.5)).id, is_over)
        assert b" threads=3 " in service.result(job.id).read_bytes(), "as x264 says in its stream"


def test_jobs_that_wait_tell_when_they_start(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    with working(options(tmp_path / "data", max_concurrent_renders=1), client) as service:
        first = service.submit(spec(1.0))
        assert first.starts_in_s in (0.0, None), "at once, unless it has started"
        assert wait_for(service, first.id, is_over).starts_in_s is None
        second, third = service.submit(spec(6.0)), service.submit(spec(1.0))
        assert second.starts_in_s in (0.0, None) and third.starts_in_s
        found = {view.id: view.starts_in_s for view in service.find(state="queued")}
        assert found[third.id], "by the one before it, and how long the first one took"
        for job in (third, second):
            assert service.cancel(job.id).starts_in_s is None


def test_job_behind_a_long_one_is_told_to_start_later(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    with working(options(tmp_path / "data", max_concurrent_renders=1), client) as service:
        wait_for(service, service.submit(spec(1.0)).id, is_over)
        running = service.submit(spec(30.0, expected_frame_count=750))
        hours, behind = service.submit(spec(1.0, expected_frame_count=360_000)), service.submit(spec(1.0, expected_frame_count=25))
        told = {view.id: view.starts_in_s or 0.0 for view in service.find(state="queued")}
        assert told[behind.id] - told[hours.id] > 10 * told[hours.id], told
        for job in (behind, hours, running):
            service.cancel(job.id)


def test_job_that_starts_while_others_are_asked_about_does_not_confuse_their_times(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(options(tmp_path / "data", max_concurrent_renders=1), client) as service:
        wait_for(service, service.submit(spec(1.0)).id, is_over)
        service._engine.stop_taking()  # from here on the test starts them
        first, second, third = (service.submit(spec(1.0, expected_frame_count=count)) for count in (100, 1000, 10))
        waiting = service._ledger.waiting

        def starting_meanwhile(limit: int) -> dict[str, int | None]:
            found = waiting(limit)
            service._ledger.change(first.id, {"state": "running", "started_at": time.time()}, states=("queued",))
            return found

        monkeypatch.setattr(service._ledger, "waiting", starting_meanwhile)
        told = {view.id: view.starts_in_s or 0.0 for view in service.find(state="queued")}
        assert told[first.id] == 0.0 < told[second.id]
        assert told[third.id] == pytest.approx(11 * told[second.id])
        for job in (first, second, third):
            service.cancel(job.id)


def test_same_key_is_the_same_job_and_another_request_a_conflict(database_url: str | None, spec: Callable[..., JobSpec], tmp_path: Path) -> None:
    with closing_unstarted(options(tmp_path / "data", database_url=database_url, max_queued_jobs=3)) as service:
        first = service.submit(spec(1.0), idempotency_key="a")
        assert service.submit(spec(1.0), idempotency_key="a").id == first.id
        with pytest.raises(IdempotencyConflict):
            service.submit(spec(2.0), idempotency_key="a")
        assert service.submit(spec(2.0, owner="other"), idempotency_key="a").id != first.id, "keys are per owner"
        service.submit(spec(1.0, client_code="c"))
        with pytest.raises(QueueFull) as full:
            service.submit(spec(1.0))
        assert full.value.code == "queue_full" and full.value.retryable
        assert service.submit(spec(1.0), idempotency_key="a").id == first.id, "a known job needs no place in the queue"
        assert [view.client_code for view in (job.spec for job in service.find(client_code="c"))] == ["c"]
        with pytest.raises(InvalidOption, match="NUL") if database_url else nullcontext():
            assert not service.find(client_code="\0")
        service.cancel(first.id)
        service.submit(spec(1.0))


@contextmanager
def closing_unstarted(settings: Settings) -> Iterator[JobService]:
    """A service that only takes jobs on."""
    with TritonClient("127.0.0.1:1") as nowhere:
        service = JobService(settings, nowhere)
        try:
            yield service
        finally:
            service.close(0)


def test_queue_is_in_order_of_priority_then_of_arrival_and_bound_exactly_by_many_at_once(
    database_url: str | None, spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    with closing_unstarted(options(tmp_path / "data", database_url=database_url, max_queued_jobs=40)) as service:
        batch = service.submit(spec(priority="batch"))
        first, second = service.submit(spec()), service.submit(spec())
        positions = {view.id: view.queue_position for view in service.find()}
        assert [positions[job.id] for job in (first, second, batch)] == [1, 2, 3]
        assert service.get(batch.id).queue_position == 3
        accepted, refused = list[str](), list[Exception]()

        def submit() -> None:
            for _ in range(10):
                try:
                    accepted.append(service.submit(spec()).id)
                except QueueFull as exc:
                    refused.append(exc)

        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(set(accepted)), len(refused)) == (37, 43)


def test_request_that_cannot_be_rendered_is_refused_when_it_is_submitted(spec: Callable[..., JobSpec], tmp_path: Path) -> None:
    with closing_unstarted(options(tmp_path / "data")) as service:
        with pytest.raises(MissingFile, match="nowhere"):
            service.submit(spec(video=tmp_path / "nowhere.mp4"))
        with pytest.raises(InvalidOption, match="preset"):
            service.submit(spec(options={"preset": "quick"}))
        for call in (service.get, service.cancel, service.delete, service.result, service.segments):
            with pytest.raises(UnknownJob):
                call("nobody")
        job = service.submit(spec())
        with pytest.raises(NotReady, match="queued"):
            service.result(job.id)
        assert service.segments(job.id) == []


def test_nearly_full_disk_takes_no_new_work_until_there_is_space_again(spec: Callable[..., JobSpec], tmp_path: Path) -> None:
    everything = 1 << 60
    with closing_unstarted(options(tmp_path / "data", free_space_floor_bytes=everything)) as service:
        with pytest.raises(StorageFull) as full:
            service.submit(spec())
        assert full.value.code == "storage_full"
        with pytest.raises(StorageFull):
            service.storage.incoming("a.mp4", 100)
    with closing_unstarted(options(tmp_path / "data")) as service:
        assert service.submit(spec()).state == "queued"


def test_job_says_that_the_disk_is_full_though_that_cannot_be_written_down(spec: Callable[..., JobSpec], tmp_path: Path) -> None:
    with closing_unstarted(options(tmp_path / "data")) as service:
        job = service.submit(spec())
        assert job.error is None
    with closing_unstarted(options(tmp_path / "data", free_space_floor_bytes=1 << 63)) as service:
        for seen in (service.get(job.id), *service.find(), service.wait_change(job.id, job.revision, 0)[1]):
            assert (seen.state, seen.error_code, seen.eta_s) == ("queued", "storage_full", None)
    with closing_unstarted(options(tmp_path / "data")) as service:
        assert service.get(job.id).error is None


def test_job_that_cannot_be_put_in_line_at_once_is_accepted_all_the_same(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job_id: str, what: Next) -> None:
        raise StorageFull("The disk is full.")

    monkeypatch.setattr(caretaker_module, "ROUND_S", 0.2)
    monkeypatch.setattr(caretaker_module, "SETTLED_S", 0.0)
    with working(options(tmp_path / "data"), client) as service:
        with monkeypatch.context() as patch:
            patch.setattr(service._engine, "enqueue", fail)
            job = service.submit(spec(0.2))
        assert wait_for(service, job.id, is_over, 60).state == "completed"


def test_work_that_is_looked_at_as_it_leaves_its_queue_is_not_begun_twice(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left the queue by then and nobody is at it yet, as if the database had not taken what came of it."""
    posted: list[bytes] = []

    def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        posted.append(body)
        return 204

    monkeypatch.setattr(caretaker_module, "SETTLED_S", 0.0)
    with working(options(tmp_path / "data"), client, Hooks(post=post)) as service:
        begin, rounds = service._engine._noted, list[str]()

        @contextmanager
        def looked_at_before(workflow: str) -> Iterator[None]:
            service._caretaker.reconcile()
            rounds.append(workflow)
            with begin(workflow):
                yield

        monkeypatch.setattr(service._engine, "_noted", looked_at_before)
        job = wait_for(service, service.submit(spec(0.2, webhook_url="https://example.org/hook")).id, is_over)
        wait_until(lambda: service._ledger.row(job.id)["webhook_try"] is None, "its webhook is called")  # type: ignore[index]
        assert (job.state, job.attempts, len(posted)) == ("completed", 1, 1)
        assert rounds == [workflow_id(job.id, RENDERS, 1), workflow_id(job.id, DELIVERIES, 1)]


def test_deleting_a_job_frees_its_space_before_anything_is_written_down(
    spec: Callable[..., JobSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing_unstarted(options(tmp_path / "data")) as service:
        job = service.submit(spec())
        service.storage.segments(job.id).mkdir(parents=True)
        remove = service._ledger.remove

        def remove_unless_full(job_id: str) -> None:
            if service.storage.job_folder(job_id).exists():
                raise StorageFull("The disk is full.")
            remove(job_id)

        monkeypatch.setattr(service._ledger, "remove", remove_unless_full)
        service.delete(job.id)
        assert not service.find()


def test_full_disk_is_waited_for_and_uses_up_no_attempts(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = [1 << 40]
    monkeypatch.setattr(Storage, "free_bytes", lambda _: space[0])
    wanted = spec(10.0)
    with working(options(tmp_path / "data", free_space_floor_bytes=1 << 30, max_attempts=2), client) as service:
        job = service.submit(wanted)
        wait_for(service, job.id, lambda view: view.segments_done > 0)
        space[0] = 0
        wait_for(service, job.id, lambda view: view.attempts == 2)
        time.sleep(3)
        seen = service.get(job.id)
        assert (seen.state, seen.error_code, seen.attempts) == ("running", "storage_full", 2)
        space[0] = 1 << 40
        assert wait_for(service, job.id, is_over).state == "completed"
        assert service.result(job.id).read_bytes() == expected(wanted, client, tmp_path / "expected.mp4")


def test_what_a_job_that_is_deleted_still_runs_into_is_no_trouble_of_the_disk(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its folder went while a segment was to be put into it, and the log said that somebody should look at the free space."""
    add, deleted = SegmentFolder.add, threading.Event()

    with working(options(tmp_path / "data"), client) as service:

        def delete_before(self: SegmentFolder, *arguments: Any, **named: Any) -> None:
            service.delete(job.id)
            deleted.set()
            add(self, *arguments, **named)

        monkeypatch.setattr(SegmentFolder, "add", delete_before)
        job = service.submit(spec(2.4))
        assert deleted.wait(60)
        wait_until(lambda: not service._runner.running_count, "the attempt is over")
        assert not service.storage.job_folder(job.id).exists() and not service.find()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_disk_that_is_too_full_for_new_work_still_takes_what_an_accepted_job_fetches(
    spec: Callable[..., JobSpec], small_clip: Path, client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
        write(small_clip.read_bytes())
        return "clip.mp4"

    space, floor = [1 << 40], 1 << 30
    monkeypatch.setattr(Storage, "free_bytes", lambda _: space[0])
    with closing_unstarted(options(tmp_path / "data", free_space_floor_bytes=floor)) as service:
        job = service.submit(spec(0.2, video="https://example.org/clip.mp4"))
    space[0] = floor // 2
    with working(options(tmp_path / "data", free_space_floor_bytes=floor, max_attempts=1), client, Hooks(fetch=fetch)) as service:
        with pytest.raises(StorageFull):
            service.submit(spec(0.2))
        done = wait_for(service, job.id, is_over)
        assert (done.state, done.attempts) == ("completed", 1), done.error


def test_job_fails_where_the_disk_stays_full(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = [1 << 40]
    monkeypatch.setattr(Storage, "free_bytes", lambda _: space[0])
    with working(options(tmp_path / "data", free_space_floor_bytes=1 << 30, max_attempts=2, stall_s=5), client) as service:
        job = service.submit(spec(10.0))
        space[0] = 0
        failed = wait_for(service, job.id, is_over)
        assert (failed.state, failed.error_code) == ("failed", "storage_full")
        assert failed.error is not None and "submit the job again" in failed.error


def test_second_service_on_the_same_data_is_refused(client: TritonClient, tmp_path: Path) -> None:
    settings = options(tmp_path / "data")
    with working(settings, client):
        told = json.dumps({"settings": {"data": str(tmp_path / "data"), "triton": client.address}, "specs": {}, "grace_s": 1})
        command = [sys.executable, "-m", "tests.jobs_process", told]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 1
        assert "StorageError" in second.stderr and "Another service uses the data folder" in second.stderr


@pytest.mark.parametrize("stage", ["queued", "read", "analyse", "render"])
def test_cancel_frees_triton_and_the_decoder_at_once(
    stage: str, spec: Callable[..., JobSpec], clip: Path, client: TritonClient, tmp_path: Path
) -> None:
    fetching = threading.Event()

    def slow_fetch(url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
        fetching.set()
        while not is_cancelled():
            time.sleep(0.05)
        return "never.mp4"

    wanted = spec(40.0, video="http://example.org/clip.mp4" if stage == "read" else str(clip))
    with working(options(tmp_path / "data", max_concurrent_renders=1), client, Hooks(fetch=slow_fetch)) as service:
        job = service.submit(wanted)
        if stage == "queued":
            other = service.submit(spec(1.0))
            assert service.cancel(other.id).state == "cancelled"
        elif stage == "read":
            assert fetching.wait(30)
        else:
            wait_for(service, job.id, lambda view: view.stage == stage and (view.done > 0 or stage == "analyse"))
        count = model_use(client, "lip_sync").inference_count
        assert service.cancel(job.id).state == "cancelled"
        wait_until(lambda: not busy_threads() and not service.storage.job_folder(job.id).exists(), "everything is let go")
        wait_until_idle(client)
        assert model_use(client, "lip_sync").inference_count - count < 200, "of a thousand, those that were under way"
        again = service.cancel(job.id)
        assert (again.state, again.error_code) == ("cancelled", None)
        assert service.get(job.id).finished_at == again.finished_at
        service.delete(job.id)
        with pytest.raises(UnknownJob):
            service.get(job.id)


def test_input_by_url_is_fetched_once_checked_and_deleted_with_its_job(
    small_clip: Path, spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path
) -> None:
    fetched = list[str]()

    def fetch(url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
        fetched.append(url)
        if len(fetched) == 1:
            raise FetchFailed("The server is away.")
        write(b"no video" if "text" in url else small_clip.read_bytes())
        return "clip.mp4"

    with working(options(tmp_path / "data"), client, Hooks(fetch=fetch)) as service:
        job = service.submit(spec(video="https://example.org/clip.mp4"))
        done = wait_for(service, job.id, is_over)
        assert (done.state, done.attempts, len(fetched)) == ("completed", 2, 2), done.error
        (stored,) = service.storage.inputs()
        assert stored.name == "clip.mp4" and stored.read_bytes() == small_clip.read_bytes()
        bad = service.submit(spec(video="https://example.org/text"))
        failed = wait_for(service, bad.id, is_over)
        assert (failed.state, failed.error_code, failed.attempts) == ("failed", "unreadable_media", 1)
        service.delete(job.id)
        assert not stored.exists() and not service.storage.job_folder(job.id).exists()
        assert Path(spec().video).exists(), "what lies outside the data folder is not ours to delete"


def test_webhook_is_delivered_signed_and_again_until_it_is_taken(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    posted = list[tuple[str, bytes, Mapping[str, str]]]()

    def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        posted.append((url, body, headers))
        if len(posted) == 1:
            raise FetchFailed("The receiver is away.")
        return 500 if len(posted) == 2 else 204

    settings = options(tmp_path / "data", webhook_secret="s3cret")
    with working(settings, client, Hooks(post=post)) as service:
        job = service.submit(spec(0.2, webhook_url="https://example.org/hook"))
        wait_until(lambda: len(posted) >= 3, "the webhook is taken")
        time.sleep(1.5)
    assert len(posted) == 3, "what was taken is not sent again"
    for url, body, headers in posted:
        assert url == "https://example.org/hook"
        assert json.loads(body)["id"] == job.id and json.loads(body)["state"] == "completed"
        at = int(headers["Sync-Signature"].split(",")[0].removeprefix("t="))
        assert abs(at - time.time()) < 60 and headers["Sync-Signature"] == sign(body, "s3cret", at)


def test_receiver_that_does_not_answer_holds_up_no_end_and_is_called_again_after_it(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path
) -> None:
    called, answers, posted = threading.Event(), threading.Event(), list[str]()

    def hang(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        called.set()
        answers.wait()
        return 204

    def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        posted.append(json.loads(body)["id"])
        return 204

    settings = options(tmp_path / "data")
    try:
        with working(settings, client, Hooks(post=hang)) as service:
            job = service.submit(spec(0.2, webhook_url="https://example.org/hook"))
            called.wait()
        assert not [thread for thread in threading.enumerate() if "dbos-executor" in thread.name], "nothing that the program's end would wait for"
    finally:
        answers.set()
    with working(settings, client, Hooks(post=post)):
        wait_until(lambda: posted == [job.id], "the webhook is called again")


def stored(storage: Storage, content: bytes) -> Path:
    with storage.incoming("clip.mp4", len(content)) as sink:
        sink.write(content)
        return sink.commit()


def test_results_and_inputs_go_when_their_time_is_over_and_the_job_stays_known(
    spec: Callable[..., JobSpec], small_clip: Path, client: TritonClient, tmp_path: Path
) -> None:
    kept = set[Path]()
    with working(options(tmp_path / "data", retention_s=0.1), client, Hooks(kept=lambda: kept)) as service:
        video = stored(service.storage, small_clip.read_bytes())
        asset = stored(service.storage, b"an asset")
        kept.add(asset)
        job = service.submit(spec(0.2, video=video))
        assert wait_for(service, job.id, is_over).has_result
        time.sleep(0.3)
        service._caretaker.clean_up()
        view = service.get(job.id)
        assert (view.state, view.has_result) == ("completed", False)
        with pytest.raises(NotReady, match="submit it again"):
            service.result(job.id)
        assert not video.exists() and asset.exists() and not service.storage.job_folder(job.id).exists()


def test_job_that_is_forgotten_leaves_nothing_behind(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lipsync.jobs")
    with working(options(tmp_path / "data", retention_s=0.1, history_s=0.1), client) as service:
        ended = service.submit(spec(0.2))
        wait_for(service, ended.id, is_over)
        deleted = service.submit(spec(0.2))
        wait_for(service, deleted.id, is_over)
        service.delete(deleted.id)
        uploading, cut_short = (service.storage.root / "incoming" / name for name in ("new", "old"))
        for path in (uploading, cut_short):
            path.touch()
        os.utime(cut_short, (0, 0))
        time.sleep(0.3)
        service._caretaker.clean_up()
        with pytest.raises(UnknownJob):
            service.get(ended.id)
        assert not service._engine.known([workflow_id(job.id, RENDERS, 1) for job in (ended, deleted)])
        told = [(record.__dict__.get("job"), record.getMessage()) for record in caplog.records]
        assert told[-3:] == [
            (deleted.id, "job deleted"),
            (ended.id, "result removed: its time is over"),
            (ended.id, "job forgotten: its time is over"),
        ], "the log says where they are"
        assert not service.storage.job_folder(ended.id).exists() and uploading.exists() and not cut_short.exists()


def test_result_goes_though_the_service_died_while_it_was_removed(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(options(tmp_path / "data", retention_s=0.1), client) as service:
        job = service.submit(spec(0.2))
        wait_for(service, job.id, is_over)
        time.sleep(0.3)

        def die(job_id: str) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(service.storage, "remove_job", die)
            service._caretaker.clean_up()
        service._caretaker.clean_up()
        assert not service.storage.job_folder(job.id).exists() and not service.get(job.id).has_result


def test_segments_stay_while_somebody_is_sent_them(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(options(tmp_path / "data"), client) as service:
        job = service.submit(spec(0.2))
        wait_for(service, job.id, is_over)
        monkeypatch.setattr(caretaker_module, "SEGMENT_RETENTION_S", 0.5)
        time.sleep(0.6)
        service.storage.keep_segments(job.id)
        service._caretaker.clean_up()
        assert service.segments(job.id)
        time.sleep(0.6)
        service._caretaker.clean_up()
        assert not service.segments(job.id) and service.result(job.id).exists()
        service.storage.keep_segments(job.id)


def test_file_that_cannot_be_used_ends_the_job(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    def deliver(view: JobView, result: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(result))

    with working(options(tmp_path / "data", max_attempts=2), client, Hooks(deliver=deliver)) as service:
        failed = wait_for(service, service.submit(spec(0.2)).id, is_over, timeout_s=25)
    assert (failed.state, failed.error_code, failed.attempts) == ("failed", "storage_failed", 2)
    assert failed.error and "Permission denied" in failed.error and str(tmp_path) not in failed.error


def test_run_that_was_taken_over_may_leave_after_the_next_one_has(spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path) -> None:
    """As where a machine stands still for a minute, and another one puts its job in line again."""
    delivering, goes_on, delivered = threading.Event(), threading.Event(), list[str]()

    def deliver(view: JobView, result: Path) -> None:
        delivered.append(view.id)
        if len(delivered) == 1:
            delivering.set()
            goes_on.wait()

    with working(options(tmp_path / "data", max_concurrent_renders=2), client, Hooks(deliver=deliver)) as service:
        try:
            job = service.submit(spec(0.2))
            assert delivering.wait(60)
            row = service._ledger.row(job.id)
            assert row is not None and service._ledger.change(job.id, queued_again(row))
            service._engine.enqueue(job.id, Next(RENDERS, 2))
            done = wait_for(service, job.id, is_over)
            assert (done.state, len(delivered)) == ("completed", 2), done.error
        finally:
            goes_on.set()
        wait_until(lambda: not service._runner.running_count, "the first run has left")
        assert service.result(job.id).exists()


def test_job_that_begins_while_it_is_cancelled_leaves_nothing(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with working(options(tmp_path / "data"), client) as service:
        view_of = service._ledger.view

        def view_and_begin(job_id: str, owner: str | None = None) -> JobView:
            view = view_of(job_id, owner)
            if view.state == "queued":
                wait_until(lambda: any(service.storage.segments(job_id).glob("*.partial")), "it renders")
            return view

        job = service.submit(spec(30.0))
        with monkeypatch.context() as patch:
            patch.setattr(service._ledger, "view", view_and_begin)
            assert service.cancel(job.id).state == "cancelled"
        wait_until(lambda: not service._runner.running_count, "the attempt has left")
        wait_until(lambda: not service.storage.job_folder(job.id).exists(), "what it wrote last is removed", timeout_s=10)


def test_service_that_cannot_start_leaves_no_thread(client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = JobService(options(tmp_path / "data"), client)
    before = set(threading.enumerate())

    def refuse(*, is_starting: bool) -> None:
        raise StorageError("The database went away.")

    monkeypatch.setattr(service._caretaker, "reconcile", refuse)
    with closing_service(service), pytest.raises(StorageError):
        service.start()
    wait_until(lambda: not [thread for thread in set(threading.enumerate()) - before if thread.is_alive()], "every thread has ended")


@contextmanager
def closing_service(service: JobService) -> Iterator[None]:
    try:
        yield
    finally:
        service.close(0)


def test_stalled_triton_is_noticed_and_the_job_goes_on_when_it_answers_again(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton is stopped in mid-work, as by a driver that hangs; its supervisor ends it and starts another."""
    monkeypatch.setattr(embedded, "PROBE_S", 0.5)
    monkeypatch.setattr(client_module, "HEALTH_DEADLINE_S", 1.0)
    wanted = spec(15.0)
    reference = expected(wanted, client, tmp_path / "expected.mp4")
    triton = embedded.SupervisedTriton(Settings(device="cpu"))
    with closing(triton), working(options(tmp_path / "data", stall_s=3.0), triton.client) as service:
        job = service.submit(wanted)
        wait_for(service, job.id, lambda view: view.segments_done >= 1)
        for process in psutil.Process().children(recursive=True):
            if process.name() == "tritonserver" and f"={triton.client.address.split(':')[1]}" in " ".join(process.cmdline()):
                process.suspend()
        stalled = wait_for(service, job.id, lambda view: view.error_code is not None)
        assert stalled.error_code == "stalled"
        assert not busy_threads()
        monkeypatch.setattr(embedded, "HUNG_S", 3.0)  # not before: the render, too, is to see that Triton hangs
        going_on = wait_for(service, job.id, lambda view: view.error_code is None)
        assert going_on.state == "running", "and no longer says what it has overcome"
        done = wait_for(service, job.id, is_over)
        assert (done.state, done.error_code) == ("completed", None) and done.attempts >= 2, done.error
        assert triton.client.reconnect_count == 1
        assert service.result(job.id).read_bytes() == reference


def test_attempt_that_failed_holds_nothing_any_more(spec: Callable[..., JobSpec], triton: LocalTriton, tmp_path: Path) -> None:
    """Pictures, a decoder's threads and open files of each attempt once stayed, some 50 MB whenever a Triton died."""
    gc.collect()  # what other tests left
    gc.disable()
    try:
        settings = options(tmp_path / "data", max_attempts=1)
        with TritonClient(triton.grpc_address, request_deadline_s=0.02) as client, working(settings, client) as service:
            failed = wait_for(service, service.submit(spec()).id, is_over)
            assert failed.error_code == "inference_timeout", failed.error
            assert not [each for each in gc.get_objects() if isinstance(each, av.VideoFrame)]
    finally:
        gc.enable()


def test_triton_that_stays_away_fails_the_job_with_its_code(spec: Callable[..., JobSpec], tmp_path: Path) -> None:
    with TritonClient("127.0.0.1:1") as nowhere, working(options(tmp_path / "data", max_attempts=2, stall_s=1.0), nowhere) as service:
        failed = wait_for(service, service.submit(spec()).id, is_over)
    assert (failed.state, failed.error_code, failed.attempts) == ("failed", "inference_unavailable", 2)
    assert failed.error and failed.error.endswith(".")


def test_segments_that_cannot_be_written_are_told_by_their_place_in_the_data_folder(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path
) -> None:
    with working(options(tmp_path / "data", max_attempts=1), client) as service:
        job = service.submit(spec(1.0))
        service.storage.job_folder(job.id).mkdir(exist_ok=True)
        service.storage.segments(job.id).touch()
        failed = wait_for(service, job.id, is_over, 60)
    assert failed.error_code == "storage_failed"
    assert failed.error and f"jobs/{job.id}/segments" in failed.error and str(tmp_path) not in failed.error


def test_job_that_is_cancelled_after_a_failure_is_cancelled_and_nothing_else(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path
) -> None:
    def fail(url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
        raise FetchFailed("The host example.org cannot be found; check the URL, or try again.")

    with working(options(tmp_path / "data"), client, Hooks(fetch=fail)) as service:
        job = wait_for(service, service.submit(spec(video="http://example.org/clip.mp4")).id, lambda view: view.error_code is not None)
        assert job.error_code == "fetch_failed"
        cancelled = service.cancel(job.id)
    assert (cancelled.state, cancelled.error_code, cancelled.error) == ("cancelled", None, None)


def test_log_tells_a_jobs_whole_life_and_why_it_failed_but_no_name_of_its_user(
    spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
        raise FetchFailed("The host secret.example cannot be found; check the URL, or try again.")

    def life(job: JobView) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.__dict__.get("job") == job.id]

    caplog.set_level(logging.INFO, "lipsync.jobs")
    with working(options(tmp_path / "data", max_attempts=1, max_concurrent_renders=1), client, Hooks(fetch=fail)) as service:
        done = wait_for(service, service.submit(spec(1.0)).id, is_over)
        unfetched = wait_for(service, service.submit(spec(video="http://secret.example/secret.mp4")).id, is_over)
        stuck = service.submit(spec(1.0))
        service.storage.job_folder(stuck.id).mkdir(exist_ok=True)
        service.storage.segments(stuck.id).touch()
        wait_for(service, stuck.id, is_over, 60)
        running, waiting = service.submit(spec(30.0)), service.submit(spec(30.0))
        wait_for(service, running.id, lambda view: view.stage == "render")
        for job in (waiting, running):
            service.cancel(job.id)
    assert [line.split(",")[0] for line in life(done)] == ["job accepted", "attempt 1 begins", "job completed: 25 frames"]
    assert life(unfetched)[2] == "attempt failed with fetch_failed" and life(unfetched)[3].startswith("job failed: fetch_failed, ")
    assert life(stuck)[2].startswith("attempt failed with storage_failed: ") and f"jobs/{stuck.id}/segments" in life(stuck)[2]
    assert life(running)[-1] == "job cancelled while it was running" and life(waiting)[-1] == "job cancelled while it was waiting"
    assert not [record for record in caplog.records if "secret" in f"{record.getMessage()} {record.__dict__}"]


def test_job_and_webhook_that_are_to_be_tried_again_outlive_a_clock_that_is_set_back(
    small_clip: Path, spec: Callable[..., JobSpec], client: TritonClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [FetchFailed("The server is away.")] * 3

    def fetch(url: str, write: Callable[[bytes], object], is_cancelled: Callable[[], bool]) -> str:
        if failures:
            raise failures.pop()
        write(small_clip.read_bytes())
        return "clip.mp4"

    answers, minute = [204, 500], 60
    monkeypatch.setattr(webhooks_module, "RETRY_DELAYS_S", (minute,))
    monkeypatch.setattr(caretaker_module, "ROUND_S", 0.5)
    with working(options(tmp_path / "data"), client, Hooks(fetch=fetch, post=lambda url, body, headers: answers.pop())) as service:
        job = service.submit(spec(video="https://example.org/clip.mp4", webhook_url="https://example.org/hook"))
        wait_for(service, job.id, lambda view: view.attempts == 3 and view.state == "queued")

        def set_clock_back() -> None:
            wait_until(lambda: bool(DBOS.list_workflows(status="DELAYED")), "it waits for its next attempt")
            (waiting,) = DBOS.list_workflows(status="DELAYED")
            DBOS.set_workflow_delay(waiting.workflow_id, delay_seconds=9000)  # it was further away by the old clock

        set_clock_back()
        assert wait_for(service, job.id, is_over, 60).state == "completed"
        set_clock_back()
        wait_until(lambda: not answers, "its webhook is called again", timeout_s=minute / 2)


def test_database_that_cannot_be_reached_is_a_storage_error(client: TritonClient, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"database.*(?i:refused)"):
        JobService(options(tmp_path / "data", database_url="postgresql://nobody@127.0.0.1:1/nothing"), client)
