"""DBOS: when a job runs, and that it runs again after a crash. The only module that knows it."""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import event

from orchestrator.errors import StorageError
from orchestrator.jobs.ledger import sqlite_url, translated

WORKFLOW_VERSION = "1"
"""DBOS recovers the workflows of its own version only, so this stays as it is for as long as new code can go on with old workflows."""

RENDERS, DELIVERIES = "renders", "deliveries"

POLL_S = 0.25
"""How often the queue of renders is looked at, s."""

SETTLE_S = 3
"""How long workflows may take at the end to write down what came of them, s."""

MAX_DELIVERIES = 16
"""Webhooks under way at a time."""

REPEATED_S = 60.0
"""After what time a queue's trouble is told again that goes on, s."""

SUBSEC_SINCE = (3, 42)
"""SQLite from which `unixepoch('subsec')`, which DBOS has its tables take in a Python from 3.12, is the time. Before, as in Debian 12, it is NULL."""

_CANCELLED = (" was cancelled", " was cancelled during execution. Waiting for the recorded outcome")
"""How DBOS's lines and errors about workflows end that were cancelled."""

_FORGOTTEN_AT_ONCE = 500

_WAITING, _UNDER_WAY = ("ENQUEUED", "DELAYED"), "PENDING"


@dataclass(frozen=True, slots=True)
class Next:
    """A workflow that follows: another run of the job, or another delivery of its webhook."""

    queue: str
    number: int
    priority: int = 1
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """What the workflows do. Each step's result is kept, so a step that was finished before a crash is not done again."""

    attempt: Callable[[str, int], dict[str, Any]]
    """Work on a job (id, run); returns what came of it. Begun again from its start if the process dies."""
    settle: Callable[[str, int, dict[str, Any]], list[Next]]
    """Write down what came of it; returns what follows."""
    deliver: Callable[[str, int], list[Next]]
    """Deliver a job's webhook (id, number of the delivery); returns what follows."""


class Engine:
    """The workflows of this process. There is one a process, because DBOS is.

    Its methods raise a `StorageError` where the database cannot be used.
    """

    def __init__(self, url: str, host: str, concurrency: int, work: Work) -> None:
        self._config: DBOSConfig = {
            "name": "lipsync",
            "system_database_url": url,
            "db_engine_kwargs": {"hide_parameters": True},
            "executor_id": host,
            "application_version": WORKFLOW_VERSION,
            "log_level": "WARNING",
            "use_listen_notify": False,
            "scheduler_polling_interval_sec": 3600.0,
        }
        self._host = host
        self._concurrency = concurrency
        self._work = work
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._instance: DBOS | None = None
        self._workflows: dict[str, Callable[[str, int], None]] = {}
        if sqlite3.sqlite_version_info < SUBSEC_SINCE:
            event.listen(sa.Engine, "connect", teach_subsec)

    def launch(self) -> None:
        """Begin: what this host was at when it died first, then what waits.

        Raises:
            StorageError: the database cannot be used.
        """
        self._instance = DBOS(config=self._config)
        log_as_the_service_does()
        work = self._work

        @DBOS.workflow(name="render", max_recovery_attempts=None)
        def render(job_id: str, run: int) -> None:
            with self._noted(workflow_id(job_id, RENDERS, run)):
                outcome = DBOS.run_step({"name": "attempt"}, work.attempt, job_id, run)
                self._follow(job_id, DBOS.run_step({"name": "settle"}, work.settle, job_id, run, outcome))

        @DBOS.workflow(name="deliver", max_recovery_attempts=None)
        def deliver(job_id: str, number: int) -> None:
            with self._noted(workflow_id(job_id, DELIVERIES, number)):
                self._follow(job_id, DBOS.run_step({"name": "deliver"}, work.deliver, job_id, number))

        self._workflows = {RENDERS: render, DELIVERIES: deliver}
        try:
            DBOS.launch()
            DBOS.register_queue(RENDERS, worker_concurrency=self._concurrency, polling_interval_sec=POLL_S, on_conflict="always_update")
            DBOS.register_queue(DELIVERIES, worker_concurrency=MAX_DELIVERIES, polling_interval_sec=2 * POLL_S, on_conflict="always_update")
        except Exception as exc:
            self.close()
            raise StorageError(f"The jobs' database cannot be used ({type(exc).__name__}); check that it runs and can be written.") from exc

    @translated()
    def enqueue(self, job_id: str, what: Next) -> None:
        """Put a workflow in line. One that is there already stays as it is."""
        options = SetEnqueueOptions(priority=what.priority, delay_seconds=what.delay_s or None)
        with SetWorkflowID(workflow_id(job_id, what.queue, what.number)), options:
            DBOS.enqueue_workflow(what.queue, self._workflows[what.queue], job_id, what.number)

    @translated()
    def cancel(self, job_id: str, queue: str, number: int) -> None:
        """Take a workflow out of its queue. One that has ended stays as it is."""
        DBOS.cancel_workflow(workflow_id(job_id, queue, number))

    @translated()
    def known(self, ids: Sequence[str], *, is_starting: bool = False) -> Mapping[str, bool]:
        """Return for each of some workflows that exist whether it is still to do or under way.

        One that this process has dropped is neither: DBOS drops a workflow when the database does not take what came of it (the disk is full),
        and takes it up again at the process's next start only. While that is under way, `is_starting`, what this process is not at yet counts.
        """
        found = DBOS.list_workflows(workflow_ids=list(ids), load_input=False, load_output=False) if ids else []
        with self._lock:
            here = set(self._under_way)
        return {
            status.workflow_id: status.status in _WAITING
            or (status.status == _UNDER_WAY and (is_starting or status.executor_id != self._host or status.workflow_id in here))
            for status in found
        }

    @translated()
    def begin_overdue(self, ids: Sequence[str], longest_delay_s: float) -> None:
        """Begin those of some delayed workflows now whose time is further away than any delay: the clock was set back since they were put in line."""
        latest_ms = (time.time() + longest_delay_s) * 1000
        for status in DBOS.list_workflows(workflow_ids=list(ids), status="DELAYED", load_input=False, load_output=False) if ids else []:
            if (status.delay_until_epoch_ms or 0) > latest_ms:
                DBOS.set_workflow_delay(status.workflow_id, delay_seconds=0)

    @translated()
    def forget_ended(self, before_s: float) -> None:
        """Delete every workflow that ended before a time (seconds since 1970), whether its job is still known or not."""
        before = datetime.fromtimestamp(before_s, UTC).isoformat()
        while ended := DBOS.list_workflows(completed_before=before, limit=_FORGOTTEN_AT_ONCE, load_input=False, load_output=False):
            DBOS.delete_workflows([status.workflow_id for status in ended])

    def stop_taking(self) -> None:
        """Take nothing more from the queues; what runs goes on."""
        if self._instance is not None:
            for event in self._instance.background_thread_stop_events:
                event.set()

    def close(self) -> None:
        """End. Workflows that still run are taken up by the next start; those about to end are let end, or DBOS logs an error of each."""
        with self._lock:
            is_idle = not self._under_way
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=0 if is_idle else SETTLE_S)
        self._instance = None

    @contextmanager
    def _noted(self, workflow: str) -> Iterator[None]:
        """Keep in mind that this process is at a workflow."""
        with self._lock:
            self._under_way.add(workflow)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.discard(workflow)

    def _follow(self, job_id: str, following: list[Next]) -> None:
        for what in following:
            self.enqueue(job_id, what)


def workflow_id(job_id: str, queue: str, number: int) -> str:
    """Return the id of a job's Nth workflow on a queue; the job's id stands in front."""
    return f"{job_id}.{queue}.{number}"


def engine_url(url: str | None, file: Path) -> str:
    """Return DBOS's URL for the setting: PostgreSQL, or SQLite in a file."""
    return url.replace("postgres://", "postgresql://", 1) if url else sqlite_url(file)


def log_as_the_service_does() -> None:
    """Let DBOS's log go the way of all logs, in place of a handler of its own."""
    logger = logging.getLogger("dbos")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True
    logger.filters[:] = [_News()]


class _News(logging.Filter):
    """Tells which lines of DBOS's go into the log, without the SQL in them.

    That a workflow was cancelled in the moment it began is an error to DBOS alone, and a full disk, or a database that is away, one at each look and
    for each workflow, which the caretaker puts in line again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told_s: dict[str, float] = {}
        """When what of the database was told last."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage().partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        cause = str(error or "").partition("\n")[0]
        if message.endswith(_CANCELLED) or cause.endswith(_CANCELLED):
            return False
        if isinstance(error, StorageError | sa.exc.DBAPIError):
            record.exc_info, record.levelno, record.levelname = None, logging.WARNING, "WARNING"
            message = f"{message} {cause}"
        record.msg, record.args = message, ()
        if not message.startswith("Exception ") or record.exc_info:
            return True
        now = time.monotonic()
        if now - self._told_s.get(message, -math.inf) < REPEATED_S:
            return False
        self._told_s[message] = now
        return True


def teach_subsec(connection: Any, _: object) -> None:
    """Give a new connection to an older SQLite `unixepoch('subsec')`: the Unix time, s, to the millisecond. One to PostgreSQL stays as it is."""
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("unixepoch", 1, _unixepoch)


def _unixepoch(value: str) -> float:
    if value != "subsec":
        raise ValueError("only unixepoch('subsec') is made up for")
    return round(time.time(), 3)
