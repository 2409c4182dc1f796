"""The server gives up on connections that do not get as far as a request."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import anyio.to_thread
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from orchestrator.api import server
from orchestrator.api.guard import Entrance, Guard, Limits
from orchestrator.api.keys import ApiKeys, LinkSigner
from orchestrator.api.problems import add_problem_handlers
from orchestrator.api.server import PatientProtocol, Server, listen
from orchestrator.logs import TextFormatter


@contextmanager
def serving(app: ASGIApp) -> Iterator[tuple[str, int]]:
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, http=PatientProtocol, ws="none", lifespan="off", log_config=None, access_log=False)
        service = Server(config, threading.Event())
        thread = threading.Thread(target=service.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        service.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(server, "HEADER_S", 0.5)
    with serving(PlainTextResponse("hello")) as address:
        yield address


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHost: loc", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_client_that_does_not_finish_its_headers_is_hung_up_on(beginning: bytes, address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(beginning)
        assert client.recv(100) == b""


def test_client_that_drips_its_second_requests_headers_is_hung_up_on_too(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"hello" not in answer:
            answer += client.recv(1000)
        client.sendall(b"GET / HTT")
        assert client.recv(100) == b""


def test_request_that_is_in_time_is_answered(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_port_that_is_taken_is_an_error(address: tuple[str, int]) -> None:
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", address[1])


def test_mistake_in_the_program_is_logged_under_the_id_that_its_answer_has(caplog: pytest.LogCaptureFixture) -> None:
    app, lines = FastAPI(), list[str]()
    add_problem_handlers(app)

    @app.get("/broken")
    async def broken() -> None:
        await anyio.to_thread.run_sync(logging.getLogger("lipsync.jobs").warning, "on a thread")
        raise ValueError("a mistake")

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(TextFormatter().format(record))

    handler = Lines()
    logging.getLogger().addHandler(handler)
    try:
        with serving(Guard(app, Entrance(ApiKeys.load(""), LinkSigner(b"secret")), Limits(1000, 30, 1))) as (host, port):
            answer = httpx.get(f"http://{host}:{port}/broken", headers={"x-request-id": "trace-1"})
    finally:
        logging.getLogger().removeHandler(handler)
        caplog.clear()  # the mistake, which is an error in the log
    assert (answer.status_code, answer.json()["code"], answer.headers["x-request-id"]) == (500, "internal_error", "trace-1")
    assert any(line.endswith("on a thread [request trace-1]") for line in lines)
    assert any("Exception in ASGI application" in line and " [request trace-1]\n" in line and "ValueError: a mistake" in line for line in lines)
