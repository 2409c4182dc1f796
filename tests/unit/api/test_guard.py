"""What a request must pass before any route sees it."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from orchestrator.api import guard as guard_module
from orchestrator.api.guard import Entrance, Guard, Limits
from orchestrator.api.keys import ApiKeys, LinkSigner

KEY = "0123456789abcdef"
SIGNER = LinkSigner(b"secret")
LIMITS = Limits(max_body_bytes=1000, stall_s=0.2, min_bytes_per_s=100, read_stall_s=0.2)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    body = await request.body()
    await JSONResponse({"owner": scope["state"]["owner"], "bytes": len(body)})(scope, receive, send)


def guard(keys: str = "", names: frozenset[str] = frozenset(), app: Any = echo) -> Guard:
    return Guard(app, Entrance(ApiKeys.load(keys), SIGNER, names), LIMITS)


def ask(app: Guard, method: str = "GET", path: str = "/v2/models", base_url: str = "http://127.0.0.1:8383", **options: Any) -> httpx.Response:
    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url) as client:
            return await client.request(method, path, **options)

    return asyncio.run(exchange())


def test_key_in_either_header_lets_in_as_its_owner() -> None:
    app = guard(f"anna:{KEY}")
    for headers in ({"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}):
        assert ask(app, headers=headers).json()["owner"] == "anna"


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"x-api-key": ""}, {"authorization": f"Basic {KEY}"}])
def test_without_the_key_nothing_but_the_open_paths_is_reached(headers: dict[str, str]) -> None:
    app = guard(f"anna:{KEY}")
    answer = ask(app, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {
        "message": answer.json()["message"],
        "statusCode": 401,
        **dict.fromkeys(("code", "errorCode", "error_code"), "unauthorized"),
    }
    assert ask(app, path="/healthz", headers=headers).status_code == 200
    assert ask(app, "POST", "/render", headers=headers).headers["content-type"] == "application/problem+json"
    assert ask(app, "POST", "/easy/submit", headers=headers).json()["code"] == 10002


def test_refused_upload_is_not_read_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "DRAIN_S", 0.1)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100

    assert ask(guard(f"anna:{KEY}"), "POST", "/render", content=endless()).status_code == 401


def test_signed_link_reads_and_does_nothing_else() -> None:
    app, link = guard(f"anna:{KEY}"), f"/v2/generate/1/result?{SIGNER.query('/v2/generate/1', 60)}"
    assert ask(app, path=link).status_code == 200
    assert ask(app, "DELETE", link).status_code == 401
    assert ask(app, path=link.replace("generate/1", "generate/2")).status_code == 401
    assert ask(app, path=link, headers={"x-api-key": "wrong"}).status_code == 401


@pytest.mark.parametrize("base_url", ["http://localhost:1", "http://127.0.0.1", "http://[::1]:8383", "http://127.9.9.9", "http://lip.localhost"])
def test_service_without_keys_answers_to_this_hosts_names(base_url: str) -> None:
    assert ask(guard(), base_url=base_url).status_code == 200


def test_service_without_keys_does_not_answer_to_a_name_that_was_pointed_at_it() -> None:
    """DNS rebinding: the page of another site calls it by the site's own name."""
    assert ask(guard(), base_url="http://evil.test").status_code == 403
    assert ask(guard(), base_url="http://lips.test").json()["code"] == "wrong_host"
    assert ask(guard(names=frozenset({"lips.test"})), base_url="http://lips.test").status_code == 200
    assert ask(guard(f"anna:{KEY}"), base_url="http://evil.test", headers={"x-api-key": KEY}).status_code == 200


def test_page_of_another_site_cannot_submit() -> None:
    for origin, status in (("https://evil.test", 403), ("null", 403), ("http://[", 403), ("http://127.0.0.1:8383", 200), ("http://127.0.0.1:9", 200)):
        assert ask(guard(), "POST", "/easy/submit", headers={"origin": origin}).status_code == status
    assert ask(guard(), headers={"origin": "https://evil.test"}).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
def test_body_that_is_too_large_is_refused(declared: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert ask(guard(), "POST", content=b"x" * 1100 if declared else pieces()).status_code == 413
    assert ask(guard(), "POST", content=b"x" * 1000).json()["bytes"] == 1000


def test_body_that_is_compressed_is_refused_as_such() -> None:
    for encoding, status in (("gzip", 415), ("identity, GZIP", 415), ("zstd", 415), ("utf-8", 200), ("identity", 200)):
        assert ask(guard(), "POST", content=b"x", headers={"content-encoding": encoding}).status_code == status


def drive(app: Guard, receive: Callable[[], Any]) -> list[Message]:
    """Send a request whose body arrives as `receive` has it, and return what is sent back."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/render",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"transfer-encoding", b"chunked")],
    }
    asyncio.run(app(scope, receive, send))
    return sent


def test_client_that_sends_nothing_for_long_is_given_up() -> None:
    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    start, body = drive(guard(), never)
    assert start["status"] == 408
    assert json.loads(body["body"])["code"] == "upload_stalled"
    assert (b"connection", b"close") in start["headers"]


def test_client_that_sends_a_byte_now_and_then_is_given_up() -> None:
    async def drip() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert drive(guard(), drip)[0]["status"] == 408


def test_service_that_was_held_up_does_not_blame_the_client() -> None:
    """What came while nothing ran is found by the same turn of the loop that finds the time over."""
    came = asyncio.Event()
    ours, theirs = socket.socketpair()

    def hold_up() -> None:
        time.sleep(2 * LIMITS.stall_s)
        theirs.sendall(b"x")

    def read() -> None:
        ours.recv(1)
        came.set()

    async def receive() -> Message:
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, read)
        loop.call_soon(hold_up)
        await came.wait()
        return {"type": "http.request", "body": b"x"}

    with ours, theirs:
        assert drive(guard(), receive)[0]["status"] == 200


def test_client_that_takes_no_data_is_dropped() -> None:
    async def blocked(message: Message) -> None:
        await asyncio.sleep(60)

    async def nothing() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost")]}
    began = time.monotonic()
    asyncio.run(guard(app=PlainTextResponse("hello"))(scope, nothing, blocked))
    assert time.monotonic() - began < 30


def test_answers_carry_safe_headers_and_a_request_id() -> None:
    answer = ask(guard())
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert len(answer.headers["x-request-id"]) == 32
    assert ask(guard(), headers={"x-request-id": "trace-1"}).headers["x-request-id"] == "trace-1"
    assert ask(guard(), headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_access_log_has_no_user_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lipsync.access")
    ask(guard(f"anna:{KEY}"), path="/easy/query?code=secret-code", headers={"x-api-key": KEY})
    (record,) = caplog.records
    text = f"{record.getMessage()} {record.__dict__}"
    assert "secret-code" not in text and KEY not in text
    assert record.__dict__["owner"] == "anna" and "GET" in record.getMessage()


@pytest.mark.parametrize(("status", "logged"), [(200, 0), (503, 1)])
def test_access_log_has_a_health_check_only_where_all_is_not_well(caplog: pytest.LogCaptureFixture, status: int, logged: int) -> None:
    caplog.set_level(logging.INFO, "lipsync.access")
    ask(guard(app=PlainTextResponse("{}", status)), path="/readyz")
    assert len(caplog.records) == logged


def test_access_log_says_why_a_request_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lipsync.access")
    ask(guard(f"anna:{KEY}"))
    ask(guard(f"anna:{KEY}"), headers={"x-api-key": KEY})
    refused, admitted = caplog.records
    assert "GET - 401 unauthorized " in refused.getMessage() and refused.__dict__["code"] == "unauthorized"
    assert "GET - 200 " in admitted.getMessage() and "code" not in admitted.__dict__
