"""Errors over HTTP: each error class has one status, and one body shape (RFC 9457 problem details with our `code`)."""

from collections.abc import Mapping
from types import MappingProxyType

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from orchestrator import errors

STATUS: Mapping[type[errors.RenderError], int] = MappingProxyType(
    {
        errors.InputError: 422,
        errors.LimitExceeded: 413,
        errors.InferenceError: 502,
        errors.InferenceUnavailable: 503,
        errors.InferenceOverloaded: 503,
        errors.InferenceTimeout: 504,
        errors.FetchFailed: 502,
        errors.StorageError: 507,
        errors.RenderCancelled: 499,
        errors.RenderError: 500,
    }
)
"""HTTP status by error class; a class that is not listed has its parent's."""

RETRY_AFTER_S = 5
"""What retryable errors tell clients to wait, s."""


def status_of(error: errors.RenderError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(status: int, code: str, detail: str, retryable: bool = False) -> JSONResponse:
    """Return the response for an error."""
    return JSONResponse(
        {"type": "about:blank", "title": code.replace("_", " "), "status": status, "code": code, "detail": detail},
        status_code=status,
        media_type="application/problem+json",
        headers={"Retry-After": str(RETRY_AFTER_S)} if retryable else None,
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Answer errors raised in any route as problems."""

    @app.exception_handler(errors.RenderError)
    async def render_error(request: Request, exc: errors.RenderError) -> JSONResponse:
        return problem(status_of(exc), exc.code, str(exc), exc.retryable)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, exc: RequestValidationError) -> JSONResponse:
        details = "; ".join(f"{'.'.join(str(part) for part in error['loc'][1:])}: {error['msg']}" for error in exc.errors())
        return problem(422, "invalid_request", f"The request is not complete or not correct: {details}.")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> JSONResponse:
        return problem(exc.status_code, str(exc.detail).lower().replace(" ", "_"), f"{exc.detail}: {request.method} {request.url.path}.")
