"""Batches: reading their file, handing them over to the jobs, and telling how far they are."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from orchestrator.api.context import Context
from orchestrator.api.problems import Problem, validation_sentence
from orchestrator.api.uploads import StoredFile, parse_body, parse_json
from orchestrator.api.v2_codes import sync_code
from orchestrator.api.v2_jobs import build_spec, compact_json, generation
from orchestrator.api.v2_schema import BatchLine, BatchMetrics, BatchStatus, BatchView, GenerateRequest
from orchestrator.errors import QueueFull, RenderError, RenderInterrupted, UnknownJob
from orchestrator.jobs.model import FINAL_STATES, JobView
from orchestrator.jobs.records import Batch, BatchItem
from orchestrator.jobs.webhooks import call_once, headers
from orchestrator.media.fetch import post

log = logging.getLogger("lipsync.batch")

MAX_BATCH_BYTES = 5_000_000
"""Largest input file, bytes. As sync.so has it."""

MAX_BATCH_REQUESTS = 500
"""Most requests of a batch. As sync.so has it, whose least number (20) is not asked for here."""

ANNOUNCE_S = 2.0
"""How often batches are looked at for whether they have ended, s."""

RESUME_S = 60.0
"""Age from which a batch that is not handed over entirely was left so by a crash, s."""


def read_items(stored: StoredFile | None, context: Context, owner: str) -> list[BatchItem]:
    """Check an uploaded file of JSON lines and return its requests. The file goes as every upload that nothing names: it may be an asset's, too."""
    if stored is None:
        raise Problem(422, "invalid_request", "The form has no input; send a file of JSON lines as the part named input.")
    if stored.size_bytes > MAX_BATCH_BYTES:
        raise Problem(413, "limit_exceeded", f"The file is larger than {MAX_BATCH_BYTES} bytes; split it.")
    try:
        lines = [(number, line) for number, line in enumerate(stored.path.read_bytes().decode("utf-8-sig").split("\n"), 1) if line.strip()]
    except UnicodeDecodeError:
        raise Problem(422, "invalid_request", "The file is not text in UTF-8; encode it so.") from None
    if not 1 <= len(lines) <= MAX_BATCH_REQUESTS:
        raise Problem(422, "invalid_request", f"The file has {len(lines)} requests; send 1 to {MAX_BATCH_REQUESTS} in one batch.")
    return check_rows(lines, context, owner)


def check_rows(rows: Iterable[tuple[int, str | dict[str, Any]]], context: Context, owner: str) -> list[BatchItem]:
    """Check requests, each with the number of its line and maybe still JSON, and return them."""
    items: list[BatchItem] = []
    seen: set[str] = set()
    for number, row in rows:
        try:
            entry = BatchLine.model_validate(parse_json(row) if isinstance(row, str) else row)
        except Problem as exc:
            raise Problem(exc.status, exc.code, f"Line {number}: {exc}") from exc
        except ValidationError as exc:
            raise Problem(422, "invalid_request", f"Line {number}: {validation_sentence(exc)}") from exc
        if entry.request_id in seen:
            raise Problem(422, "invalid_request", f"Line {number}: the request_id is not unique; give each line its own.")
        seen.add(entry.request_id)
        try:
            build_spec(entry.payload, context, owner, priority="batch")
        except RenderError as exc:
            raise Problem(422, exc.code, f"Line {number}: {exc}") from exc
        items.append(BatchItem(request_id=entry.request_id, payload=entry.payload.model_dump(mode="json", exclude_unset=True)))
    return items


def start_batch(batch: Batch, context: Context) -> Batch:
    """Hand a batch's requests over to the jobs. What was handed over before a crash is not handed over twice."""
    context.batches.save(batch)
    items: list[BatchItem] = []
    try:
        for number, item in enumerate(batch.items):
            if _is_open(item):
                item = _hand_over(item, f"batch:{batch.id}:{number}", batch.owner, context)  # noqa: PLW2901
            items.append(item)
    except QueueFull:
        for item in items:
            if item.job_id is not None:
                context.service.delete(item.job_id)
        context.batches.delete(batch.id)
        raise
    return context.batches.save(batch.model_copy(update={"items": items}))


def _hand_over(item: BatchItem, key: str, owner: str, context: Context) -> BatchItem:
    try:
        spec = build_spec(parse_body(GenerateRequest, item.payload), context, owner, priority="batch")
        return item.model_copy(update={"job_id": context.service.accept(spec, idempotency_key=key)})
    except (RenderError, Problem) as exc:  # the latter where another version of this program accepted it
        if isinstance(exc, RenderError) and exc.retryable:
            raise
        return item.model_copy(update={"error_code": exc.code, "error": str(exc)})


def _is_open(item: BatchItem) -> bool:
    return item.job_id is None and item.error is None


def batch_jobs(batch: Batch, context: Context) -> Iterator[tuple[BatchItem, JobView | None]]:
    """Yield a batch's requests with their jobs; None for one that was deleted."""
    ids = [item.job_id for item in batch.items if item.job_id is not None]
    found = {view.id: view for view in context.service.find(ids=ids, limit=len(ids))}
    for item in batch.items:
        yield item, found.get(item.job_id or "")


def has_ended(found: Iterable[tuple[BatchItem, JobView | None]]) -> bool:
    return all(not _is_open(item) and (view is None or view.state in FINAL_STATES) for item, view in found)


def batch_view(batch: Batch, context: Context, base_url: str) -> BatchView:
    found = list(batch_jobs(batch, context))
    success = sum(view is not None and view.state == "completed" for _, view in found)
    pending = sum(_is_open(item) or (view is not None and view.state not in FINAL_STATES) for item, view in found)
    metrics = BatchMetrics(total_generations=len(found), success_count=success, failed_count=len(found) - success - pending, pending_count=pending)
    has_begun = any(view is not None and view.state != "queued" for _, view in found)
    status: BatchStatus = "PROCESSING" if has_begun else "PENDING"
    if not pending:
        status = "COMPLETED" if success else "FAILED"
    path = f"/v2/batch/{batch.id}"
    return BatchView(
        id=batch.id,
        created_at=batch.created_at,
        status=status,
        metrics=metrics,
        webhookUrl=batch.webhook_url,
        outputUrl="" if pending else context.signed_url(f"{path}/output", path, base_url),
    )


def outcome(item: BatchItem, view: JobView | None, context: Context, base_url: str) -> dict[str, Any]:
    if view is None:
        code, error = item.error_code or UnknownJob.code, item.error or "The job was deleted."
        theirs = sync_code(code)
        return {"id": item.job_id, "status": "FAILED", "error": error, "code": code, "errorCode": theirs, "error_code": theirs}
    return generation(view, context, base_url).model_dump(mode="json")


class BatchAnnouncer:
    """Calls the webhooks of batches that have ended, on a thread of its own, hands over what a crash left behind, and forgets what is long over."""

    def __init__(self, context: Context, webhook_secret: str, history_s: float) -> None:
        """Make an announcer; `history_s` is the age from which a batch is forgotten whose jobs are."""
        self._context = context
        self._secret = webhook_secret
        self._history_s = history_s
        self._stopped = threading.Event()
        self._not_before: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="batch-announcer")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop and wait for the thread."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(ANNOUNCE_S):
            try:
                with self._context.batches.lock() as is_mine:
                    for batch in self._context.batches.all() if is_mine else ():
                        if self._stopped.is_set():
                            return
                        if self._not_before.get(batch.id, 0.0) <= time.monotonic():
                            self._look_safely(batch)
            except RenderError:
                log.exception("batches cannot be looked at")

    def _look_safely(self, batch: Batch) -> None:
        """Look at a batch; what goes wrong with it is nothing to the others, and is tried again."""
        try:
            self._look(batch)
        except Exception:
            log.exception("batch %s cannot be looked at", batch.id)
            self._not_before[batch.id] = time.monotonic() + RESUME_S

    def _look(self, batch: Batch) -> None:
        age_s = (datetime.now(UTC) - batch.created_at).total_seconds()
        if age_s > RESUME_S and any(map(_is_open, batch.items)):
            start_batch(batch, self._context)
        elif not batch.is_announced:
            if has_ended(batch_jobs(batch, self._context)):
                self._announce(batch)
        elif age_s > self._history_s and all(view is None for _, view in batch_jobs(batch, self._context)):
            self._context.batches.delete(batch.id)

    def _announce(self, batch: Batch) -> None:
        assert batch.webhook_url is not None
        url, policy, at = batch.webhook_url, self._context.fetch_policy, int(time.time())
        body = compact_json(batch_view(batch, self._context, self._context.base_url()).model_dump(mode="json"))
        failures = self._failures.get(batch.id, 0)
        try:
            is_delivered, delay_s = call_once(lambda: post(url, body, headers(body, self._secret, at), policy), failures + 1, self._stopped.is_set)
        except RenderInterrupted:
            return  # the next start finds it unannounced
        log.info("webhook of batch %s %s", batch.id, "delivered" if is_delivered else "not delivered")
        if delay_s is None:
            self._failures.pop(batch.id, None)
            self._not_before.pop(batch.id, None)
            self._context.batches.save(batch.model_copy(update={"is_announced": True}))
        else:
            self._failures[batch.id] = failures + 1
            self._not_before[batch.id] = time.monotonic() + delay_s
