"""Load on one model: so many requests of such a batch at a time, and what came of it by our clock and by Triton's own count."""

import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from orchestrator.errors import ContractMismatch, InferenceError, InferenceRejected
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import ModelDescription
from orchestrator.inference.shared_memory import Region, SharedMemoryPool
from orchestrator.inference.translate import translate_errors, translated

WARM_UP_SHARE = 0.2
"""Share of the measured time that is spent first, unmeasured."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Load:
    """What was asked for."""

    batch: int
    """Items in a request."""
    concurrency: int
    """Requests outstanding at a time."""
    shared_memory: bool
    """Whether tensors travel through system shared memory; else in the gRPC messages."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of it."""

    batch: int
    concurrency: int
    shared_memory: bool
    items_per_s: float
    requests: int
    """Requests answered in the measured time."""
    failed: int
    failure: str | None
    """The first failure's message."""
    latency_ms: Mapping[str, float]
    """p50, p90, p95 and p99 of the requests, by our clock."""
    mean_batch: float
    """Items in the batches that Triton formed."""
    queue_ms: float
    """Mean time of a request in Triton's queue."""
    compute_ms: float
    """Mean time of a request in the model, inputs and outputs included; a batch's time counts for each of its requests."""


def run_load(client: TritonClient, description: ModelDescription, output: str, samples: Arrays, load: Load) -> LoadResult:
    """Keep requests outstanding on a model for a while and measure.

    Args:
        client: names the server; the load has a connection of its own.
        description: the model's.
        output: name of the output to ask for.
        samples: (n, ...) by input name, from which the requests' items are taken in turn.
        load: how much.

    Raises:
        InferenceError: Triton cannot be reached, does not share this host's memory, or answered no request.
    """
    with ExitStack() as stack:
        connection = triton.InferenceServerClient(client.address)
        stack.callback(connection.close)
        slots = [stack.enter_context(_slot(connection, client, description, output, samples, load, index)) for index in range(load.concurrency)]
        _drive(connection, client.address, description.role, slots, load.duration_s * WARM_UP_SHARE)
        before = client.statistics(description.role)[description.role]
        latencies, failures, elapsed_s = _drive(connection, client.address, description.role, slots, load.duration_s)
        after = client.statistics(description.role)[description.role]
    if not latencies:
        raise failures[0]
    return LoadResult(
        batch=load.batch,
        concurrency=load.concurrency,
        shared_memory=load.shared_memory,
        items_per_s=round(len(latencies) * load.batch / elapsed_s, 2),
        requests=len(latencies),
        failed=len(failures),
        failure=str(failures[0]) if failures else None,
        latency_ms=_percentiles(latencies),
        **_server_side(before, after),
    )


@dataclass(slots=True)
class _Slot:
    """One of the requests that are outstanding at a time, with tensors of its own."""

    inputs: list[Any]
    outputs: list[Any]
    began: float = 0.0


def _drive(connection: Any, address: str, model: str, slots: list[_Slot], duration_s: float) -> tuple[list[float], list[InferenceError], float]:
    """Send every slot's request again and again until the time is up.

    Returns:
        Latencies, s, failures, and the time in which they came, s: what was asked for, or longer if no request was done by then.
    """
    latencies: list[float] = []
    failures: list[InferenceError] = []
    idle = list(slots)
    changed = threading.Condition()

    def finish(slot: _Slot, error: InferenceServerException | None) -> None:
        with changed:
            if error is None:
                latencies.append(time.perf_counter() - slot.began)
            else:
                failures.append(translated(error, address))
            idle.append(slot)
            changed.notify()

    started = time.perf_counter()
    deadline = started + duration_s
    while (left_s := deadline - time.perf_counter()) > 0:
        with changed:
            if not idle and not changed.wait(left_s):
                break
            slot = idle.pop()
        slot.began = time.perf_counter()
        connection.async_infer(model, slot.inputs, lambda result, error, slot=slot: finish(slot, error), outputs=slot.outputs)
    with changed:
        # What is still outstanding is waited for, so that its tensors may go, and not counted: it ended after the time.
        measured, elapsed_s = list(latencies), time.perf_counter() - started
        changed.wait_for(lambda: len(idle) == len(slots))
    return (measured, failures, elapsed_s) if measured else (latencies, failures, time.perf_counter() - started)


@contextmanager
def _slot(
    connection: Any, client: TritonClient, description: ModelDescription, output: str, samples: Arrays, load: Load, index: int
) -> Iterator[_Slot]:
    """Prepare the tensors of one request."""
    arrays = {name: np.ascontiguousarray(_take(array, load.batch, index)) for name, array in samples.items()}
    inputs = [triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)) for name, array in arrays.items()]
    wanted = triton.InferRequestedOutput(output)
    with ExitStack() as stack:
        if load.shared_memory:
            sizes = [array.nbytes for array in arrays.values()]
            answer_bytes = _output_bytes(client, description.role, output, load.batch)
            region = stack.enter_context(_shared_region(connection, client.address, sum(sizes) + answer_bytes))
            offset = 0
            for tensor, array in zip(inputs, arrays.values(), strict=True):
                region.bytes[offset : offset + array.nbytes] = np.frombuffer(array, np.uint8)
                tensor.set_shared_memory(region.name, array.nbytes, offset)
                offset += array.nbytes
            wanted.set_shared_memory(region.name, answer_bytes, offset)
        else:
            for tensor, array in zip(inputs, arrays.values(), strict=True):
                tensor.set_data_from_numpy(array)
        yield _Slot(inputs, [wanted])


@contextmanager
def _shared_region(connection: Any, address: str, size_bytes: int) -> Iterator[Region]:
    """Yield memory that this process and Triton share.

    Raises:
        InferenceError: Triton cannot open it, because it runs on another host or in a container with a /dev/shm of its own.
    """
    try:
        with translate_errors(address):
            pool = SharedMemoryPool(connection)
    except (InferenceError, OSError) as exc:
        kind = type(exc) if isinstance(exc, InferenceError) else InferenceRejected
        raise kind(f"{exc} Shared memory needs a Triton on this host that sees the same /dev/shm; measure without it.") from exc
    with closing(pool):
        region = pool.take(size_bytes)
        if region is None:
            raise InferenceRejected(f"There are no {size_bytes} bytes of shared memory for a request; measure with smaller batches.")
        yield region


def _output_bytes(client: TritonClient, model: str, output: str, batch: int) -> int:
    tensor = next((tensor for tensor in client.metadata(model)["outputs"] if tensor["name"] == output), None)
    if tensor is None:
        raise ContractMismatch(f"Model {model} on {client.address} has no output {output!r}; install a model for this role again.")
    return batch * int(np.prod([int(size) for size in tensor["shape"][1:]])) * int(np.dtype(triton_to_np_dtype(tensor["datatype"])).itemsize)


def _take(samples: NDArray[Any], count: int, first: int) -> NDArray[Any]:
    """Take `count` samples from the `first` on, from the beginning again after the last."""
    return samples[np.arange(first, first + count) % len(samples)]


def _percentiles(latencies_s: list[float]) -> dict[str, float]:
    values = sorted(latencies_s)
    if len(values) == 1:
        values *= 2
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {f"p{share}": round(cuts[share - 1] * 1e3, 3) for share in (50, 90, 95, 99)}


def _server_side(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """Compare two readings of Triton's statistics."""

    def grown(*path: str) -> int:
        values = []
        for reading in (before, after):
            value: Any = reading
            for part in path:
                value = value.get(part, {}) if isinstance(value, Mapping) else 0
            values.append(int(value or 0))
        return values[1] - values[0]

    items, batches = grown("inference_count"), grown("execution_count")
    requests = max(1, grown("inference_stats", "success", "count"))
    compute_ns = sum(grown("inference_stats", part, "ns") for part in ("compute_input", "compute_infer", "compute_output"))
    return {
        "mean_batch": round(items / batches, 2) if batches else 0.0,
        "queue_ms": round(grown("inference_stats", "queue", "ns") / requests / 1e6, 3),
        "compute_ms": round(compute_ns / requests / 1e6, 3),
    }
