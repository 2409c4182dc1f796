"""Triton's metrics, as Triton 2.51 prints them."""

import pytest

from orchestrator.inference.metrics import parse_metrics, read_metrics
from orchestrator.inference.placement import ensemble_members, placement_of

TEXT = """# HELP nv_inference_count Number of inferences performed
# TYPE nv_inference_count counter
nv_inference_count{model="lip_sync",version="1"} 12
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.37
nv_gpu_utilization{gpu_uuid="GPU-2"} 0
# HELP nv_gpu_memory_used_bytes GPU used memory, in bytes
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1073741824
# HELP lipsync_model_operators Operators
# TYPE lipsync_model_operators gauge
lipsync_model_operators{instance="lip_sync_0_0",model="lip_sync",provider="CUDAExecutionProvider",version="1"} 300
lipsync_model_operators{instance="lip_sync_0_1",model="lip_sync",provider="CUDAExecutionProvider",version="1"} 300
lipsync_model_operators{instance="lip_sync_0_0",model="lip_sync",provider="CPUExecutionProvider",version="1"} 400
# HELP lipsync_model_operator_us Time
# TYPE lipsync_model_operator_us gauge
lipsync_model_operator_us{instance="lip_sync_0_0",model="lip_sync",provider="CUDAExecutionProvider",version="1"} 9000
lipsync_model_operator_us{instance="lip_sync_0_0",model="lip_sync",provider="CPUExecutionProvider",version="1"} 100
"""
GPU_CONFIG = {"instance_group": [{"kind": "KIND_GPU", "count": 2, "gpus": [0, 1]}]}


def test_gpus_and_providers_are_read() -> None:
    metrics = parse_metrics(TEXT)
    assert metrics.gpu_utilisation == {"GPU-1": 0.37, "GPU-2": 0.0}
    assert metrics.gpu_memory_bytes == {"GPU-1": 1 << 30}
    assert metrics.operators == {"lip_sync": {"CUDAExecutionProvider": 600, "CPUExecutionProvider": 400}}


def test_provider_is_the_one_that_takes_the_time_and_not_the_one_with_most_operators() -> None:
    placement = placement_of("lip_sync", GPU_CONFIG, parse_metrics(TEXT))
    assert (placement.device, placement.instance_count, placement.execution_provider) == ("GPU", 4, "CUDAExecutionProvider")


def test_provider_that_nobody_reports_is_unknown_and_not_guessed() -> None:
    config = {**GPU_CONFIG, "optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}}
    placement = placement_of("face_detector", config, parse_metrics(TEXT))
    assert (placement.execution_provider, placement.source) == ("unknown", "this backend does not report it; configured: tensorrt then cuda")
    assert placement_of("lip_sync", GPU_CONFIG, None).source.startswith("Triton's metrics cannot be read")


def test_cpu_instances_of_any_backend_run_on_the_cpu_provider() -> None:
    placement = placement_of("face_detector", {"instance_group": [{"kind": "KIND_CPU", "count": 3}]}, None)
    assert (placement.device, placement.instance_count, placement.execution_provider) == ("CPU", 3, "CPUExecutionProvider")


def test_ensemble_runs_where_its_members_do() -> None:
    ensemble = {"ensemble_scheduling": {"step": [{"model_name": "lip_sync"}, {"model_name": "decoder"}, {"model_name": "decoder"}]}}
    assert ensemble_members(ensemble) == ["decoder", "lip_sync"]
    assert ensemble_members(GPU_CONFIG) == []
    cpu = {"instance_group": [{"kind": "KIND_CPU", "count": 1}]}
    together = placement_of("whole", ensemble, parse_metrics(TEXT), {"lip_sync": GPU_CONFIG, "decoder": GPU_CONFIG})
    assert (together.device, together.instance_count, together.execution_provider) == ("GPU", 8, "unknown")
    assert placement_of("whole", ensemble, None, {"a": cpu, "b": cpu}).execution_provider == "CPUExecutionProvider"
    assert placement_of("whole", ensemble, None, {"a": cpu, "b": GPU_CONFIG}).device == "MIXED"


@pytest.mark.parametrize("address", [None, "127.0.0.1:1"])
def test_metrics_that_cannot_be_read_are_none(address: str | None) -> None:
    assert read_metrics(address) is None
