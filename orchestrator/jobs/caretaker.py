"""What nobody waits for: jobs that a crash left between the table and the queue, and files whose time is over."""

import itertools
import logging
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from orchestrator.errors import StorageError
from orchestrator.jobs.engine import DELIVERIES, RENDERS, Engine, Next, workflow_id
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.ledger import ACTIVE_STATES, Ledger
from orchestrator.jobs.runner import FIRST_IN_LINE, MAX_BACK_OFF_S, queued_again
from orchestrator.jobs.storage import Storage, data_errors
from orchestrator.jobs.webhooks import RETRY_DELAYS_S

log = logging.getLogger("lipsync.jobs")

ROUND_S = 10.0
"""Time between two rounds, s."""

CLEAN_UP_ROUNDS = 6
"""Files are cleaned up in every sixth round."""

SETTLED_S = 30.0
"""A job that changed since then is left alone: whoever changed it may not be done yet, s."""

HOST_GONE_S = 60.0
"""A host that was not seen for this long is gone, s."""

SEGMENT_RETENTION_S = 600.0
"""How long the segments of a completed job stay for players that follow it live, and once they were last sent to somebody, s."""

ORPHAN_INPUT_S = 3600.0
"""How long an input stays that no job has used yet, s."""


class Caretaker:
    """Goes its rounds on a thread of its own."""

    def __init__(self, host: str, storage: Storage, ledger: Ledger, engine: Engine, hooks: Hooks, retention_s: float, history_s: float) -> None:
        self._host = host
        self._storage = storage
        self._ledger = ledger
        self._engine = engine
        self._hooks = hooks
        self._retention_s = retention_s
        self._history_s = history_s
        self._doubtful: set[str] = set()
        """Workflows that looked dropped in the last round."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._go_rounds, name="jobs-caretaker", daemon=True)

    def start(self) -> None:
        """Put right what a crash left, then begin the rounds."""
        self._ledger.seen(self._host)
        self.reconcile(is_starting=True)
        self._thread.start()

    def close(self) -> None:
        """End the rounds."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def reconcile(self, *, is_starting: bool = False) -> None:
        """Put every active job in line that has no workflow, or one that has ended without settling it; the same for webhooks.

        A workflow looks dropped for a moment between leaving its queue and its begin, too, however long its job has waited before. So it has to look
        so in two rounds, except at the start, when nothing has left a queue yet.
        """
        before = time.time() - (0.0 if is_starting else SETTLED_S)
        active = list(self._ledger.active())
        self._engine.begin_overdue([workflow_id(row["id"], RENDERS, row["run"]) for row in active], MAX_BACK_OFF_S)
        active = [row for row in active if row["changed_at"] <= before]
        renders = self._engine.known([workflow_id(row["id"], RENDERS, row["run"]) for row in active], is_starting=is_starting)
        waiting = self._ledger.undelivered()
        self._engine.begin_overdue([workflow_id(row["id"], DELIVERIES, row["webhook_try"]) for row in waiting], max(RETRY_DELAYS_S))
        waiting = [row for row in waiting if row["changed_at"] <= before]
        deliveries = self._engine.known([workflow_id(row["id"], DELIVERIES, row["webhook_try"]) for row in waiting], is_starting=is_starting)
        doubtful = {workflow for workflow, is_alive in (*renders.items(), *deliveries.items()) if not is_alive}
        dropped, self._doubtful = doubtful if is_starting else doubtful & self._doubtful, doubtful
        for row in active:
            run, priority, workflow = row["run"], row["priority"], workflow_id(row["id"], RENDERS, row["run"])
            if workflow in dropped:
                self._engine.cancel(row["id"], RENDERS, run)
                if not self._ledger.change(row["id"], queued_again(row), states=ACTIVE_STATES, run=run):
                    continue
                log.warning("put in line again: what came of its last attempt was not written down", extra={"job": row["id"]})
                run, priority = run + 1, FIRST_IN_LINE
            if workflow in dropped or workflow not in renders:
                self._engine.enqueue(row["id"], Next(RENDERS, run, priority))
        for row in waiting:
            number, workflow = row["webhook_try"], workflow_id(row["id"], DELIVERIES, row["webhook_try"])
            if workflow in dropped:
                self._engine.cancel(row["id"], DELIVERIES, number)
                number += 1
                self._ledger.change(row["id"], {"webhook_try": number})
            if workflow in dropped or workflow not in deliveries:
                self._engine.enqueue(row["id"], Next(DELIVERIES, number))

    def take_over(self) -> None:
        """Put the jobs of hosts in line again that are gone: hosts that share a database share the data folder, so any of them can go on."""
        self._ledger.seen(self._host)
        for row in self._ledger.abandoned(self._host, time.time() - HOST_GONE_S):
            if self._ledger.change(row["id"], queued_again(row), states=("running",), run=row["run"]):
                log.warning("taken over from a host that is gone", extra={"job": row["id"]})
                self._engine.enqueue(row["id"], Next(RENDERS, row["run"] + 1, FIRST_IN_LINE))

    def clean_up(self) -> None:
        """Delete segments, results, inputs, jobs and uploads whose time is over."""
        now = time.time()
        self._storage.clear_abandoned()
        for job_id in self._ledger.finished_before(now - SEGMENT_RETENTION_S, has_result=True):
            self._storage.remove_segments(job_id, unless_used_since_s=now - SEGMENT_RETENTION_S)
        for job_id in self._ledger.finished_before(now - self._retention_s, has_result=True):
            self._storage.remove_job(job_id)  # first: whoever dies in between does it again
            self._ledger.change(job_id, {"has_result": False})
            log.info("result removed: its time is over", extra={"job": job_id})
        forgotten = now - max(self._history_s, self._retention_s)
        for job_id in self._ledger.finished_before(forgotten):
            self._ledger.remove(job_id)
            log.info("job forgotten: its time is over", extra={"job": job_id})
        self._hooks.clean_up()
        kept = self._hooks.kept()
        for path in self._storage.inputs():
            if path not in kept and not self._ledger.uses(str(path)):
                self._storage.remove_input(path, partial(self._is_young_or_needed, path, now - min(ORPHAN_INPUT_S, self._retention_s)))
        self._engine.forget_ended(forgotten)

    def _is_young_or_needed(self, path: Path, since_s: float) -> bool:
        with suppress(FileNotFoundError):
            return path.stat().st_mtime >= since_s or self.needs(path)
        return True

    def needs(self, path: Path, but: str = "") -> bool:
        """Tell whether a job other than `but`, or the layer above, needs an input."""
        # In this order: a request lets go of what it holds when a job names it.
        return path in self._hooks.kept() or self._ledger.uses(str(path), but)

    def _go_rounds(self) -> None:
        for number in itertools.count():
            if self._closed.wait(ROUND_S):
                return
            try:
                self.take_over()
                self.reconcile()
                if number % CLEAN_UP_ROUNDS == 0:
                    with data_errors():
                        self.clean_up()
            except StorageError as exc:
                log.warning("round not completed: %s: %s", exc.code, exc)
