"""The jobs' numbers for Prometheus."""

import time
from collections.abc import Callable, Iterable
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.errors import StorageError
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.model import JobState

_BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class JobMetrics:
    """Counts what this process does; the numbers of jobs by state come from the database, so every host shows the same."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._ended = Counter("lipsync_jobs_ended", "Jobs that ended here, by state and code of failure.", ["state", "code"], registry=self._registry)
        self._stages = Histogram(
            "lipsync_stage_seconds", "Time a completed job spent in a stage.", ["stage"], buckets=_BUCKETS_S, registry=self._registry
        )
        self._frames = Counter("lipsync_frames", "Frames of completed jobs: rendered, or passed through.", ["kind"], registry=self._registry)
        self._webhooks = Counter("lipsync_webhook_deliveries", "Attempts to deliver a webhook.", ["outcome"], registry=self._registry)

    def register(
        self, registry: CollectorRegistry, ledger: Ledger, running: Callable[[], int], most_running: int, free_bytes: Callable[[], int]
    ) -> None:
        """Show the numbers in a registry."""
        registry.register(_Together(self._registry, ledger, running, most_running, free_bytes))

    def rendered(self, report: dict[str, Any]) -> None:
        """Count a render by its report."""
        for stage, seconds in report["stage_s"].items():
            self._stages.labels(stage).observe(seconds)
        passed_through = sum(stop - first for first, stop in report["passed_through"])
        self._frames.labels("passed_through").inc(passed_through)
        self._frames.labels("rendered").inc(report["frame_count"] - passed_through)

    def ended(self, state: str, code: str | None) -> None:
        """Count a job's end."""
        self._ended.labels(state, code or "").inc()

    def delivered(self, is_delivered: bool) -> None:
        """Count an attempt to deliver a webhook."""
        self._webhooks.labels("delivered" if is_delivered else "failed").inc()


class _Together(Collector):
    """What this process counted, and what the database knows when it is asked."""

    def __init__(
        self, counted: CollectorRegistry, ledger: Ledger, running: Callable[[], int], most_running: int, free_bytes: Callable[[], int]
    ) -> None:
        self._counted = counted
        self._ledger = ledger
        self._running = running
        self._most_running = most_running
        self._free_bytes = free_bytes

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering asks the database for nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; while the database is away, those of this process."""
        yield from self._counted.collect()
        yield GaugeMetricFamily("lipsync_jobs_running_here", "Jobs that this process is at.", self._running())
        yield GaugeMetricFamily("lipsync_jobs_most_running_here", "Jobs that this process is at at most; further ones wait.", self._most_running)
        try:
            counts, oldest, free = self._ledger.counts(), self._ledger.oldest_queued_at(), self._free_bytes()
        except StorageError:
            return
        jobs = GaugeMetricFamily("lipsync_jobs", "Jobs by state.", labels=["state"])
        for state in get_args(JobState):
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        age_s = 0.0 if oldest is None else max(0.0, time.time() - oldest)
        yield GaugeMetricFamily("lipsync_queue_age_seconds", "How long the job waits that waits longest.", age_s)
        yield GaugeMetricFamily("lipsync_data_free_bytes", "Free space on the disk of the data folder.", free)
