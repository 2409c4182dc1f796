"""The server gives up on connections that do not get as far as a request."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from orchestrator.api import server
from orchestrator.api.server import PatientProtocol, Server, listen


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(server, "HEADER_S", 0.5)
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(PlainTextResponse("hello"), http=PatientProtocol, ws="none", lifespan="off", log_config=None, access_log=False)
        service = Server(config, threading.Event())
        thread = threading.Thread(target=service.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        service.should_exit = True
        thread.join(timeout=10)
        assert not thread.is_alive()


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
