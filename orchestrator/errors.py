"""The error tree: everything a render can fail with, each with a stable code.

RenderError(code, retryable)        render_failed: a mistake in the program
 x InputError                    the request cannot be rendered as it is
   - MissingFile                 missing_file
   - UnreadableMedia             unreadable_media
   - MissingStream               missing_stream
   - EmptyStream                 empty_stream
   - LimitExceeded               limit_exceeded
   - InvalidOption               invalid_option
   - UrlRefused                  url_refused
   - NoFaceFound                 no_face_found
     - SpeakerNotFound           speaker_not_found
   - IdempotencyConflict         idempotency_conflict
   - UnknownJob                  unknown_job
   - UnknownRecord               unknown_record
   - NotReady                    not_ready
   - UnreadableModel             unreadable_model
   - UnsuitableModel             unsuitable_model
 x QueueFull                     queue_full               (retryable)
 x InferenceError                Triton did not do its part
   - InferenceUnavailable        inference_unavailable    (retryable)
   - InferenceTimeout            inference_timeout        (retryable)
   - InferenceOverloaded         inference_overloaded     (retryable)
   - InferenceRejected           inference_rejected
   - GpuUnavailable              gpu_unavailable
   - ContractMismatch            contract_mismatch
 x FetchFailed                   fetch_failed             (retryable)
 x EncodeError                   encode_failed
 x StorageError                  storage_failed           (retryable)
   - StorageFull                 storage_full             (retryable)
 x RenderStalled                 stalled                  (retryable)
 x CrashLoop                     crash_loop
 x RenderInterrupted             interrupted              (retryable)
 x RenderCancelled               cancelled

The code is the same in the API, the logs and the reports; the message is one sentence that says what to do. A `ValueError` out of
`preprocess` or `postprocess` is a programming error and no part of this tree.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar


class RenderError(Exception):
    """A mistake in the program: every other cause has a class of its own, and a `code` that never changes."""

    code: ClassVar[str] = "render_failed"
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without being changed."""


class InputError(RenderError):
    """The request or its media cannot be rendered; sending it again will not help."""

    code = "invalid_input"


class MissingFile(InputError):
    """A path that was given does not lead to a file."""

    code = "missing_file"


class UnreadableMedia(InputError):
    """A file is not media, is damaged, or ends before its own header says."""

    code = "unreadable_media"


class MissingStream(InputError):
    """A file is media but has no video (or no audio) in it."""

    code = "missing_stream"


class EmptyStream(InputError):
    """A stream is there but holds no frame or no sample."""

    code = "empty_stream"


class LimitExceeded(InputError):
    """The input is larger than this host accepts."""

    code = "limit_exceeded"


class InvalidOption(InputError):
    """An option has a value that cannot be used."""

    code = "invalid_option"


class UrlRefused(InputError):
    """A URL leads where this service does not go."""

    code = "url_refused"


class NoFaceFound(InputError):
    """No frame of the video shows a face that can be rendered."""

    code = "no_face_found"


class SpeakerNotFound(NoFaceFound):
    """The video may show faces, but not the one that was asked for."""

    code = "speaker_not_found"


class IdempotencyConflict(InputError):
    """An idempotency key or a client's code was used before, for another request."""

    code = "idempotency_conflict"


class UnknownJob(InputError):
    """There is no job with this id."""

    code = "unknown_job"


class UnknownRecord(InputError):
    """There is no asset, upload or batch with this id."""

    code = "unknown_record"


class NotReady(InputError):
    """What is asked for is not there yet, or no more: a job's result or its end, an upload's file."""

    code = "not_ready"


class QueueFull(RenderError):
    """Too many jobs wait already."""

    code = "queue_full"
    retryable = True


class UnreadableModel(InputError):
    """A model file is not ONNX, is damaged, or reaches for data outside its folder."""

    code = "unreadable_model"


class UnsuitableModel(InputError):
    """A model file is not what the pack is for, or does not do what its role needs."""

    code = "unsuitable_model"


class InferenceError(RenderError):
    """Triton could not run a model."""

    code = "inference_failed"


class InferenceUnavailable(InferenceError):
    """Triton, or the model on it, cannot be reached."""

    code = "inference_unavailable"
    retryable = True


class InferenceTimeout(InferenceError):
    """A request to Triton ran past its deadline."""

    code = "inference_timeout"
    retryable = True


class InferenceOverloaded(InferenceError):
    """Triton's queue for the model is full, or the request waited in it for too long."""

    code = "inference_overloaded"
    retryable = True


class InferenceRejected(InferenceError):
    """Triton refused a request or the model failed on it."""

    code = "inference_rejected"


class GpuUnavailable(InferenceError):
    """A GPU is expected and models cannot run on it, or did not."""

    code = "gpu_unavailable"


class ContractMismatch(InferenceError):
    """A model on Triton is not what its role needs."""

    code = "contract_mismatch"


class FetchFailed(RenderError):
    """A server did not deliver the file that a URL names."""

    code = "fetch_failed"
    retryable = True


class EncodeError(RenderError):
    """The output could not be encoded."""

    code = "encode_failed"


class StorageError(RenderError):
    """A file could not be written or put in place."""

    code = "storage_failed"
    retryable = True


class StorageFull(StorageError):
    """There is no space left, or less than the service keeps free."""

    code = "storage_full"


class RenderStalled(RenderError):
    """Work was outstanding and nothing got finished for too long."""

    code = "stalled"
    retryable = True


class CrashLoop(RenderError):
    """The service's process died again and again while it worked on a job, without getting any further."""

    code = "crash_loop"


class RenderInterrupted(RenderError):
    """The service shuts down; what is finished is kept, and the render goes on later."""

    code = "interrupted"
    retryable = True


class RenderCancelled(RenderError):
    """The render was asked to stop."""

    code = "cancelled"


def complaint(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value by one of pydantic's errors; of our own sentences without what pydantic puts in front."""
    if error["type"] == "extra_forbidden":
        return "is not known here; leave it out"
    if error["type"] == "model_type":
        return "must be an object with named fields"
    return str(error["msg"]).removeprefix("Value error, ")


@contextmanager
def passed_to(future: "Future[Any]") -> Iterator[None]:
    """Have what a block raises raised where a future is waited for: in a callback, and on a thread of its own, nobody else would learn of it.

    The frames in an error's trace refer to the future: a cycle, in which pictures, decoders with their threads and open files would lie until
    Python looks for cycles. So the future's error has none, unless it is a mistake in the program.
    """
    try:
        yield
    except BaseException as exc:  # noqa: BLE001
        future.set_exception(exc.with_traceback(None) if isinstance(exc, RenderError) else exc)


_Error = TypeVar("_Error", bound="RenderError")


def anew(error: _Error) -> _Error:
    """Return an error to be raised where several may raise the same one: each adds its own trace, which nobody else is to hold."""
    return type(error)(*error.args)
