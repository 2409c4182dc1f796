"""`/v2/errors`: every code that an error can have, told by the error tree and the HTTP layer's own refusals; ours, and sync.so's."""

from inspect import getdoc

from fastapi import APIRouter

from orchestrator import errors
from orchestrator.api.problems import REFUSALS, error_kinds, is_retryable, status_of, v2_status
from orchestrator.api.v2_codes import MEANINGS, sync_code
from orchestrator.api.v2_schema import ErrorInfo

FAMILIES = (errors.InputError, errors.InferenceError)
"""Classes that only hold others together: no error has their code."""

TRY_AGAIN = "Send the same request again later."
DO_AS_TOLD = "Do what the error's message says; before that the same request will not succeed."
ASK = "Whoever runs the service finds the cause in its log."


def errors_router() -> APIRouter:
    """Return the route, which needs no key."""
    router = APIRouter(prefix="/v2/errors", tags=["v2"])

    @router.get("")
    async def list_errors() -> list[ErrorInfo]:
        """Return every error code."""
        return catalogue()

    return router


def catalogue() -> list[ErrorInfo]:
    """Return every error code, by name."""
    found = [_info(kind.code, status_of(kind("")), getdoc(kind) or "", kind.retryable) for kind in error_kinds() if kind not in FAMILIES]
    found += [_info(code, status, message, False) for code, (status, message) in REFUSALS.items()]
    for code, meaning in MEANINGS.items():
        alike = [info for info in found if sync_code(info.code) == code]
        found.append(max(alike, key=lambda info: info.retryable).model_copy(update={"code": code, "message": meaning}))
    return sorted(found, key=lambda info: info.code)


def _info(code: str, status: int, message: str, retryable: bool) -> ErrorInfo:
    may_retry = is_retryable(status, retryable)
    suggestion = TRY_AGAIN if may_retry else DO_AS_TOLD if status < 500 else ASK
    summary = " ".join(message.partition("\n\n")[0].split())
    return ErrorInfo(code=code, message=summary, suggestion=suggestion, statusCode=v2_status(status), retryable=may_retry)
