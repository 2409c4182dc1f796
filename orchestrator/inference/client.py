"""Triton over gRPC: asynchronous requests as futures, their tensors in shared memory where it can be."""

import copy
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from math import prod
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from orchestrator.errors import ContractMismatch, InferenceRejected, passed_to
from orchestrator.inference.shared_memory import AWAY, Region, SharedMemoryPool
from orchestrator.inference.translate import held_up, is_held_up, translate_errors, translated
from orchestrator.settings import Transport

log = logging.getLogger("lipsync.triton")

INTERACTIVE, BATCH = 1, 2
"""Triton's priority levels: a user who waits goes before batches of renders. 0 is the model's default, which is `BATCH`."""

Tensors = Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
"""By name. Rows of one shape that lie apart are put together where they go."""

REQUEST_DEADLINE_S = 120.0
"""Deadline of one inference request, queueing included, s. A batch takes milliseconds on a GPU, seconds on a loaded CPU."""

CONTROL_DEADLINE_S = 10.0
"""Deadline of a metadata or statistics request, s."""

HEALTH_DEADLINE_S = 5.0
"""Deadline of the question whether Triton is ready, s: it has to be answered before whoever scrapes metrics gives up, Prometheus after 10 s."""

DISTRUST_S = 10.0
"""How long no answer is taken after Triton gave a model's process up, s. Where the machine stood still for a second, the Python backend gives up
processes that live; the late answer of such a one goes to the request behind it, maybe another job's, and so on until the process has ended and
Triton with it, which takes about a second."""


class _Request(Future[NDArray[Any]]):
    """A request under way. It ends only with Triton's answer, or with the error that cancelling brings about."""

    def __init__(self) -> None:
        super().__init__()
        self._call: Any = None
        self.set_running_or_notify_cancel()

    def is_made_by(self, call: Any) -> None:
        """Say which call is to be cancelled; none once there is an answer.

        The call's callback refers to this request and to its inputs, which would lie about until Python looks for cycles: megabytes a batch.
        """
        self._call = call
        if self.done():  # it may have ended meanwhile
            self._call = None

    def cancel(self) -> bool:
        """Ask for the request to be given up; its error then says so."""
        if (call := self._call) is not None:
            call.cancel()
        return False


class _Input:
    """An input of a request."""

    def __init__(self, rows: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
        first = rows[0]
        self.rows = list(rows)
        self.shape = (len(rows), *first.shape)
        self.dtype: np.dtype[Any] = first.dtype
        self.size_bytes = prod(self.shape) * self.dtype.itemsize


class _Place:
    """A request's tensors in a region: the inputs one behind the other, then the output."""

    def __init__(self, region: Region, dtype: Any, shape: tuple[int, ...]) -> None:
        self.region = region
        self.used_bytes = 0
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        """Of the output, batch axis included."""

    def put(self, tensor: _Input) -> int:
        """Copy an input into the region; returns where it is."""
        offset = self.used_bytes
        np.stack(tensor.rows, out=self.region.view(offset, tensor.shape, tensor.dtype))
        self.used_bytes += _aligned(tensor.size_bytes)
        return offset

    def answer(self, described: Any) -> NDArray[Any] | None:
        """Return a copy of the output, which Triton describes; None if it has no such output."""
        if described is None:
            return None
        return self.region.view(self.used_bytes, tuple(int(size) for size in described.shape), self.dtype).copy()


def _placed(pool: SharedMemoryPool, connection: "_Connection", model: str, inputs: Mapping[str, _Input], output: str) -> _Place | None:
    """Return a place for a request, None where it has to travel by gRPC: no room, or an output of unknown size."""
    known = connection.output(model, output)
    if known is None:
        return None
    dtype, shape = known
    shape = (next(iter(inputs.values())).shape[0], *shape)
    region = pool.take(sum(_aligned(tensor.size_bytes) for tensor in inputs.values()) + prod(shape) * np.dtype(dtype).itemsize)
    return None if region is None else _Place(region, dtype, shape)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


_ALIGNMENT_BYTES = 64
"""Where a tensor may begin in a region: at cache lines, which every kernel is content with."""


class _Connection:
    """What every view of a client shares: the way to one server, which `TritonClient.reconnect` replaces."""

    def __init__(self, address: str, metrics_address: str | None, transport: Transport, *, is_embedded: bool) -> None:
        self.address = address
        self.metrics_address = metrics_address
        self.is_embedded = is_embedded
        with self.errors():
            self.grpc = triton.InferenceServerClient(address)
        self._transport = transport
        self._lock = threading.Lock()
        self._pool: SharedMemoryPool | None = None
        self.is_decided = transport == "grpc"
        self._outputs: dict[tuple[str, str], tuple[Any, tuple[int, ...]]] = {}
        self._distrusted_until_s = 0.0

    def errors(self) -> AbstractContextManager[None]:
        """Raise tritonclient's exceptions as ours."""
        return translate_errors(self.address, is_embedded=self.is_embedded)

    def close(self) -> None:
        self.retire()
        self.grpc.close()

    def retire(self) -> None:
        """Let go of the shared memory, and leave the channel to those who are still at it: the last of them closes it.

        A channel that is closed ends their requests as cancelled, and a further one with a ValueError: neither says that Triton was away.
        """
        with self._lock:
            self.is_decided = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def pool(self) -> SharedMemoryPool | None:
        """Return the shared memory, None where tensors travel by gRPC. Which of the two is found out when it is first needed.

        Raises:
            InferenceRejected: shared memory is what was asked for, and Triton does not see this host's.
        """
        with self._lock:
            if not self.is_decided:
                try:
                    self._pool = SharedMemoryPool(self.grpc)
                except (InferenceServerException, OSError) as exc:
                    if isinstance(exc, InferenceServerException) and exc.status() in AWAY:
                        return None  # the request itself says so
                    if self._transport == "shared_memory":
                        raise InferenceRejected(
                            f"Triton at {self.address} does not see this host's shared memory; set LIPSYNC_TRANSPORT to auto or grpc, or start "
                            "Triton on this host and as this user, in a container with --ipc=host."
                        ) from exc
                    log.info("Triton at %s does not share this host's memory: tensors travel by gRPC", self.address)
                self.is_decided = True
            return self._pool

    def forget(self, pool: SharedMemoryPool) -> None:
        """Make new shared memory when it is next needed: Triton does not know this one any more, because it was started again."""
        with self._lock:
            if self._pool is not pool:
                return
            self._pool, self.is_decided = None, False
        pool.close()

    def has_answered(self, error: InferenceServerException | None) -> bool:
        """Tell whether what came of a request is its answer: no error, nor maybe another request's, see `DISTRUST_S`."""
        if error is not None and is_held_up(str(error.message())):
            self._distrusted_until_s = time.monotonic() + DISTRUST_S
        return error is None and self.is_trusted

    @property
    def is_trusted(self) -> bool:
        """Whether what is answered now is taken, see `DISTRUST_S`."""
        return time.monotonic() >= self._distrusted_until_s

    def output(self, model: str, name: str) -> tuple[Any, tuple[int, ...]] | None:
        """Return dtype and shape of a model's output without its batch axis, None where the shape is not fixed."""
        if (model, name) not in self._outputs:
            with self.errors():
                metadata = self.grpc.get_model_metadata(model, as_json=True, client_timeout=CONTROL_DEADLINE_S)
            for tensor in metadata.get("outputs", ()):
                shape = tuple(int(size) for size in tensor["shape"][1:])
                self._outputs[model, str(tensor["name"])] = triton_to_np_dtype(tensor["datatype"]), shape
        dtype, shape = self._outputs.get((model, name), (None, ()))
        return None if dtype is None or min(shape, default=1) < 1 else (dtype, shape)


_LOST_REGION = "Unable to find shared memory region"
"""What a Triton that was started again says of what was registered before."""


class TritonClient:
    """One connection to a Triton server. Safe to use from several threads."""

    def __init__(
        self,
        address: str,
        request_deadline_s: float = REQUEST_DEADLINE_S,
        metrics_address: str | None = None,
        transport: Transport = "auto",
        *,
        is_embedded: bool = False,
    ) -> None:
        """Connect to `HOST:PORT` (gRPC). No request is made yet.

        Args:
            address: of the server.
            request_deadline_s: of one request, queueing included.
            metrics_address: where the same server's metrics are, if anywhere.
            transport: how tensors travel: in gRPC messages, or through system shared memory; `auto` takes shared memory where Triton sees
                this host's.
            is_embedded: whoever made this client starts the server again when it dies, and calls `reconnect`.
        """
        self._request_deadline_s = request_deadline_s
        self._transport = transport
        self._priority = 0
        self._shared = [_Connection(address, metrics_address, transport, is_embedded=is_embedded)]
        self.reconnect_count = 0
        """How often `reconnect` was called."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where the server is, `HOST:PORT`."""
        return self._shared[0].address

    @property
    def is_embedded(self) -> bool:
        """Whether the server is started again when it dies."""
        return self._shared[0].is_embedded

    @property
    def metrics_address(self) -> str | None:
        """Where its metrics are, if anywhere."""
        return self._shared[0].metrics_address

    @property
    def transport(self) -> Transport:
        """How tensors travel: `grpc` or `shared_memory`; `auto` while that is not decided, because Triton is away."""
        connection = self._shared[0]
        if connection.pool() is not None:
            return "shared_memory"
        return "grpc" if connection.is_decided else "auto"

    def at_priority(self, level: int) -> "TritonClient":
        """Return the same client with another priority of its requests: `INTERACTIVE` or `BATCH`. It is closed with this one."""
        view = copy.copy(self)
        view._priority = level
        return view

    def close(self) -> None:
        """Close the connection; outstanding requests fail."""
        self._shared[0].close()

    def reconnect(self, address: str, metrics_address: str | None = None) -> None:
        """Connect to another address, because the server behind the old one is gone; what is outstanding there fails."""
        old = self._shared[0]
        self._shared[0] = _Connection(address, metrics_address, self._transport, is_embedded=old.is_embedded)
        self.reconnect_count += 1
        old.retire()

    def infer(self, model: str, inputs: Tensors, output: str) -> Future[NDArray[Any]]:
        """Send a request and return the future value of one output.

        Args:
            model: name of the model (its role).
            inputs: arrays by input name, the batch axis first, or their rows; not to be changed before there is an answer.
            output: name of the output wanted.

        The future raises an `InferenceError`; cancelling it takes the request out of Triton's queue.
        """
        future = _Request()
        self._send(self._shared[0], model, {name: _Input(rows) for name, rows in inputs.items()}, output, future, may_share=True)
        return future

    def _send(self, connection: _Connection, model: str, inputs: Mapping[str, _Input], output: str, future: _Request, *, may_share: bool) -> None:
        pool = connection.pool() if may_share else None
        place = None if pool is None else _placed(pool, connection, model, inputs, output)
        tensors = [triton.InferInput(name, own.shape, np_to_triton_dtype(own.dtype)) for name, own in inputs.items()]
        wanted = triton.InferRequestedOutput(output)
        for tensor, own in zip(tensors, inputs.values(), strict=True):
            if place is None:
                tensor.set_data_from_numpy(np.stack(own.rows))
            else:
                tensor.set_shared_memory(place.region.name, own.size_bytes, place.put(own))
        if place is not None:
            wanted.set_shared_memory(place.region.name, prod(place.shape) * place.dtype.itemsize, place.used_bytes)

        def resolve(result: Any, error: InferenceServerException | None) -> None:
            with passed_to(future):
                has_answered = connection.has_answered(error)
                if not has_answered and place is not None and pool is not None:
                    pool.give_up(place.region)
                    if error is not None and _LOST_REGION in str(error.message()):
                        connection.forget(pool)
                        self._send(connection, model, inputs, output, future, may_share=False)
                        return
                if error is not None:
                    raise translated(error, connection.address, is_embedded=connection.is_embedded) from error
                if not has_answered:
                    raise held_up(connection.address)
                array = result.as_numpy(output) if place is None else place.answer(result.get_output(output))
                if place is not None and pool is not None:
                    pool.give_back(place.region)
                if array is None:
                    raise ContractMismatch(f"Model {model} on {connection.address} returned no {output!r}; install a model for this role again.")
                future.set_result(array)
            future.is_made_by(None)

        with connection.errors():
            call = connection.grpc.async_infer(
                model, tensors, resolve, outputs=[wanted], priority=self._priority, client_timeout=self._request_deadline_s
            )
        future.is_made_by(call)

    def is_server_ready(self) -> bool:
        """Return whether the server answers, says it is ready, and would be believed: see `DISTRUST_S`."""
        connection = self._shared[0]
        try:
            return connection.is_trusted and bool(connection.grpc.is_server_ready(client_timeout=HEALTH_DEADLINE_S))
        except InferenceServerException:
            return False

    def server_name(self) -> str:
        """Return the server's kind and version, such as `Triton 2.51.0`."""
        with self._shared[0].errors():
            about = self._shared[0].grpc.get_server_metadata(as_json=True, client_timeout=CONTROL_DEADLINE_S)
            return f"Triton {about.get('version', '')}".strip()

    def is_model_ready(self, model: str) -> bool:
        """Return whether a model is loaded and ready."""
        with self._shared[0].errors():
            return bool(self._shared[0].grpc.is_model_ready(model, client_timeout=CONTROL_DEADLINE_S))

    def metadata(self, model: str) -> dict[str, Any]:
        """Return a model's metadata (names, datatypes and shapes, batch axis included) as Triton's JSON."""
        with self._shared[0].errors():
            return dict(self._shared[0].grpc.get_model_metadata(model, as_json=True, client_timeout=CONTROL_DEADLINE_S))

    def config(self, model: str) -> dict[str, Any]:
        """Return a model's configuration as Triton's JSON."""
        with self._shared[0].errors():
            return dict(self._shared[0].grpc.get_model_config(model, as_json=True, client_timeout=CONTROL_DEADLINE_S)["config"])

    def statistics(self, model: str = "") -> dict[str, dict[str, Any]]:
        """Return the statistics of a model, or of every one in one request, since it was loaded: Triton's JSON by the model's name."""
        with self._shared[0].errors():
            stats: dict[str, Any] = self._shared[0].grpc.get_inference_statistics(model, as_json=True, client_timeout=CONTROL_DEADLINE_S)
            return {str(one["name"]): dict(one) for one in stats.get("model_stats", ())}
