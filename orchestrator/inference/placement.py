"""Where a model runs: its instances from Triton's configuration, its execution provider from whoever knows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.inference.contract import instance_kinds
from orchestrator.inference.metrics import Metrics

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs."""

    device: str
    """GPU or CPU; MIXED where a model has instances on both."""
    instance_count: int
    execution_provider: str
    """ONNX Runtime's name of what does the work, or `UNKNOWN`."""
    source: str
    """How that is known, or why not."""
    operators: Mapping[str, int]


def placement_of(model: str, config: Mapping[str, Any], metrics: Metrics | None, members: Mapping[str, Mapping[str, Any]] | None = None) -> Placement:
    """Find out where a model runs; an ensemble runs where its members do.

    Args:
        model: its name.
        config: its configuration as Triton's JSON.
        metrics: the same server's, if they could be read.
        members: of an ensemble, the configurations of its members by name.
    """
    if members:
        return _together([placement_of(name, member, metrics) for name, member in members.items()])
    groups, kinds = config.get("instance_group", ()), set(instance_kinds(config))
    device = {frozenset({"KIND_GPU"}): "GPU", frozenset({"KIND_CPU"}): "CPU"}.get(frozenset(kinds), "MIXED" if len(kinds) > 1 else "AUTO")
    count = sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", ()))) for group in groups)
    operators = dict(metrics.operators.get(model, {})) if metrics else {}
    if operators and metrics:
        spent = metrics.operator_us.get(model, {})
        provider = max(operators, key=lambda name: spent.get(name, 0))
        return Placement(device, count, provider, "reported by the backend, from a trial run", operators)
    if device == "CPU":
        return Placement(device, count, "CPUExecutionProvider", "by configuration: CPU instances have no other", {})
    accelerators = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", ())
    configured = " then ".join([*(str(accelerator.get("name")) for accelerator in accelerators if accelerator.get("name") != "cuda"), "cuda"])
    why = "Triton's metrics cannot be read" if metrics is None else "this backend does not report it"
    return Placement(device, count, UNKNOWN, f"{why}; configured: {configured}", {})


def ensemble_members(config: Mapping[str, Any]) -> list[str]:
    """Return the models that an ensemble's configuration (Triton's JSON) puts together; none for any other model."""
    return sorted({str(step["model_name"]) for step in config.get("ensemble_scheduling", {}).get("step", ())})


def _together(placements: list[Placement]) -> Placement:
    operators: dict[str, int] = {}
    for placement in placements:
        for provider, count in placement.operators.items():
            operators[provider] = operators.get(provider, 0) + count
    devices, providers = ({getattr(placement, name) for placement in placements} for name in ("device", "execution_provider"))
    return Placement(
        device=devices.pop() if len(devices) == 1 else "MIXED",
        instance_count=sum(placement.instance_count for placement in placements),
        execution_provider=providers.pop() if len(providers) == 1 else UNKNOWN,
        source=f"of the ensemble's members: {placements[0].source}",
        operators=operators,
    )
