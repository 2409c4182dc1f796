"""What Triton did for a render, by Triton's own count."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import instance_kinds


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model's work, from Triton's statistics."""

    version: str
    instance_kinds: tuple[str, ...]
    inference_count: int
    """Items inferred."""
    execution_count: int
    """Batches executed."""
    queue_s: float
    """Time requests spent in Triton's queue, s."""
    compute_s: float
    """Time spent in the model, s."""
    mean_batch: float
    """Items per batch."""

    def since(self, before: "ModelUse") -> "ModelUse":
        """Return the work done after `before`. Other clients of the same server count too."""
        items, batches = self.inference_count - before.inference_count, self.execution_count - before.execution_count
        return ModelUse(
            version=self.version,
            instance_kinds=self.instance_kinds,
            inference_count=items,
            execution_count=batches,
            queue_s=self.queue_s - before.queue_s,
            compute_s=self.compute_s - before.compute_s,
            mean_batch=items / batches if batches else 0.0,
        )


def model_use(client: TritonClient, role: str) -> ModelUse:
    """Read a model's statistics since it was loaded.

    Raises:
        InferenceError: Triton cannot be reached or lacks the model.
    """
    return counted_use(client.statistics(role)[role], instance_kinds(client.config(role)))


def counted_use(stats: Mapping[str, Any], kinds: tuple[str, ...] = ()) -> ModelUse:
    """Return a model's work by its statistics, see `TritonClient.statistics`."""
    items, batches = int(stats.get("inference_count", 0)), int(stats.get("execution_count", 0))
    spent = stats.get("inference_stats", {})
    return ModelUse(
        version=str(stats.get("version", "")),
        instance_kinds=kinds,
        inference_count=items,
        execution_count=batches,
        queue_s=int(spent.get("queue", {}).get("ns", 0)) / 1e9,
        compute_s=int(spent.get("compute_infer", {}).get("ns", 0)) / 1e9,
        mean_batch=items / batches if batches else 0.0,
    )
