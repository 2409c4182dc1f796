"""What Triton's metrics say about where models run: the GPUs' utilisation, and the embedded backend's own account of execution providers."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """One reading of a Triton's metrics."""

    gpu_utilisation: Mapping[str, float]
    """0..1 by the GPU's UUID, as Triton read it last; empty where Triton reads none (no GPU, MIG, WSL)."""
    gpu_memory_bytes: Mapping[str, int]
    """Memory in use by the GPU's UUID."""
    operators: Mapping[str, Mapping[str, int]]
    """Operators by model and execution provider, all instances together; only the embedded backend counts them."""
    operator_us: Mapping[str, Mapping[str, int]]
    """The time those took in the trial run, us."""


def read_metrics(address: str | None) -> Metrics | None:
    """Read a server's metrics; None if nothing there answers with metrics, which a firewall or another port may cause."""
    if address is None:
        return None
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)  # urllib would go through a proxy
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read().decode()
        if response.status != http.client.OK:
            return None
        return parse_metrics(text)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def parse_metrics(text: str) -> Metrics:
    """Read Prometheus text.

    Raises:
        ValueError: it is none.
    """
    utilisation: dict[str, float] = {}
    memory: dict[str, int] = {}
    by_model: dict[str, dict[str, dict[str, int]]] = {"lipsync_model_operators": {}, "lipsync_model_operator_us": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "nv_gpu_utilization":
                utilisation[sample.labels["gpu_uuid"]] = float(sample.value)
            elif sample.name == "nv_gpu_memory_used_bytes":
                memory[sample.labels["gpu_uuid"]] = int(sample.value)
            elif sample.name in by_model:
                providers = by_model[sample.name].setdefault(sample.labels["model"], {})
                providers[sample.labels["provider"]] = providers.get(sample.labels["provider"], 0) + int(sample.value)
    return Metrics(utilisation, memory, by_model["lipsync_model_operators"], by_model["lipsync_model_operator_us"])
