"""Webhooks: how they are signed, and how patiently they are delivered."""

import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from orchestrator.errors import RenderError, RenderInterrupted, UrlRefused, passed_to
from orchestrator.jobs.engine import DELIVERIES, Next
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.metrics import JobMetrics

log = logging.getLogger("lipsync.jobs")

SIGNATURE_HEADER = "Sync-Signature"

POLL_S = 0.25
"""How often a delivery under way looks whether the service shuts down, s."""

RETRY_DELAYS_S = (1, 2, 4, 8, 15, 30, 60, 120, 300, 600, 1800, *([3600] * 24))
"""Time before each further delivery, s: a receiver may be away for a day."""


def sign(body: bytes, secret: str, at: int) -> str:
    """Return the signature of a body sent at a time (seconds since 1970): HMAC-SHA256 over the time, a full stop and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def headers(body: bytes, secret: str, at: int) -> dict[str, str]:
    """Return the headers of a delivery; without a secret it is not signed."""
    plain = {"Content-Type": "application/json"}
    return {**plain, SIGNATURE_HEADER: sign(body, secret, at)} if secret else plain


def retry_delay_s(failed_deliveries: int) -> float | None:
    """Return how long to wait after a number of failed deliveries; None gives up."""
    return RETRY_DELAYS_S[failed_deliveries - 1] if failed_deliveries <= len(RETRY_DELAYS_S) else None


def call_once(post: Callable[[], int], number: int, is_stopping: Callable[[], bool]) -> tuple[bool, float | None]:
    """Call a webhook for the `number`th time, on a thread that the service's end does not wait for: a receiver may take most of a minute to answer.

    Args:
        post: sends the request and returns the HTTP status.
        number: of this delivery, counted from 1.
        is_stopping: tells that the service shuts down.

    Returns:
        Whether it was delivered, and how long to wait before the next delivery, s; None for no more.

    Raises:
        RenderInterrupted: the service shuts down.
    """
    answer: Future[int] = Future()

    def run() -> None:
        with passed_to(answer):
            answer.set_result(post())

    threading.Thread(target=run, name="webhook", daemon=True).start()
    while not wait([answer], POLL_S).done:
        if is_stopping():
            raise RenderInterrupted("The service is shutting down; the webhook is called again when it is back.")
    try:
        status = answer.result()
    except UrlRefused:
        return False, None
    except RenderError:
        return False, retry_delay_s(number)
    is_delivered = 200 <= status < 300
    return is_delivered, None if is_delivered or status == 410 else retry_delay_s(number)


class Deliveries:
    """Calls the webhooks of jobs that have ended."""

    def __init__(self, ledger: Ledger, hooks: Hooks, secret: str, metrics: JobMetrics, is_stopping: Callable[[], bool]) -> None:
        """Make deliveries; `is_stopping` tells that the service shuts down."""
        self._ledger = ledger
        self._hooks = hooks
        self._secret = secret
        self._metrics = metrics
        self._is_stopping = is_stopping

    def deliver(self, job_id: str, number: int) -> list[Next]:
        """Deliver a job's webhook once. See `Work.deliver`."""
        row = self._ledger.row(job_id)
        if row is None or row["webhook_try"] != number:
            return []
        view = self._ledger.view(job_id)
        url, body, at = view.spec.webhook_url or "", self._hooks.webhook_body(view), int(time.time())
        try:
            is_delivered, delay_s = call_once(lambda: self._hooks.post(url, body, headers(body, self._secret, at)), number, self._is_stopping)
        except RenderInterrupted:
            return []  # the next start finds it undelivered
        log.info("webhook %s", "delivered" if is_delivered else "not delivered", extra={"job": job_id})
        self._metrics.delivered(is_delivered)
        self._ledger.change(job_id, {"webhook_try": None if delay_s is None else number + 1})
        return [] if delay_s is None else [Next(DELIVERIES, number + 1, delay_s=delay_s)]
