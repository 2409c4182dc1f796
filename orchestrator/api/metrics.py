"""`GET /metrics`: the jobs' numbers, and Triton's own beside them, for Prometheus."""

from collections.abc import Iterable

from fastapi import APIRouter, Security
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from orchestrator.api.context import Context
from orchestrator.api.problems import ProblemDetails, error_responses
from orchestrator.api.v2 import API_KEY
from orchestrator.errors import RenderError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import CONTRACTS, OPTIONAL_CONTRACTS
from orchestrator.inference.metrics import read_metrics
from orchestrator.inference.usage import counted_use


class TritonCollector(Collector):
    """Triton's own count of what each model did, asked for when Prometheus asks."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering asks Triton for nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; while Triton is away, only that it is, and how often it was started again."""
        up = GaugeMetricFamily("lipsync_triton_up", "1 while Triton answers and is ready.")
        inferences = CounterMetricFamily("lipsync_triton_inferences", "Inferences (frames).", labels=["model"])
        executions = CounterMetricFamily("lipsync_triton_executions", "Batches that were run.", labels=["model"])
        compute = CounterMetricFamily("lipsync_triton_compute_seconds", "Time spent in the model.", labels=["model"])
        queue = CounterMetricFamily("lipsync_triton_queue_seconds", "Time requests spent in Triton's queue.", labels=["model"])
        batch = GaugeMetricFamily("lipsync_triton_mean_batch", "Inferences a batch, since the model was loaded.", labels=["model"])
        restarts = CounterMetricFamily("lipsync_triton_restarts", "How often the embedded Triton was started again.", self._client.reconnect_count)
        gpu = GaugeMetricFamily("lipsync_gpu_utilization", "How busy a GPU of Triton's is, 0 to 1, by Triton's last reading.", labels=["gpu"])
        memory = GaugeMetricFamily("lipsync_gpu_memory_used_bytes", "Memory in use on a GPU of Triton's.", labels=["gpu"])
        is_up = self._client.is_server_ready()
        try:
            counted = self._client.statistics() if is_up else {}
            for role in (role for role in (*CONTRACTS, *OPTIONAL_CONTRACTS) if role in counted):
                use = counted_use(counted[role])
                inferences.add_metric([role], use.inference_count)
                executions.add_metric([role], use.execution_count)
                compute.add_metric([role], use.compute_s)
                queue.add_metric([role], use.queue_s)
                batch.add_metric([role], use.mean_batch)
        except RenderError:
            is_up = False
        if is_up and (own := read_metrics(self._client.metrics_address)) is not None:
            for uuid, utilisation in own.gpu_utilisation.items():
                gpu.add_metric([uuid], utilisation)
            for uuid, used_bytes in own.gpu_memory_bytes.items():
                memory.add_metric([uuid], used_bytes)
        up.add_metric([], float(is_up))
        yield from (up, restarts, inferences, executions, compute, queue, batch, gpu, memory)


def metrics_router(context: Context, registry: CollectorRegistry) -> APIRouter:
    """Return the route."""
    router = APIRouter(tags=["operations"], dependencies=[Security(API_KEY)])

    @router.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={
            200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **error_responses(ProblemDetails, 401),
        },
    )
    async def metrics() -> Response:
        """Return the numbers of this process and of Triton."""
        return Response(await context.run(generate_latest, registry), media_type=CONTENT_TYPE_LATEST)

    return router
