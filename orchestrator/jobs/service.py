"""The jobs of this host: accepted durably, rendered a few at a time, resumed after a crash."""

import contextlib
import fcntl
import logging
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry

from orchestrator.errors import MissingFile, NotReady, RenderCancelled, RenderError, StorageError, StorageFull
from orchestrator.files import written_once
from orchestrator.inference.client import TritonClient
from orchestrator.jobs.capacity import concurrent_renders
from orchestrator.jobs.caretaker import Caretaker
from orchestrator.jobs.engine import DELIVERIES, RENDERS, Engine, Next, Work, engine_url
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.ledger import ACTIVE_STATES, Ledger, database_url, local_inputs
from orchestrator.jobs.metrics import JobMetrics
from orchestrator.jobs.model import FINAL_STATES, JobSpec, JobState, JobView, Segment
from orchestrator.jobs.runner import DISK_FULL, Runner
from orchestrator.jobs.storage import Storage, data_folder_error
from orchestrator.jobs.waiting import Pace, start_times
from orchestrator.jobs.webhooks import Deliveries
from orchestrator.media.assembly import read_init_bytes
from orchestrator.media.reach import is_url
from orchestrator.pipeline.models import check_roles
from orchestrator.pipeline.plan import check_voices
from orchestrator.pipeline.segments import finished_segments
from orchestrator.pipeline.speakers import check_speaker_image
from orchestrator.settings import Settings

log = logging.getLogger("lipsync.jobs")

PRIORITIES = {"interactive": 10, "batch": 20}
"""DBOS's queue priorities: smaller goes first."""

HELD_UP: Mapping[str, Any] = MappingProxyType({"frames_per_s": 0.0, "eta_s": None, "error_code": StorageFull.code, "error": DISK_FULL})
"""What there is to say about a job while the disk is full."""

POLL_S = 0.25
"""How often a wait looks for changes that another process made, s."""


class JobService:
    """Every method may be called from any thread. One service a process: DBOS is one a process."""

    def __init__(self, settings: Settings, client: TritonClient, hooks: Hooks | None = None) -> None:
        """Open the data folder and the jobs' database; nothing runs yet.

        Raises:
            StorageError: they cannot be used.
        """
        hooks = hooks or Hooks()
        self._settings = settings
        self._client = client
        self.storage = Storage(settings.data, settings.free_space_floor_bytes)
        self._ledger = Ledger(database_url(settings.database_url, settings.data / "jobs.sqlite"))
        self._changed = threading.Condition()
        self._metrics = JobMetrics()
        self._host = settings.host_name or _kept_host_name(settings.data)
        self._runner = Runner(self._host, settings, client, hooks, self.storage, self._ledger, self._metrics, self._notify)
        deliveries = Deliveries(self._ledger, hooks, settings.webhook_secret, self._metrics, lambda: self._runner.is_draining)
        work = Work(self._runner.attempt, self._runner.settle, deliveries.deliver)
        url = engine_url(settings.database_url, settings.data / "dbos.sqlite")
        self._most_renders = concurrent_renders(settings)
        self._engine = Engine(url, self._host, self._most_renders, work)
        self._caretaker = Caretaker(self._host, self.storage, self._ledger, self._engine, hooks, settings.retention_s, settings.history_s)
        self._lock = contextlib.ExitStack()
        self._is_running = False

    def start(self) -> None:
        """Take up work: what a crash interrupted first, then the queue.

        Raises:
            StorageError: the database cannot be used, or another service with this host's name uses the data folder.
        """
        self._lock.enter_context(_only_one(self.storage.root, self._host))
        try:
            self._runner.start()
            self._engine.launch()
            self._caretaker.start()
        except BaseException:
            self._stop(0)
            self._lock.close()
            raise
        self._is_running = True

    def close(self, grace_s: float) -> None:
        """Stop: no new work, running jobs finish their segment and go back to the queue, within `grace_s`."""
        if self._is_running:
            self._is_running = False
            self._stop(grace_s)
        self._ledger.close()
        self._lock.close()

    def _stop(self, grace_s: float) -> None:
        """End what was started, all of it or a part."""
        self._engine.stop_taking()
        self._caretaker.close()
        self._runner.drain(grace_s)
        self._engine.close()

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> JobView:
        """Accept a job and return it. See `accept`."""
        return self.get(self.accept(spec, idempotency_key=idempotency_key))

    def accept(self, spec: JobSpec, *, idempotency_key: str | None = None) -> str:
        """Accept a job and return its id; it is on disk then. The same key with the same spec (per owner) is the job that is there.

        Raises:
            InvalidOption: an option has a value that the pipeline does not have.
            IdempotencyConflict: the key was used for another request.
            QueueFull: too many jobs wait.
            StorageFull: less than the free-space floor is left.
            MissingFile: an input that is not a URL is not there.
        """
        spec.options.check()
        check_voices(spec.options, [other.speaker for other in spec.others])
        if spec.speaker_image is not None:
            check_speaker_image(spec.options.speaker, spec.options.speaker_boxes, len(spec.others))
        check_roles(self.has_model, spec.options, knows_speaker=spec.speaker_image is not None)
        for source in spec.sources:
            if not is_url(source) and not Path(source).is_file():
                raise MissingFile(f"There is no file {Path(source).name}; upload it again.")
        self.storage.check_space()
        priority = PRIORITIES[spec.priority]
        job_id, is_new = self._ledger.insert(str(uuid.uuid4()), spec, priority, idempotency_key, self._settings.max_queued_jobs)
        if is_new:
            log.info("job accepted", extra={"job": job_id, "owner": spec.owner})
        if is_new and self._is_running:  # else the next start puts it in line
            with contextlib.suppress(StorageError):  # or the caretaker does: whoever were told of an error would send the job again
                self._engine.enqueue(job_id, Next(RENDERS, 1, priority))
        return job_id

    def check_room(self) -> None:
        """Refuse a new job before work is spent on its inputs; `accept` looks again.

        Raises:
            QueueFull, StorageFull: see `accept`.
        """
        self.storage.check_space()
        self._ledger.check_room(self._settings.max_queued_jobs)

    def has_model(self, role: str) -> bool:
        """Tell whether Triton has a model for a role, as far as can be told now: True while Triton does not answer."""
        try:
            return not self._client.is_server_ready() or self._client.is_model_ready(role)
        except RenderError:
            return True

    def get(self, job_id: str, owner: str | None = None) -> JobView:
        """Return a job.

        Raises:
            UnknownJob: the owner (None: anybody) has none with this id.
        """
        return self._estimated([self._ledger.view(job_id, owner)])[0]

    def find(
        self,
        *,
        interface: str | None = None,
        client_code: str | None = None,
        owner: str | None = None,
        state: JobState | None = None,
        limit: int = 50,
        before: datetime | None = None,
        ids: Collection[str] | None = None,
    ) -> list[JobView]:
        """Return jobs, newest first; `before` (a `created_at`) pages on, `ids` are the only ones looked for."""
        found = self._ledger.find(interface=interface, client_code=client_code, owner=owner, state=state, limit=limit, before=before, ids=ids)
        return self._estimated(found)

    def count(self, *, interface: str, owner: str | None = None, states: Sequence[JobState] = ()) -> int:
        """Return how many jobs there are in some states; none means any."""
        return self._ledger.count(interface=interface, owner=owner, states=states)

    def cancel(self, job_id: str) -> JobView:
        """Cancel a job that is not finished; a finished one stays as it is. Triton and the decoder are free within 2 s.

        Raises:
            UnknownJob: there is none with this id.
        """
        view = self._ledger.view(job_id)
        webhook_try = 1 if view.spec.webhook_url is not None else None
        values = {"state": "cancelled", "finished_at": time.time(), "eta_s": None, "error_code": None, "error": None, "webhook_try": webhook_try}
        was_waiting = self._ledger.change(job_id, values, states=("queued",))
        if was_waiting or self._ledger.change(job_id, values, states=ACTIVE_STATES):
            self._metrics.ended("cancelled", None)
            log.info("job cancelled while it was %s", "waiting" if was_waiting else "running", extra={"job": job_id})
            self._runner.stop(job_id, RenderCancelled("The job was cancelled."))
            self._notify()
            row = self._ledger.row(job_id)
            if row is not None and self._is_running:
                if was_waiting:
                    self._engine.cancel(job_id, RENDERS, row["run"])
                    self.storage.remove_job(job_id)
                if webhook_try is not None:
                    self._engine.enqueue(job_id, Next(DELIVERIES, webhook_try))
        return self._ledger.view(job_id)

    def delete(self, job_id: str) -> None:
        """Forget a job, cancelled first if need be: its result, and its inputs unless something else needs them.

        Raises:
            UnknownJob: there is none with this id.
        """
        self.cancel(job_id)
        row = self._ledger.row(job_id)
        self.storage.remove_job(job_id)  # first: on a full disk the rest needs the space
        self._ledger.remove(job_id)
        log.info("job deleted", extra={"job": job_id})
        for path in {path for path in local_inputs(row) if path is not None} if row is not None else ():
            self.storage.remove_input(Path(path), partial(self._caretaker.needs, Path(path), but=job_id))
        self._notify()

    def result(self, job_id: str) -> Path:
        """Return the complete output.

        Raises:
            UnknownJob: there is none with this id.
            NotReady: it is not completed, or its retention has ended.
        """
        view = self._ledger.view(job_id)
        path = self.storage.result(job_id, view.spec.container)
        if view.has_result and path.is_file():
            return path
        if view.state not in FINAL_STATES:
            raise NotReady(f"The job is {view.state} and {view.percent} % done; wait until it is completed.")
        raise NotReady(f"The job is {view.state} and its result is not there (any more); submit it again.")

    def segments(self, job_id: str) -> list[Segment]:
        """Return the finished segments in order, for playback while rendering. They go some time after the job has finished.

        Raises:
            UnknownJob: there is none with this id.
        """
        self._ledger.view(job_id)
        finished = finished_segments(self.storage.segments(job_id))
        found: list[Segment] = []
        with contextlib.suppress(FileNotFoundError):  # they are being deleted
            for index, segment in enumerate(finished):
                path, count = segment.file.path, segment.file.frame_count
                found.append(Segment(index, path, read_init_bytes(path), path.stat().st_size, segment.duration_s, count))
        return found

    def wait_change(self, job_id: str, seen: int, timeout_s: float) -> tuple[int, JobView]:
        """Wait until the job's `revision` is not `seen`, or until the time is up; returns the revision and the job. Blocks: call it on a thread.

        Raises:
            UnknownJob: there is none with this id.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            view = self._ledger.view(job_id)
            left_s = deadline - time.monotonic()
            if view.revision != seen or left_s <= 0:
                return view.revision, self._estimated([view])[0]
            with self._changed:
                self._changed.wait(min(POLL_S, left_s))

    def register_metrics(self, registry: CollectorRegistry) -> None:
        """Show the jobs' numbers in a registry of prometheus-client."""
        self._metrics.register(registry, self._ledger, lambda: self._runner.running_count, self._most_renders, self.storage.free_bytes)

    @property
    def is_accepting(self) -> bool:
        """Whether a job submitted now would be worked on: started, not closing."""
        return self._is_running

    @property
    def frames_per_s(self) -> float | None:
        """Render speed of the job that ended last on this host; None before the first."""
        return self._runner.frames_per_s

    def _estimated(self, views: list[JobView]) -> list[JobView]:
        """Say of jobs that wait when they start, where that can be told; and of those that a full disk holds up that it does, which it cannot take
        down."""
        if any(view.state in ACTIVE_STATES for view in views) and self.storage.is_exhausted:
            return [view if view.state in FINAL_STATES else view.model_copy(update=HELD_UP) for view in views]
        last = max((view.queue_position or 0 for view in views), default=0)
        if not last or not self._is_running:
            return views
        waiting, at_work = self._ledger.waiting(last), self._ledger.at_work()  # in this order, or a job that starts meanwhile were in neither
        line = [job_id for job_id in waiting if job_id not in at_work]
        busy = list(at_work.values())
        starts = start_times([waiting[job_id] for job_id in line], busy, self._most_renders, Pace(list(self._runner.took), busy))
        known = dict(zip(line, starts, strict=False))
        return [view.model_copy(update={"starts_in_s": known.get(view.id)}) for view in views]

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _kept_host_name(data: Path) -> str:
    """Return the name this host gave itself when it first used the data folder: DBOS recovers the work of the name that began it."""
    try:
        return written_once(data / "host", f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}".encode()).decode()
    except OSError as exc:
        raise data_folder_error(data, exc) from exc


@contextlib.contextmanager
def _only_one(data: Path, host: str) -> Iterator[None]:
    """Hold the lock of a host's name on a data folder.

    Raises:
        StorageError: another process holds it.
    """
    with (data / f".{host}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise StorageError(
                f"Another service uses the data folder {data}; stop it, set LIPSYNC_DATA to another folder, or give each host that shares "
                "this folder a LIPSYNC_HOST_NAME of its own."
            ) from exc
        yield
