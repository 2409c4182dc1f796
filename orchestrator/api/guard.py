"""What every request passes before it reaches a route: who may come in, how much they may send and how slowly, and what is noted of it."""

import asyncio
import ipaddress
import logging
import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.keys import ApiKeys, LinkSigner
from orchestrator.api.page.docs import DOCS_PATHS
from orchestrator.api.problems import SHUTS_DOWN, Problem, problem
from orchestrator.errors import RenderInterrupted
from orchestrator.logs import request_id as logged_request_id

access_log = logging.getLogger("lipsync.access")

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/v2/errors", *DOCS_PATHS})
"""What anybody may see: it shows no job, and starts none."""

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""What health checks and Prometheus ask for every few seconds: logged where the answer is not 200."""

READ_STALL_S = 120.0
"""A client that takes no data of an answer for this long is dropped, s."""

DRAIN_S = 5.0
"""How long the rest of a refused body is read, s."""

COMPRESSIONS = frozenset({"br", "compress", "deflate", "gzip", "x-gzip", "zstd"})
"""Content-Encodings of bodies that are refused; any other word there, as some clients write utf-8, says nothing."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may send, and how slowly."""

    max_body_bytes: int
    stall_s: float
    """Longest time without data, s; also the time after which `min_bytes_per_s` holds."""
    min_bytes_per_s: int
    read_stall_s: float = READ_STALL_S


@dataclass(frozen=True, slots=True)
class Entrance:
    """Who may come in."""

    keys: ApiKeys
    signer: LinkSigner
    host_names: frozenset[str] = field(default_factory=frozenset)
    """Names under which the service may be called while there are no keys, besides those of this host itself."""


class Guard:
    """Pure ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, entrance: Entrance, limits: Limits) -> None:
        self._app = app
        self._entrance = entrance
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = scope["path"].rstrip("/") or "/"  # a redirect would lose bodies, and the scheme behind a proxy
        headers = Headers(scope=scope)
        given_id = headers.get("x-request-id", "")
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        logged_request_id.set(request_id)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        awaits_go = headers.get("expect", "").lower() == "100-continue"  # and so has sent nothing of its body yet
        exchange = _Exchange(receive, send, self._limits, request_id, has_body, awaits_go)
        started = time.monotonic()
        try:
            try:
                state["owner"] = self._admit(scope, headers)
                self._check_body(headers)
                await self._app(scope, exchange.receive, exchange.send)
            except Problem as exc:
                if exchange.status is None:
                    await problem(scope, exc.status, exc.code, str(exc))(scope, receive, exchange.send)
            except Aborted:
                pass  # the server closes the connection of an answer that is not complete
            except asyncio.CancelledError:  # it shuts down, and has waited for this request for a while
                if exchange.status is None:
                    await problem(scope, 503, RenderInterrupted.code, SHUTS_DOWN)(scope, receive, exchange.send_at_once)
        finally:
            route, code, job = getattr(scope.get("route"), "path", "-"), state.get("code"), state.get("job")
            access_log.log(
                logging.DEBUG if scope["path"] in PROBES and exchange.status == 200 else logging.INFO,
                "%s %s %s %.0f ms",
                scope["method"],
                route,
                f"{exchange.status or 499} {code}" if code else exchange.status or 499,
                1e3 * (time.monotonic() - started),
                extra={
                    "owner": state.get("owner") or "",
                    "received": exchange.received,
                    "sent": exchange.sent,
                    **({"code": code} if code else {}),
                    **({"job": job} if job else {}),
                },
            )

    def _admit(self, scope: Scope, headers: Headers) -> str:
        """Return the name of the key that a request comes with."""
        self._refuse_other_sites(scope, headers)
        entrance, path = self._entrance, scope["path"]
        key = headers.get("x-api-key")
        if key is None and headers.get("authorization", "").lower().startswith("bearer "):
            key = headers["authorization"][7:].strip()
        owner = entrance.keys.owner_of(key)
        if owner is not None:
            return owner
        if path in OPEN_PATHS:
            return ""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if key is None and "signature" in query and scope["method"] in ("GET", "HEAD", "PUT"):  # nothing but uploads takes PUT
            if entrance.signer.allows(path, query.get("expires", [""])[-1], query["signature"][-1]):
                scope["state"]["signed"] = True
                return ""
            raise Problem(401, "unauthorized", "The link has expired, or is not whole; ask for it again.")
        raise Problem(401, "unauthorized", "The API key is missing or wrong; send one that this service knows in the header x-api-key.")

    def _refuse_other_sites(self, scope: Scope, headers: Headers) -> None:
        """Keep web pages of other sites, in the browser of somebody on this host, from using a service that asks for no key."""
        host = _host_name(headers.get("host", ""))
        if not self._entrance.keys and not _is_own_name(host) and host not in self._entrance.host_names:
            raise Problem(
                403, "wrong_host", "The service is called by a name it does not know; set API keys, or set LIPSYNC_PUBLIC_URL to that name."
            )
        origin = headers.get("origin")
        if origin and scope["method"] not in _SAFE_METHODS:
            name = _host_name(origin.partition("://")[2])
            if name != host and name not in self._entrance.host_names:
                raise Problem(403, "wrong_origin", "Requests from the pages of other sites are not accepted; send them from a program.")

    def _check_body(self, headers: Headers) -> None:
        """Refuse a body by what is said of it."""
        if any(coding.strip().lower() in COMPRESSIONS for coding in headers.get("content-encoding", "").split(",")):
            raise Problem(415, "unsupported_media_type", "The body is compressed; send it as it is, without Content-Encoding.")
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length) > self._limits.max_body_bytes:
            raise too_large(self._limits.max_body_bytes)


class Aborted(Exception):
    """An answer that has begun cannot be completed: the client takes no data, or there is no more to give."""


class _Exchange:
    """One request and its answer, measured."""

    def __init__(self, receive: Receive, send: Send, limits: Limits, request_id: str, has_body: bool, awaits_go: bool) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._request_id = request_id
        self._has_all = not has_body
        self._may_drain = not awaits_go
        self._waited_s = 0.0
        self.received = 0
        self.sent = 0
        self.status: int | None = None

    async def receive(self) -> Message:
        if self._has_all:
            return await self._receive()  # what is waited for now is that the client goes, which may take as long as it likes
        self._may_drain = True  # asking for the body tells the client to send it
        message = await self._next_message()
        if message["type"] != "http.request":
            self._has_all = True
            return message
        self.received += len(message.get("body", b""))
        self._has_all = not message.get("more_body", False)
        if self.received > self._limits.max_body_bytes:
            raise too_large(self._limits.max_body_bytes)
        if not self._has_all and self._waited_s > self._limits.stall_s and self.received < self._waited_s * self._limits.min_bytes_per_s:
            raise self._too_slow()
        return message

    async def _next_message(self) -> Message:
        """Wait in two halves, of which a service that was itself held up loses one: after it, what the client sent meanwhile is there at once."""
        half_s = self._limits.stall_s / 2
        for _ in range(2):
            started = time.monotonic()
            try:
                async with asyncio.timeout(half_s):
                    return await self._receive()
            except TimeoutError:
                continue
            finally:
                self._waited_s += min(half_s, time.monotonic() - started)
        raise self._too_slow()

    async def send_at_once(self, message: Message) -> None:
        self._may_drain = False
        await self.send(message)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("X-Frame-Options", "DENY")
            headers.setdefault("Referrer-Policy", "no-referrer")
            headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            headers.setdefault("Cache-Control", "no-store")
            if not self._has_all and self.status >= 400:
                headers["Connection"] = "close"  # the rest of the body is not read
        else:
            self.sent += len(message.get("body", b""))
            if not message.get("more_body", False) and not self._has_all and self._may_drain:
                await self._pass_on({**message, "more_body": True})
                await self._drain()
                message = {"type": "http.response.body"}
        await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._limits.read_stall_s):
                await self._send(message)
        except TimeoutError:
            raise Aborted from None

    async def _drain(self) -> None:
        """Read the rest of a body that is refused, so that the client has read the answer when the connection is reset at its end."""
        deadline = time.monotonic() + DRAIN_S
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while not self._has_all and time.monotonic() < deadline:  # data that is there already is never waited for
                    message = await self._receive()
                    self._has_all = message["type"] != "http.request" or not message.get("more_body", False)

    def _too_slow(self) -> Problem:
        self._may_drain = False
        return Problem(
            408, "upload_stalled", f"The request arrives too slowly; send at least {self._limits.min_bytes_per_s} bytes a second without long pauses."
        )


def too_large(max_bytes: int) -> Problem:
    """Return the refusal of a body."""
    return Problem(413, "limit_exceeded", f"The request is larger than {max_bytes} bytes; send a smaller file, or raise LIPSYNC_MAX_UPLOAD_BYTES.")


def is_loopback(host: str) -> bool:
    """Tell whether an address or name means this host alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_own_name(host: str) -> bool:
    return is_loopback(host) or host.endswith(".localhost")


def _host_name(netloc: str) -> str:
    """Return the name in HOST[:PORT], in lower case."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


def request_state(scope: Any, name: str, default: Any = None) -> Any:
    """Return what the guard noted about a request."""
    return scope.get("state", {}).get(name, default)
