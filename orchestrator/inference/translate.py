"""What Triton and its client raise, as our errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tritonclient.utils import InferenceServerException

from orchestrator.errors import ContractMismatch, InferenceError, InferenceOverloaded, InferenceRejected, InferenceTimeout, InferenceUnavailable

_QUEUE_MESSAGES = ("Exceeds maximum queue size", "Request timeout expired")
"""What Triton says, with status UNAVAILABLE, when its queue policy turns a request away. It has no status of its own for that."""

_STUB_MESSAGE = ("Stub process", "not healthy")
"""What Triton's Python backend says of a model instance whose process died, or is too busy to tell in time that it lives."""

_UNLOADED = "has no available versions"
"""What Triton says, with status NOT_FOUND, of a model that is in its repository and not loaded: for seconds of each of them, when it was told to end
and lets go of one after the other. A model that it has never had "is not found"."""

_OTHERS_ANSWER = "shared memory size specified with the request for output"
"""What Triton says where an output has more rows than the request asked for. The region is made to the model's own measures, so it is the answer to
another request, see `client.DISTRUST_S`."""


_GPU_FAILURE = re.compile(r"\b(?:CUDA|CUDNN|CUDNN_FE|CUBLAS|CUFFT) failure -?\d+[^;]*")
"""What ONNX Runtime says of a GPU that failed. Whatever the request was, the same one may pass later: when other programs leave the GPU memory, or
when Triton is started again, which some errors need."""


@contextmanager
def translate_errors(address: str, *, is_embedded: bool = False) -> Iterator[None]:
    """Raise tritonclient's exceptions as ours; `is_embedded` where Triton is started again when it dies."""
    try:
        yield
    except InferenceServerException as exc:
        raise translated(exc, address, is_embedded=is_embedded) from exc


def is_held_up(message: str) -> bool:
    """Tell whether Triton says that a model's process does not answer in time, so that an answer may be another request's."""
    return _OTHERS_ANSWER in message or all(text in message for text in _STUB_MESSAGE)


def held_up(address: str) -> InferenceUnavailable:
    """Return the error of such a process."""
    return InferenceUnavailable(f"A model's process on Triton at {address} does not answer, or not in time; try again, or start Triton again.")


def away(address: str, *, is_embedded: bool) -> InferenceUnavailable:
    """Return the error of a Triton that does not answer; for `is_embedded` see `translate_errors`."""
    if is_embedded:
        return InferenceUnavailable(
            "The embedded Triton does not answer, or is not ready; it is started again by itself, and jobs that wait for it go on then. Send again "
            "in a few seconds what was refused, or has failed."
        )
    return InferenceUnavailable(f"No Triton answers at {address}, or it is not ready; start it, or check the address and port (gRPC, usually 8001).")


def translated(error: InferenceServerException, address: str, *, is_embedded: bool = False) -> InferenceError:
    """Return one of tritonclient's exceptions as ours; for `is_embedded` see `translate_errors`."""
    status, message = str(error.status() or ""), str(error.message() or "")
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return InferenceTimeout(f"Triton at {address} did not answer in time; check its load with `nvidia-smi` or its metrics, then try again.")
    if status == "StatusCode.CANCELLED":  # nobody here waits for what he cancels himself, so it is a Triton that ends
        return away(address, is_embedded=is_embedded)
    if status == "StatusCode.UNAVAILABLE":
        if any(text in message for text in _QUEUE_MESSAGES):
            return InferenceOverloaded(f"Triton at {address} has a full queue; try again when fewer renders run.")
        return away(address, is_embedded=is_embedded)
    if is_held_up(message):
        return held_up(address)
    if _UNLOADED in message:
        return InferenceUnavailable(
            f"Triton at {address} has let go of a model, or could not load it ({message}); try again, and look at Triton's log if that goes on."
        )
    if failure := _GPU_FAILURE.search(message):
        return InferenceUnavailable(
            f"The GPU of Triton at {address} failed ({failure[0].strip()}); try again; if it goes on, look at `nvidia-smi` and start Triton again."
        )
    if status == "StatusCode.NOT_FOUND" or "unknown model" in message:
        return ContractMismatch(f"Triton at {address} lacks a model that is needed ({message}); start it with this project's model repository.")
    return InferenceRejected(f"Triton at {address} refused a request: {message or error}.")
