"""Errors over HTTP: each error class has one status, and each interface its own body.

`/v2` answers as sync.so does, `/easy` as HeyGem does, everything else with problem details (RFC 9457) that carry our `code`.
"""

import http
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from orchestrator import errors
from orchestrator.api.v2_codes import sync_code

STATUS: Mapping[type[errors.RenderError], int] = MappingProxyType(
    {
        errors.InputError: 422,
        errors.LimitExceeded: 413,
        errors.UnknownJob: 404,
        errors.UnknownRecord: 404,
        errors.NotReady: 409,
        errors.IdempotencyConflict: 409,
        errors.QueueFull: 429,
        errors.InferenceError: 502,
        errors.InferenceUnavailable: 503,
        errors.InferenceOverloaded: 503,
        errors.InferenceTimeout: 504,
        errors.FetchFailed: 502,
        errors.StorageError: 507,
        errors.RenderInterrupted: 503,
        errors.RenderCancelled: 499,
        errors.RenderError: 500,
    }
)
"""HTTP status by error class; a class that is not listed has its parent's."""

RETRY_AFTER_S = 5
"""What retryable errors tell clients to wait, s."""

_RETRYABLE = (408, 429, 503)

_V2_STATUS: Mapping[int, int] = MappingProxyType({422: 400})
"""Where sync.so has another status: its SDKs know a request that cannot be used as 400, BadRequestError."""

REFUSALS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "invalid_request": (422, "A part of the request is missing, not known, or of the wrong shape."),
        "invalid_idempotency_key": (400, "The Idempotency-Key is malformed, or given twice."),
        "unauthorized": (401, "The API key is missing or wrong, or a signed link has expired or is not whole."),
        "wrong_host": (403, "The service is called by a name it does not know."),
        "wrong_origin": (403, "The request comes from another site's page."),
        "upload_stalled": (408, "The request arrives too slowly."),
        "not_found": (404, "Nothing is at this path."),
        "method_not_allowed": (405, "The path does not take this method."),
        "unsupported_media_type": (415, "The body is of a type that the path does not take."),
        "range_not_satisfiable": (416, "The range that is asked for is not in the file."),
        "internal_error": (500, "A mistake in the service."),
    }
)
"""What the HTTP layer itself turns away, besides what has an error class: HTTP status and meaning by code."""

SHUTS_DOWN = "The service shuts down; send the request again in a minute."
"""What is said to whom a service that shuts down leaves without what was asked for."""

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


class Problem(Exception):
    """A request that the HTTP layer itself turns away."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class ProblemDetails(BaseModel):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str
    status: int
    code: str = Field(description="Stable word for the cause; see Errors in the README.")
    detail: str = Field(description="One sentence that says what to do.")


class V2Error(BaseModel):
    """An error in sync.so's shape and words, with our code besides."""

    message: str = Field(description="One sentence that says what to do.")
    statusCode: int = Field(description="The HTTP status.")  # noqa: N815 (sync.so's name)
    code: str = Field(description="Stable word for the cause; see Errors in the README.")
    errorCode: str = Field(description="sync.so's word for it, where it has one.")  # noqa: N815
    error_code: str = Field(description="The same, as sync.so's SDKs call it.")
    retryAfterSeconds: int | None = Field(None, description="After how long to try again, s, where that helps; also in Retry-After.")  # noqa: N815


def error_kinds(kind: type[errors.RenderError] = errors.RenderError) -> Iterator[type[errors.RenderError]]:
    """Yield every class of the error tree, or of a branch."""
    yield kind
    for child in kind.__subclasses__():
        yield from error_kinds(child)


def status_of(error: errors.RenderError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def is_retryable(status: int, retryable: bool = False) -> bool:
    """Tell whether clients are told to try again."""
    return retryable or status in _RETRYABLE


def v2_status(status: int) -> int:
    """Return the HTTP status that `/v2` answers in place of ours."""
    return _V2_STATUS.get(status, status)


def problem(scope: Scope, status: int, code: str, detail: str, retryable: bool = False) -> JSONResponse:
    """Return the response for an error, in the shape of the interface that the request's path belongs to; its code is noted for the log."""
    path = scope["path"]
    scope.setdefault("state", {})["code"] = code
    retry_after_s = RETRY_AFTER_S if is_retryable(status, retryable) else None
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    if path == "/v2" or path.startswith("/v2/"):
        status = v2_status(status)
        theirs = sync_code(code)
        body = V2Error(message=detail, statusCode=status, code=code, errorCode=theirs, error_code=theirs, retryAfterSeconds=retry_after_s)
        return JSONResponse(body.model_dump(exclude_none=True), status, headers)
    if path.startswith("/easy/"):
        return JSONResponse({"code": 10002 if status < 500 else 9999, "data": {}, "msg": detail, "success": False}, status, headers)
    details = ProblemDetails(title=code.replace("_", " "), status=status, code=code, detail=detail)
    return JSONResponse(details.model_dump(), status, headers, media_type="application/problem+json")


def error_responses(body: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says about a route's errors."""
    media_type = "application/problem+json" if body is ProblemDetails else "application/json"
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in sorted(statuses)}


def file_responses(what: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says about a route of `/v2` that answers with a file or, for a Range, a part of one."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {
        200: {"description": what, "content": content},
        206: {"description": "A part of it.", "content": content},
        **error_responses(V2Error, 400, 416),
    }


def validation_sentence(error: RequestValidationError | ValidationError, skip: int = 0) -> str:
    """Return one sentence about what is wrong with a request, without repeating what was sent."""
    details = []
    for entry in error.errors()[:5]:
        place, what = ".".join(str(part) for part in entry["loc"][skip:]), errors.complaint(entry)
        details.append(f"{place}: {what}" if place else what)
    return f"The request is not complete or not correct: {'; '.join(details)}."


def refuse_repeated(request: Request, *names: str) -> None:
    """Refuse parameters of a query that mean one thing and are given several times: which one counts would be a guess.

    Raises:
        Problem: one is.
    """
    for name in names:
        if len(request.query_params.getlist(name)) > 1:
            raise Problem(422, "invalid_request", f"{name} is given several times; give it once.")


def refuse_unsupported(request: Request, *names: str) -> None:
    """Refuse parameters of a query that are not here: an answer that ignored them would be to another question.

    Raises:
        Problem: one is given.
    """
    for name in names:
        if name in request.query_params:
            raise Problem(422, "invalid_option", f"{name} is not supported here; leave it out.")


def add_problem_handlers(app: FastAPI) -> None:
    """Answer errors raised in any route as problems."""

    @app.exception_handler(errors.RenderError)
    async def render_error(request: Request, exc: errors.RenderError) -> Response:
        return problem(request.scope, status_of(exc), exc.code, str(exc), exc.retryable)

    @app.exception_handler(Problem)
    async def http_problem(request: Request, exc: Problem) -> Response:
        return problem(request.scope, exc.status, exc.code, str(exc))

    @app.exception_handler(ClientDisconnect)
    async def client_is_gone(request: Request, exc: ClientDisconnect) -> Response:
        return problem(request.scope, 499, errors.RenderCancelled.code, "The client closed the connection.")

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, exc: RequestValidationError) -> Response:
        return problem(request.scope, 422, "invalid_request", validation_sentence(exc, skip=1))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, exc: HTTPException) -> Response:
        detail, headers = f"{exc.detail}: {request.method}.", dict(exc.headers or {})
        if exc.status_code == 404:
            detail = "Nothing is at this path; /docs shows what there is."
        if exc.status_code == 405:
            headers["Allow"] = ", ".join(_allowed_methods(request))
            detail = f"This path does not take {request.method}; it takes {headers['Allow']}."
        response = problem(request.scope, exc.status_code, str(exc.detail).lower().replace(" ", "_"), detail)
        response.headers.update(headers)
        return response

    @app.exception_handler(Exception)
    async def unexpected(request: Request, exc: Exception) -> Response:
        detail = "The service has failed; look in its log for this request's id, and report it."
        return problem(request.scope, 500, "internal_error", detail)


def _allowed_methods(request: Request) -> list[str]:
    """Return what a path can be asked by: all of its routes, where Starlette names the first one's methods."""
    asked = ({**request.scope, "method": method} for method in _METHODS)
    return [scope["method"] for scope in asked if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)]
