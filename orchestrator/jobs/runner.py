"""Work on jobs: one attempt after the other until a job ends, with its progress written down meanwhile."""

import gc
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.errors import (
    CrashLoop,
    FetchFailed,
    InputError,
    RenderCancelled,
    RenderError,
    RenderInterrupted,
    StorageError,
    StorageFull,
)
from orchestrator.files import storage_error
from orchestrator.inference.client import BATCH, INTERACTIVE, TritonClient
from orchestrator.inference.selftest import await_ready
from orchestrator.jobs.engine import DELIVERIES, RENDERS, Next
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.ledger import ACTIVE_STATES, Ledger, Row, local_inputs
from orchestrator.jobs.metrics import JobMetrics
from orchestrator.jobs.model import JobSpec
from orchestrator.jobs.progress import ProgressBoard
from orchestrator.jobs.storage import Storage
from orchestrator.jobs.waiting import Took
from orchestrator.media.limits import MediaLimits, check_inputs, check_video
from orchestrator.media.nvdec import chosen_decoder
from orchestrator.media.reach import is_url
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.segments import finished_segments
from orchestrator.pipeline.speakers import SpeakerAudio
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.watch import Watch
from orchestrator.settings import Settings
from orchestrator.tuned import encoder_threads

log = logging.getLogger("lipsync.jobs")

PULSE_S = 0.25
"""How often progress is written down, and a cancelling by another process looked for, s."""

MAX_CRASHES = 20
"""Deaths of the process in a row, without the job getting any further, after which it is given up. Jobs beside it count its deaths, too."""

MAX_BACK_OFF_S, MAX_DOUBLINGS = 30.0, 5
"""Longest wait before a failed attempt is repeated, s, and after how many doublings of the first second it is reached."""

REQUEST_PRIORITIES = {"interactive": INTERACTIVE, "batch": BATCH}
"""In Triton's queue, for a job's own priority."""

MEASURED_JOBS = 20
"""Completed jobs by which the start of those that wait is estimated."""

DISK_FULL = "The service's disk is full but for what it needs itself; jobs go on when some space is free again."

FIRST_IN_LINE = 1
"""Queue priority of a job that goes on; smaller than that of any new one."""


@dataclass(slots=True)
class _Running:
    watch: Watch
    board: ProgressBoard
    is_at_work: bool = False
    """Whether it has begun to write; before, it may wait for the disk to have space."""


class Runner:
    """The jobs that run in this process."""

    def __init__(
        self,
        host: str,
        settings: Settings,
        client: TritonClient,
        hooks: Hooks,
        storage: Storage,
        ledger: Ledger,
        metrics: JobMetrics,
        on_change: Callable[[], None],
    ) -> None:
        """Make a runner; `on_change` is called after each change that was written down."""
        self._host = host
        self._settings = settings
        self._client = client
        self._hooks = hooks
        self._storage = storage
        self._ledger = ledger
        self._metrics = metrics
        self._on_change = on_change
        self._tracks = TrackCache(storage.tracks, settings.track_cache_bytes)
        self._encoder_threads, self._decoder = encoder_threads(settings), chosen_decoder(settings)
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], _Running] = {}
        """By job and run: a run that was taken over may still be leaving when the next one begins."""
        self._is_draining = False
        self._closed = threading.Event()
        self._pulse = threading.Thread(target=self._pulse_until_closed, name="jobs-pulse", daemon=True)
        self.frames_per_s: float | None = None
        """Render speed of the job that ended last; None before the first."""
        self.took: deque[Took] = deque(maxlen=MEASURED_JOBS)
        """How long the last jobs took that were completed at the first attempt."""

    def start(self) -> None:
        """Begin to write progress down."""
        self._pulse.start()

    def attempt(self, job_id: str, run: int) -> dict[str, Any]:
        """Work on a job until it is done, fails, or has to stop. See `Work.attempt`."""
        row = self._ledger.row(job_id)
        if row is None or row["state"] not in ACTIVE_STATES or row["run"] != run:
            return {"kind": "gone"}
        watch = Watch(self._settings.stall_s)
        board = ProgressBoard(row["percent"], self.frames_per_s, row["reached"])
        with self._lock:
            if self._is_draining:
                return {"kind": "interrupted"}
            running = self._running[job_id, run] = _Running(watch, board)
        is_completed, began_s = False, time.monotonic()
        try:
            self._begin(row)
            log.info("attempt %d begins", row["attempts"] + 1, extra={"job": job_id})
            # Attempts without a Triton, or on a full disk, would only be used up.
            await_ready(self._client, self._settings.stall_s, watch.waiting)
            self._await_space(watch)
            running.is_at_work = True
            report = self._render(row, watch, board)
            is_completed = True
            if not row["attempts"]:
                self.took.append(Took(time.monotonic() - began_s, report["frame_count"]))
            return {"kind": "completed", "report": report}
        except Exception as exc:  # noqa: BLE001 (the job's edge: a mistake in the program ends the job, not the service)
            return self._came_of(job_id, watch.stopped_by or exc)
        finally:
            with self._lock:
                del self._running[job_id, run]
            if not is_completed:
                # An error that went through requests and threads lies in cycles with what it came through: pictures, a decoder with its threads,
                # open files. Python looks for cycles by the number of its own objects, which these hardly add to.
                gc.collect()

    def settle(self, job_id: str, run: int, outcome: dict[str, Any]) -> list[Next]:
        """Write down what came of an attempt. See `Work.settle`."""
        row = self._ledger.row(job_id)
        if row is None or row["state"] in ("cancelled", "failed"):
            self._storage.remove_job(job_id)  # what a cancelled attempt wrote last
            return []
        if row["run"] != run or row["state"] not in ACTIVE_STATES:
            return []
        following = self._settled(row, outcome)
        self._on_change()
        return following

    def stop(self, job_id: str, error: RenderError) -> None:
        """End the attempt on a job, if this process is at it."""
        with self._lock:
            watches = [running.watch for (its_id, _), running in self._running.items() if its_id == job_id]
        for watch in watches:
            watch.stop(error)

    def drain(self, grace_s: float) -> None:
        """Begin nothing more, and let what runs leave: at its next checkpoint, or where it is when the time is nearly up."""
        deadline = time.monotonic() + grace_s
        with self._lock:
            self._is_draining = True
            watches = [running.watch for running in self._running.values()]
        for watch in watches:
            watch.leave_at_checkpoint()
        self._wait_idle(deadline - min(3.0, grace_s / 2))
        for watch in watches:
            watch.stop(RenderInterrupted("The service is shutting down; the render goes on when it is back."))
        self._wait_idle(deadline)
        self._closed.set()
        self._pulse.join()

    @property
    def is_draining(self) -> bool:
        """Whether the service shuts down."""
        return self._is_draining

    @property
    def running_count(self) -> int:
        """How many jobs this process is at."""
        with self._lock:
            return len(self._running)

    def _wait_idle(self, deadline: float) -> None:
        while self.running_count and time.monotonic() < deadline:
            time.sleep(0.05)

    def _begin(self, row: Row) -> None:
        """Write down that an attempt begins.

        Raises:
            CrashLoop: the process died too often while it was at this job.
            RenderCancelled: the job is no longer to be worked on.
        """
        segment_count = len(finished_segments(self._storage.segments(row["id"])))
        crashes = 0
        if row["state"] == "running":  # so the process that was at it died
            crashes = row["crashes"] + 1 if segment_count <= row["reached"] else 1
        if crashes > MAX_CRASHES:
            raise CrashLoop(f"The service died {crashes} times at this job without getting any further; look into its log and the system's.")
        values = {
            "state": "running",
            "host": self._host,
            "stage": "read",
            "done": 0,
            "total": 0,
            "frames_per_s": 0.0,
            "eta_s": None,
            "started_at": row["started_at"] or time.time(),
            "attempts": row["attempts"] + 1,
            "crashes": crashes,
            "segments_done": segment_count,
        }
        if crashes:
            values["reached"] = segment_count
        if not self._ledger.change(row["id"], values, states=ACTIVE_STATES, run=row["run"]):
            raise RenderCancelled("The job was cancelled.")
        self._on_change()

    def _await_space(self, watch: Watch) -> None:
        """Wait while there is hardly space left.

        Raises:
            StorageFull: there is none for too long.
            RenderError: see `Watch.waiting`.
        """
        deadline = time.monotonic() + self._settings.stall_s
        while self._storage.is_exhausted:
            if time.monotonic() > deadline:
                raise StorageFull("The service's disk was full for too long; free some space, then submit the job again.")
            watch.waiting()
            time.sleep(PULSE_S)

    def _render(self, row: Row, watch: Watch, board: ProgressBoard) -> dict[str, Any]:
        spec = JobSpec.stored(row["spec"])
        self._storage.job_folder(row["id"]).mkdir(parents=True, exist_ok=True)
        video, audio, *others = self._inputs(row, spec, watch)
        portrait = others.pop() if spec.speaker_image is not None else None
        settings = self._settings
        limits = MediaLimits(settings.max_duration_s, settings.max_pixels, settings.max_frames)
        if any(is_url(source) for source in spec.sources):  # else whoever submitted the job has checked them
            check_inputs(video, (audio, *others), limits)
            if portrait is not None:
                check_video(portrait, limits)
        result = self._storage.result(row["id"], spec.container)
        speakers = [SpeakerAudio(path, other.speaker) for path, other in zip(others, spec.others, strict=True)]
        plan = plan_render(
            video,
            audio,
            result,
            spec.options,
            board.report,
            watch,
            limits,
            speakers,
            portrait,
            encoder_threads=self._encoder_threads,
            decoder=self._decoder,
        )
        board.total_frames = plan.expected_frame_count
        report = render(
            plan,
            self._client.at_priority(REQUEST_PRIORITIES[spec.priority]),
            board.report,
            watch=watch,
            tracks=self._tracks,
            segments=self._storage.segments(row["id"]),
            roles=settings.optional_roles,
        )
        try:
            self._hooks.deliver(self._ledger.view(row["id"]), result)
        except StorageError:
            if row["failures"] + 1 < settings.max_attempts:
                raise
            log.warning("the result is there, but cannot be delivered", extra={"job": row["id"]})
        return {**asdict(report), "output": result.name}

    def _inputs(self, row: Row, spec: JobSpec, watch: Watch) -> list[Path]:
        """Return the local paths of a job's inputs, those fetched first that are URLs and were not fetched yet."""
        known = local_inputs(row)
        for place, source in enumerate(spec.sources):
            if known[place] is None:
                self._fetch(source, watch, partial(self._write_down, row, known, place))
        return [Path(path) for path in known if path is not None]

    def _write_down(self, row: Row, known: list[str | None], place: int, path: Path) -> None:
        """Put the path of one of a job's inputs in its place among those known, and all of them into the ledger."""
        known[place] = str(path)
        video, audio, *others = known
        values = {"video": video, "audio": audio, "others": json.dumps(others)}
        self._ledger.change(row["id"], values, states=("running",), run=row["run"])

    def _fetch(self, url: str, watch: Watch, hold: Callable[[Path], None]) -> None:
        with self._storage.incoming("download", self._settings.max_upload_bytes, is_accepted=True) as sink:

            def write(data: bytes) -> None:
                sink.write(data)
                watch.tick()

            sink.name = self._hooks.fetch(url, write, lambda: watch.is_stopped) or "download"
            watch.check()
            sink.commit(hold)

    def _settled(self, row: Row, outcome: dict[str, Any]) -> list[Next]:
        job_id, run = row["id"], row["run"]
        if outcome["kind"] == "interrupted":
            self._ledger.change(job_id, queued_again(row), states=ACTIVE_STATES, run=run)
            return [] if self._is_draining else [Next(RENDERS, run + 1, FIRST_IN_LINE)]
        if outcome["kind"] == "gone":
            return []
        if outcome["kind"] == "completed":
            report = outcome["report"]
            self.frames_per_s = report["frames_per_s"] or self.frames_per_s
            self._metrics.rendered(report)
            values = {
                "stage": "finish",
                "done": report["frame_count"],
                "total": report["frame_count"],
                "percent": 100,
                "eta_s": 0.0,
                "faces_found": report["face_frame_count"],
                "passed_through": sum(stop - first for first, stop in report["passed_through"]),
                "segments_done": len(finished_segments(self._storage.segments(job_id))),
                "has_result": True,
                "report": json.dumps(report),
                "error_code": None,
                "error": None,
            }
            return self._end(row, "completed", values)
        segment_count = len(finished_segments(self._storage.segments(job_id)))
        failures = row["failures"] + 1 if segment_count <= row["reached"] else 1
        error = {"error_code": outcome["code"], "error": outcome["message"]}
        if outcome["retryable"] and failures < self._settings.max_attempts:
            values = {**queued_again(row), **error, "failures": failures, "reached": segment_count}
            self._ledger.change(job_id, values, states=ACTIVE_STATES, run=run)
            delay_s = back_off_s(failures)
            log.info("tried again in %.0f s, after %d of %d failures in a row", delay_s, failures, self._settings.max_attempts, extra={"job": job_id})
            return [Next(RENDERS, run + 1, FIRST_IN_LINE, delay_s=delay_s)]
        following = self._end(row, "failed", {**error, "eta_s": None})
        self._storage.remove_job(job_id)
        return following

    def _end(self, row: Row, state: str, values: dict[str, Any]) -> list[Next]:
        """Write a job's end down; returns the delivery of its webhook."""
        has_webhook = JobSpec.stored(row["spec"]).webhook_url is not None
        values = {**values, "state": state, "finished_at": time.time(), "webhook_try": 1 if has_webhook else None}
        if not self._ledger.change(row["id"], values, states=ACTIVE_STATES, run=row["run"]):
            self._storage.remove_job(row["id"])  # cancelled at the last moment
            return []
        self._metrics.ended(state, values.get("error_code"))
        came_to = f"{values['done']} frames" if state == "completed" else values["error_code"]
        since_s = values["finished_at"] - row["created_at"]
        log.info("job %s: %s, %.1f s after it was accepted", state, came_to, since_s, extra={"job": row["id"]})
        return [Next(DELIVERIES, 1)] if has_webhook else []

    def _came_of(self, job_id: str, error: Exception) -> dict[str, Any]:
        """Return the outcome of an attempt that ended with an error."""
        if isinstance(error, RenderCancelled):
            return {"kind": "gone"}
        if isinstance(error, RenderInterrupted):
            log.info("attempt interrupted, to go on from its last finished segment", extra={"job": job_id})
            return {"kind": "interrupted"}
        if isinstance(error, RenderError):
            return self._failure(job_id, error)
        if isinstance(error, OSError):
            advice = "check the disk, its free space and the files' owner"
            return self._failure(job_id, storage_error(error, "A file of the job cannot be read or written", advice))
        log.error("attempt ended with a mistake in the program", exc_info=error, extra={"job": job_id})
        return self._failure(job_id, RenderError("The render failed because of a mistake in the service; its log says more under the job's id."))

    def _failure(self, job_id: str, error: RenderError) -> dict[str, Any]:
        """Return a failed attempt's outcome. Clients read its message, and need not know where the data folder lies."""
        message = str(error).replace(f"{self._storage.root}{os.sep}", "")
        is_of_user = isinstance(error, InputError | FetchFailed)  # then the message has the names of his files and hosts, which no log has
        level = logging.INFO if isinstance(error, InputError) else logging.WARNING
        cause = error.code if is_of_user else f"{error.code}: {message}"
        log.log(level, "attempt failed with %s", cause, extra={"job": job_id, "code": error.code})
        return {"kind": "failed", "code": error.code, "message": message, "retryable": error.retryable}

    def _pulse_until_closed(self) -> None:
        while not self._closed.wait(PULSE_S):
            with suppress(StorageError):  # a database that is away for a moment: the next pulse tries again
                self._beat()

    def _beat(self) -> None:
        """Write progress down, and end what was cancelled elsewhere, or all that writes while there is hardly space left to write it down."""
        with self._lock:
            running = dict(self._running)
        if running and self._storage.is_exhausted:
            for job in running.values():
                if job.is_at_work:
                    job.watch.stop(StorageFull(DISK_FULL))
        is_changed = False
        for (job_id, run), job in running.items():
            values = job.board.take()
            if values is not None:
                is_changed |= self._ledger.change(job_id, values, states=("running",), run=run)
        if is_changed:
            self._on_change()
        runs = self._ledger.runs([job_id for job_id, _ in running]) if running else {}
        for (job_id, run), job in running.items():
            if runs.get(job_id) != run:
                job.watch.stop(RenderCancelled("The job was cancelled, or another host is at it."))


def back_off_s(failures: int) -> float:
    """Return how long to wait before the next attempt after so many in a row that failed, s."""
    return min(MAX_BACK_OFF_S, 2.0 ** min(failures - 1, MAX_DOUBLINGS))


def queued_again(row: Row) -> dict[str, Any]:
    """Return the columns of a job that goes back to the queue."""
    return {"state": "queued", "run": row["run"] + 1, "priority": FIRST_IN_LINE, "stage": "queued", "frames_per_s": 0.0, "eta_s": None}
