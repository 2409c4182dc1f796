"""Triton over gRPC: asynchronous requests as futures, and its errors as ours."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from orchestrator.errors import (
    ContractMismatch,
    InferenceError,
    InferenceOverloaded,
    InferenceRejected,
    InferenceTimeout,
    InferenceUnavailable,
)

Tensors = Mapping[str, NDArray[Any]]

_T = TypeVar("_T")

REQUEST_DEADLINE_S = 120.0
"""Deadline of one inference request, queueing included, s. A batch takes milliseconds on a GPU, seconds on a loaded CPU."""

CONTROL_DEADLINE_S = 10.0
"""Deadline of a health, metadata or statistics request, s."""

_QUEUE_MESSAGES = ("Exceeds maximum queue size", "Request timeout expired")
"""What Triton says, with status UNAVAILABLE, when its queue policy turns a request away. It has no status of its own for that."""


_STUB_MESSAGE = ("Stub process", "not healthy")
"""What Triton's Python backend says of a model instance whose process died, or is too busy to tell in time that it lives."""


class _Request(Future[NDArray[Any]]):
    """A request under way. It ends only with Triton's answer, or with the error that cancelling brings about."""

    def __init__(self) -> None:
        super().__init__()
        self.call: Any = None
        self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        """Ask for the request to be given up; its error then says so."""
        if self.call is not None:
            self.call.cancel()
        return False


class TritonClient:
    """One connection to a Triton server. Safe to use from several threads."""

    def __init__(self, address: str, request_deadline_s: float = REQUEST_DEADLINE_S, metrics_address: str | None = None) -> None:
        """Connect to `HOST:PORT` (gRPC). No request is made yet.

        `metrics_address` is where the same server's metrics are, if anywhere.
        """
        self.address = address
        self.metrics_address = metrics_address
        self._request_deadline_s = request_deadline_s
        with translate_errors(address):
            self._client = triton.InferenceServerClient(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; outstanding requests fail."""
        self._client.close()

    def reconnect(self, address: str, metrics_address: str | None = None) -> None:
        """Connect to another address, because the server behind the old one is gone; what is outstanding there fails."""
        with translate_errors(address):
            old, self._client = self._client, triton.InferenceServerClient(address)
        self.address, self.metrics_address = address, metrics_address
        old.close()

    def infer(self, model: str, inputs: Tensors, output: str) -> Future[NDArray[Any]]:
        """Send a request and return the future value of one output.

        Args:
            model: name of the model (its role).
            inputs: arrays by input name, the batch axis first.
            output: name of the output wanted.

        The future raises an `InferenceError`; cancelling it takes the request out of Triton's queue.
        """
        future = _Request()

        def resolve(result: Any, error: InferenceServerException | None) -> None:
            # tritonclient swallows what a callback raises, and the waiter would hang: everything must reach the future.
            try:
                if error is not None:
                    raise _translated(error, self.address) from error
                array = result.as_numpy(output)
                if array is None:
                    raise ContractMismatch(f"Model {model} on {self.address} returned no {output!r}; install a model for this role again.")
                future.set_result(array)
            except BaseException as exc:  # noqa: BLE001
                future.set_exception(exc)

        tensors = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            tensors.append(tensor)
        with translate_errors(self.address):
            future.call = self._client.async_infer(
                model, tensors, resolve, outputs=[triton.InferRequestedOutput(output)], client_timeout=self._request_deadline_s
            )
        return future

    def is_server_ready(self) -> bool:
        """Return whether the server answers and says it is ready."""
        try:
            return bool(self._client.is_server_ready(client_timeout=CONTROL_DEADLINE_S))
        except InferenceServerException:
            return False

    def server_name(self) -> str:
        """Return the server's kind and version, such as `Triton 2.51.0`."""
        with translate_errors(self.address):
            about = self._client.get_server_metadata(as_json=True, client_timeout=CONTROL_DEADLINE_S)
            return f"Triton {about.get('version', '')}".strip()

    def is_model_ready(self, model: str) -> bool:
        """Return whether a model is loaded and ready."""
        with translate_errors(self.address):
            return bool(self._client.is_model_ready(model, client_timeout=CONTROL_DEADLINE_S))

    def metadata(self, model: str) -> dict[str, Any]:
        """Return a model's metadata (names, datatypes and shapes, batch axis included) as Triton's JSON."""
        with translate_errors(self.address):
            return dict(self._client.get_model_metadata(model, as_json=True, client_timeout=CONTROL_DEADLINE_S))

    def config(self, model: str) -> dict[str, Any]:
        """Return a model's configuration as Triton's JSON."""
        with translate_errors(self.address):
            return dict(self._client.get_model_config(model, as_json=True, client_timeout=CONTROL_DEADLINE_S)["config"])

    def statistics(self, model: str) -> dict[str, Any]:
        """Return a model's statistics since it was loaded as Triton's JSON."""
        with translate_errors(self.address):
            stats: dict[str, Any] = self._client.get_inference_statistics(model, as_json=True, client_timeout=CONTROL_DEADLINE_S)
            return dict(stats["model_stats"][0])


def sent_ahead(requests: Iterator[_T], count: int = 2) -> Iterator[_T]:
    """Yield requests in order, `count` of them sent before the first is waited for: taking one out of the iterator is what sends it."""
    waiting = deque(islice(requests, count))
    while waiting:
        yield waiting.popleft()
        waiting.extend(islice(requests, 1))


@contextmanager
def translate_errors(address: str) -> Iterator[None]:
    """Raise tritonclient's exceptions as ours."""
    try:
        yield
    except InferenceServerException as exc:
        raise _translated(exc, address) from exc


def _translated(error: InferenceServerException, address: str) -> InferenceError:
    status, message = str(error.status() or ""), str(error.message() or "")
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return InferenceTimeout(f"Triton at {address} did not answer in time; check its load with `nvidia-smi` or its metrics, then try again.")
    if status == "StatusCode.UNAVAILABLE":
        if any(text in message for text in _QUEUE_MESSAGES):
            return InferenceOverloaded(f"Triton at {address} has a full queue; try again when fewer renders run.")
        return InferenceUnavailable(
            f"No Triton answers at {address}, or it is not ready; start it, or check the address and port (gRPC, usually 8001)."
        )
    if all(text in message for text in _STUB_MESSAGE):
        return InferenceUnavailable(f"A model's process on Triton at {address} does not answer ({message}); try again, or start Triton again.")
    if status == "StatusCode.NOT_FOUND" or "unknown model" in message:
        return ContractMismatch(f"Triton at {address} lacks a model that is needed ({message}); start it with this project's model repository.")
    return InferenceRejected(f"Triton at {address} refused a request: {message or error}.")
