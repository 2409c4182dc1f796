"""The fetcher against real servers on this host, and what it refuses to reach."""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from orchestrator.errors import FetchFailed, LimitExceeded, MissingFile, RenderCancelled, UrlRefused
from orchestrator.media.fetch import fetch, post
from orchestrator.media.reach import FetchPolicy, check_url, may_reach
from tests.web import web_server

LOOPBACK = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))
OPEN = FetchPolicy(networks=LOOPBACK, max_bytes=10_000, connect_s=5, first_byte_s=5, stall_s=5)
BODY = bytes(range(256)) * 30


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if name == "missing":
            self.answer(404, b"")
        elif name == "broken":
            self.answer(503, b"")
        elif name == "empty":
            self.answer(200, b"")
        elif name == "inwards":
            self.answer(302, b"", Location="http://10.0.0.1/secret")
        elif name == "file":
            self.answer(302, b"", Location="file:///etc/passwd")
        elif name == "round":
            self.answer(302, b"", Location="round")
        elif name == "moved":
            self.answer(301, b"", Location="clip%20one.mp4?token=1")
        elif name == "packed":
            self.answer(200, BODY, **{"Content-Encoding": "gzip"})
        elif name == "short":
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[:100])
            self.close_connection = True
        elif name == "endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(BODY)
        else:
            self.answer(200, BODY)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(202, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with web_server(Server) as url:
        yield url


def fetched(url: str, policy: FetchPolicy = OPEN) -> tuple[bytes, str]:
    body = bytearray()
    name = fetch(url, body.extend, policy)
    return bytes(body), name


def test_file_arrives_whole_with_its_name(site: str) -> None:
    assert fetched(f"{site}/folder/clip.mp4?key=secret") == (BODY, "clip.mp4")


def test_redirect_is_followed_and_names_the_file(site: str) -> None:
    assert fetched(f"{site}/moved") == (BODY, "clip one.mp4")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing", MissingFile),
        ("empty", MissingFile),
        ("packed", MissingFile),
        ("broken", FetchFailed),
        ("short", FetchFailed),
        ("round", UrlRefused),
        ("file", UrlRefused),
        ("inwards", UrlRefused),
        ("endless", LimitExceeded),
    ],
)
def test_what_is_no_file_is_an_error_with_a_sentence_and_without_the_query(name: str, error: type[Exception], site: str) -> None:
    with pytest.raises(error, match=r"\.$") as caught:
        fetched(f"{site}/{name}?token=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[2002:7f00:1::]/",
        "http://[::127.0.0.1]/",
        "http://[fec0::1]/",
        "ftp://example.com/a",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/a",
        "clip.mp4",
        "",
        "http://",
        "http://user:pass@example.com/",
        "http://example.com/a b",
        "http://example.com/\r\nX: y",
        "http://[::1",
        "http://example.com:99999/",
    ],
)
def test_url_that_leads_inwards_or_nowhere_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused, match=r"\.$"):
        fetched(url, FetchPolicy())


def test_name_with_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with pytest.raises(UrlRefused):
        fetched("http://mixed.test/", FetchPolicy())


def test_name_that_changes_its_address_after_the_check_is_not_followed(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: each look-up gives another address; the connection must go to the one that was checked."""
    answers: list[str] = []
    resolve = socket.getaddrinfo

    def resolved(host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host != "rebinding.test":
            return resolve(host, port, *rest, **options)
        answers.append("127.0.0.1" if not answers else "127.0.0.2")
        return resolve(answers[-1], port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    policy = FetchPolicy(networks=(ipaddress.IPv4Network("127.0.0.1/32"),))
    assert fetched(f"http://rebinding.test:{site.rpartition(':')[2]}/clip.mp4", policy) == (BODY, "clip.mp4")
    assert answers == ["127.0.0.1"]


def test_public_and_private_addresses() -> None:
    assert may_reach(ipaddress.ip_address("93.184.216.34"))
    assert may_reach(ipaddress.ip_address("2606:2800:220:1:248:1893:25c8:1946"))
    assert not may_reach(ipaddress.ip_address("::ffff:10.0.0.1"))
    assert may_reach(ipaddress.ip_address("10.1.2.3"), [ipaddress.IPv4Network("10.1.0.0/16")])
    assert not may_reach(ipaddress.ip_address("10.2.2.3"), [ipaddress.IPv4Network("10.1.0.0/16")])


def test_only_listed_hosts_are_fetched_from() -> None:
    policy = FetchPolicy(hosts=("*.example.com", "files.test"))
    for url in ("https://cdn.example.com/a", "http://FILES.test/a"):
        check_url(url, policy)
    for url in ("https://example.com.evil.test/a", "https://example.org/a"):
        with pytest.raises(UrlRefused):
            check_url(url, policy)


@contextmanager
def dripping(head: bytes, drip: bytes) -> Iterator[str]:
    """Serve a head, and then a byte now and then for ever."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(head)
                while not stopped.wait(0.1):
                    connection.sendall(drip)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/clip.mp4"
        stopped.set()
        thread.join()


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"], ids=["in the head", "in the body"]
)
def test_server_that_sends_a_byte_now_and_then_is_given_up(head: bytes) -> None:
    started = time.monotonic()
    with dripping(head, b"x") as url, pytest.raises(FetchFailed):
        fetched(url, FetchPolicy(networks=LOOPBACK, connect_s=1, first_byte_s=0.5, stall_s=1))
    assert time.monotonic() - started < 30  # as against for ever


def test_cancelled_download_stops(site: str) -> None:
    pieces: list[bytes] = []
    with pytest.raises(RenderCancelled):
        fetch(f"{site}/endless", pieces.append, FetchPolicy(networks=LOOPBACK), lambda: len(pieces) > 3)
    assert len(pieces) <= 5


def test_cancelling_does_not_wait_for_a_server_that_says_nothing() -> None:
    patient = FetchPolicy(networks=LOOPBACK, first_byte_s=60)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(RenderCancelled):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4", len, patient, lambda: time.monotonic() > started + 0.3)
        assert time.monotonic() < started + 2


def test_nothing_that_listens_there_is_a_failure_that_may_pass() -> None:
    with pytest.raises(FetchFailed):
        fetched("http://127.0.0.1:1/clip.mp4")


def test_post_goes_through_the_same_checks(site: str) -> None:
    assert post(f"{site}/hook", b"{}", {"Content-Type": "application/json"}, OPEN) == 202
    refused: list[Callable[[], object]] = [lambda: post(f"{site}/hook", b"{}", {}, FetchPolicy()), lambda: post("file:///x", b"{}", {}, OPEN)]
    for attempt in refused:
        with pytest.raises(UrlRefused):
            attempt()
