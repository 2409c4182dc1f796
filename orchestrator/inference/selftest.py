"""Proof that the models on Triton work, and where: contract, golden inference, time, and what Triton says about its devices."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ContractMismatch, GpuUnavailable, InferenceUnavailable
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import CONTRACTS, OPTIONAL_CONTRACTS, describe_model, output_of
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.golden import check_golden, golden_inputs
from orchestrator.inference.lip_model import LipModel
from orchestrator.inference.metrics import Metrics, read_metrics
from orchestrator.inference.placement import UNKNOWN, Placement, ensemble_members, placement_of
from orchestrator.inference.translate import away
from orchestrator.inference.usage import model_use
from orchestrator.settings import Device

BATCH_TOLERANCE = 0.02
"""How much an item of a batch may differ from the same item alone, relative to the output's range: engines choose other kernels for other
batch sizes, in half precision too. Mixed-up items differ by far more."""

GPU_PROOF_S = 6.0
"""How long the models are kept busy until Triton shows a GPU at work; it reads the utilisation every 2 s unless told otherwise."""

TIMED_RUNS = 3

READY_POLL_S = 0.25
"""How often to look whether a Triton is back, s."""


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """A role that passed."""

    pack: str | None
    """None where the model's configuration does not say."""
    licence: str | None
    version: str
    device: str
    """CPU or GPU, by Triton's instance kinds."""
    instance_kinds: tuple[str, ...]
    instance_count: int
    execution_provider: str
    """What ONNX Runtime really runs the model on, or `UNKNOWN`."""
    provider_source: str
    """Where that comes from."""
    operators: Mapping[str, int]
    """Operators on each execution provider, where the backend counted them."""
    max_batch_size: int
    test_batch_size: int
    """The largest batch that one request of a render carries, which is what was timed."""
    ms_per_item_batch_1: float
    ms_per_item_batch_max: float
    """Time of a request over its items, transport included, ms."""
    execution_count: int
    """Batches Triton counted during the test."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What a Triton showed of itself."""

    server: str
    roles: Mapping[str, RoleStatus]
    gpu_utilisation: Mapping[str, float]
    """The highest seen during the test, 0..1 by the GPU's UUID; empty where Triton reports no GPU."""
    notes: tuple[str, ...]


def self_test(client: TritonClient, wanted: Device = "auto") -> SelfTest:
    """Check every role on Triton, the optional ones where there is a model for them, and where they run.

    Args:
        client: the server's.
        wanted: the device that models are expected on; "auto" expects a GPU where Triton itself reports one.

    Raises:
        InferenceUnavailable: Triton or a model is not ready.
        ContractMismatch: a model is not what its role needs, or answers nonsense.
        GpuUnavailable: a model is not on the device it is expected on, or a GPU that is to run it stayed idle.
        InferenceError: an inference failed.
    """
    check_ready(client)
    before = read_metrics(client.metrics_address)
    FaceDetector(client), LipModel(client)  # their parameters are checked beyond the contract
    roles = {role: _test_role(client, role, before) for role in served_roles(client)}
    _check_devices(client.address, roles, before, wanted)
    notes = [] if before else [f"no metrics at {client.metrics_address}: utilisation and execution providers cannot be read"]
    peak: dict[str, float] = {}
    on_gpu = {role: status for role, status in roles.items() if status.device == "GPU"}
    if before and on_gpu:
        peak = dict(watch_gpus(client, list(on_gpu)))
        notes += check_proof(client.address, on_gpu, peak)
    return SelfTest(client.server_name(), roles, peak, tuple(notes))


def check_ready(client: TritonClient) -> None:
    """Ask Triton whether it and every role are ready.

    Raises:
        InferenceUnavailable: something is not.
    """
    if not client.is_server_ready():
        raise away(client.address, is_embedded=client.is_embedded)
    missing = [role for role in CONTRACTS if not client.is_model_ready(role)]
    if missing:
        raise InferenceUnavailable(f"Triton at {client.address} has no model ready for {' and '.join(missing)}; check its model repository and log.")


def await_ready(client: TritonClient, patience_s: float, between: Callable[[], None] = lambda: None) -> None:
    """Wait for a Triton that is away: one that is started again takes its time.

    Args:
        client: to the Triton.
        patience_s: how long it may stay away, s.
        between: called between any two looks; what it raises ends the wait.

    Raises:
        InferenceUnavailable: it stays away.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            check_ready(client)
        except InferenceUnavailable:
            if time.monotonic() > deadline:
                raise
            between()
            time.sleep(READY_POLL_S)
        else:
            return


def served_roles(client: TritonClient) -> list[str]:
    """Return the roles every render needs, and the optional ones that have a model on Triton."""
    return [*CONTRACTS, *(role for role in OPTIONAL_CONTRACTS if client.is_model_ready(role))]


def role_placement(client: TritonClient, role: str, metrics: Metrics | None) -> Placement:
    """Find out where a role's model runs; if it is an ensemble, where its members do."""
    config = client.config(role)
    return placement_of(role, config, metrics, {name: client.config(name) for name in ensemble_members(config)})


def check_devices(client: TritonClient, wanted: Device) -> None:
    """Check where every role's model runs, as far as Triton says so, without running it; for `wanted` see `self_test`.

    Raises:
        GpuUnavailable: one is not on the device it is expected on.
    """
    if wanted != "cpu":
        metrics = read_metrics(client.metrics_address)
        _check_devices(client.address, {role: role_placement(client, role, metrics) for role in served_roles(client)}, metrics, wanted)


def _check_devices(address: str, roles: Mapping[str, RoleStatus | Placement], metrics: Metrics | None, wanted: Device) -> None:
    """Compare where models run with where they should.

    Raises:
        GpuUnavailable: one runs elsewhere; the message names the model and the cause.
    """
    gpus = sorted(metrics.gpu_utilisation) if metrics else []
    if wanted == "cpu" or (wanted == "auto" and not gpus):
        return
    reason = f"Triton at {address} sees {', '.join(gpus)}" if wanted == "auto" else f"device {wanted} is asked for"
    for role, status in roles.items():
        if status.device != "GPU":
            kinds = "KIND_CPU and KIND_GPU" if status.device == "MIXED" else f"KIND_{status.device}"
            raise GpuUnavailable(
                f"Model {role} runs on the CPU though {reason}: its instances are {kinds}. "
                "Start Triton without --model-config-name=cpu and with a GPU, or ask for the CPU with --device cpu."
            )
        if status.execution_provider == "CPUExecutionProvider":
            raise GpuUnavailable(f"Model {role} has GPU instances, but ONNX Runtime runs it on its CPU provider; see Triton's log for the cause.")
        if wanted == "tensorrt" and status.execution_provider not in ("TensorrtExecutionProvider", UNKNOWN):
            raise GpuUnavailable(f"Model {role} runs on {status.execution_provider} though {reason}; start Triton with --model-config-name=tensorrt.")


def check_proof(address: str, on_gpu: Mapping[str, RoleStatus], peak: Mapping[str, float]) -> list[str]:
    """Compare what GPUs showed of themselves while models ran, as `watch_gpus` returns it, with where those run; return what is to be remarked.

    Raises:
        GpuUnavailable: no GPU showed any work, and nothing else says that the models run on one.
    """
    if not peak:
        return ["Triton reports no GPU utilisation (it cannot on MIG slices and under WSL); the instance kinds stand alone"]
    if max(peak.values()) > 0.0:
        return []
    if unproven := [role for role, status in on_gpu.items() if status.execution_provider == UNKNOWN]:
        raise GpuUnavailable(
            f"Triton at {address} has {' and '.join(unproven)} on GPU instances, but no GPU showed any work within {GPU_PROOF_S:g} s of "
            "inferences; check `nvidia-smi` and Triton's log."
        )
    return ["Triton shows no GPU at work, though its backend saw the models' operators run on one: it may not know how to ask this GPU or driver"]


def _test_role(client: TritonClient, role: str, metrics: Metrics | None) -> RoleStatus:
    description = describe_model(client, role)
    used_before = model_use(client, role)
    inputs = golden_inputs(description, description.request_batch_size)
    together = _infer(client, role, inputs)
    notes = check_golden(role, description.sizes.get("S", 1), inputs, together)
    for index in {0, len(together) - 1}:
        alone = _infer(client, role, {name: array[index : index + 1] for name, array in inputs.items()})
        _check_batch(role, alone[0], together[index], len(together))
    placement = role_placement(client, role, metrics)
    return RoleStatus(
        pack=description.parameters.get("pack"),
        licence=description.parameters.get("licence"),
        version=description.version,
        device=placement.device,
        instance_kinds=description.instance_kinds,
        instance_count=placement.instance_count,
        execution_provider=placement.execution_provider,
        provider_source=placement.source,
        operators=placement.operators,
        max_batch_size=description.max_batch_size,
        test_batch_size=len(together),
        ms_per_item_batch_1=_time_ms(client, role, {name: array[:1] for name, array in inputs.items()}),
        ms_per_item_batch_max=_time_ms(client, role, inputs) / len(together),
        execution_count=model_use(client, role).since(used_before).execution_count,
        notes=tuple(notes),
    )


def _infer(client: TritonClient, role: str, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    return client.infer(role, inputs, output_of(role)).result()


def _check_batch(role: str, alone: NDArray[Any], in_batch: NDArray[Any], count: int) -> None:
    """Compare an item of a batch with the same item alone.

    Raises:
        ContractMismatch: they differ.
    """
    one, other = alone.astype(np.float64), in_batch.astype(np.float64)
    scale = max(float(np.abs(one).max()), 1e-6)
    if one.shape != other.shape or float(np.abs(one - other).mean()) > BATCH_TOLERANCE * scale:
        raise ContractMismatch(
            f"Model {role} answers an item differently alone and in a batch of {count}: its batch axis is not what it seems. "
            "Install a model for this role again."
        )


def _time_ms(client: TritonClient, role: str, inputs: Mapping[str, NDArray[Any]]) -> float:
    durations = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        _infer(client, role, inputs)
        durations.append((time.perf_counter() - began) * 1e3)
    return round(statistics.median(durations), 3)


def watch_gpus(client: TritonClient, roles: Sequence[str]) -> Mapping[str, float]:
    """Keep models busy until Triton shows a GPU at work; return the highest utilisation seen of each."""
    batches = {role: golden_inputs(description, description.request_batch_size) for role in roles for description in (describe_model(client, role),)}
    peak: dict[str, float] = {}
    deadline = time.monotonic() + GPU_PROOF_S
    while time.monotonic() < deadline:
        for future in [client.infer(role, batches[role], output_of(role)) for role in roles for _ in range(2)]:
            future.result()
        metrics = read_metrics(client.metrics_address)
        if metrics is None or not metrics.gpu_utilisation:
            return {}
        for gpu, share in metrics.gpu_utilisation.items():
            peak[gpu] = max(peak.get(gpu, 0.0), share)
        if max(peak.values()) > 0:
            return peak
    return peak
