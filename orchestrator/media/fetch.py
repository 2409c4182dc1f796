"""Files from http(s) URLs that strangers name: only from addresses that may be reached, and only as much and as long as allowed.

Redirects are followed by hand and checked like the first URL.
"""

import ssl
import string
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpcore

from orchestrator.errors import FetchFailed, LimitExceeded, MissingFile, UrlRefused
from orchestrator.media.reach import Clock, FetchPolicy, connections, host_of

MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an HTTP answer."""

    url: str
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""


def fetch(
    url: str,
    write: Callable[[bytes], object],
    policy: FetchPolicy,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """Download a URL.

    Args:
        url: http or https.
        write: called with each piece of the body.
        policy: see `FetchPolicy`.
        is_cancelled: looked at between pieces, and while none comes.

    Returns:
        The file name that the URL ends with, without any folder; "" where it has none.

    Raises:
        UrlRefused: the URL or a redirect leads where it must not.
        MissingFile: the server says that there is no such file, or that it may not be had.
        FetchFailed: the server cannot be reached, fails, or is too slow (retryable).
        LimitExceeded: the file is larger than allowed.
        RenderCancelled: `is_cancelled` returned true.
    """
    with connections(policy, is_cancelled) as (pool, clock):
        for _ in range(MAX_REDIRECTS + 1):
            with _request(pool, clock, "GET", url, {}, b"", policy) as (answer, pieces):
                if answer.status in _REDIRECTS and "location" in answer.headers:
                    url = urljoin(url, answer.headers["location"])
                    continue
                _refuse_status(answer)
                _receive(answer, pieces, write, policy, clock)
                return _file_name(url)
    raise UrlRefused(f"{_shown(url)} redirects more than {MAX_REDIRECTS} times; give the file's own URL.")


def post(url: str, body: bytes, headers: Mapping[str, str], policy: FetchPolicy) -> int:
    """Send a body to a URL under the same rules and return the HTTP status. A redirect is not followed.

    Raises:
        UrlRefused: the URL leads where it must not.
        FetchFailed: the server cannot be reached or is too slow (retryable).
    """
    with connections(policy, lambda: False) as (pool, clock), _request(pool, clock, "POST", url, headers, body, policy) as (answer, _):
        return answer.status


@contextmanager
def _request(
    pool: httpcore.ConnectionPool, clock: Clock, method: str, url: str, headers: Mapping[str, str], body: bytes, policy: FetchPolicy
) -> Iterator[tuple[Answer, Iterable[bytes]]]:
    host = host_of(url, policy)
    sent = {"User-Agent": "lipsync-triton", "Accept": "*/*", "Accept-Encoding": "identity", **headers}
    if body:
        sent["Content-Length"] = str(len(body))
    # httpcore takes the URL as bytes of ASCII; what is beyond that is percent-encoded by urlsplit's caller or refused here.
    try:
        target = _ascii(url, host)
        clock.allow(policy.connect_s + policy.first_byte_s)
        with pool.stream(method, target, headers=list(sent.items()), content=body or None) as response:
            known = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            clock.allow(policy.stall_s)
            yield Answer(url, response.status, known), _timed(response.iter_stream(), clock, policy)
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, ssl.SSLError) as exc:
        raise FetchFailed(f"{host} did not deliver the file ({type(exc).__name__}); check the URL, or try again.") from exc


def _ascii(url: str, host: str) -> bytes:
    parts = urlsplit(url)
    netloc = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        netloc += f":{parts.port}"
    path, query = (quote(part, safe=string.printable) for part in (parts.path or "/", parts.query))  # what is ASCII stays as it is
    return f"{parts.scheme}://{netloc}{path}{'?' + query if query else ''}".encode("ascii")


def _timed(pieces: Iterable[bytes], clock: Clock, policy: FetchPolicy) -> Iterator[bytes]:
    for piece in pieces:
        clock.allow(policy.stall_s)
        yield piece


def _refuse_status(answer: Answer) -> None:
    if answer.status == 200:
        return
    where = _shown(answer.url)
    if answer.status in (408, 425, 429) or answer.status >= 500:
        raise FetchFailed(f"{where} answered {answer.status}; try again later.")
    raise MissingFile(f"{where} answered {answer.status} in place of a file; check that the URL can be opened without signing in.")


def _receive(answer: Answer, pieces: Iterable[bytes], write: Callable[[bytes], object], policy: FetchPolicy, clock: Clock) -> None:
    """Hand the body on, refusing one that is too large, encoded, too slow, or shorter than announced."""
    where = _shown(answer.url)
    if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise MissingFile(f"{where} answers with compressed content, which media need not be; serve the file as it is.")
    declared = answer.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > policy.max_bytes:
        raise _too_large(where, policy)
    started, received = time.monotonic(), 0
    for piece in pieces:
        clock.check()
        received += len(piece)
        if received > policy.max_bytes:
            raise _too_large(where, policy)
        elapsed_s = time.monotonic() - started
        if elapsed_s > policy.stall_s and received < elapsed_s * policy.min_bytes_per_s:
            raise FetchFailed(f"{where} sends less than {policy.min_bytes_per_s} bytes a second; use a faster server, or give the file itself.")
        write(piece)
    if not received:
        raise MissingFile(f"{where} is empty (0 bytes); check the URL.")


def _too_large(where: str, policy: FetchPolicy) -> LimitExceeded:
    return LimitExceeded(f"{where} is larger than {policy.max_bytes} bytes; use a smaller file, or raise LIPSYNC_MAX_UPLOAD_BYTES.")


def _shown(url: str) -> str:
    """Return a URL without its user and its query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).replace("\\", "/").rpartition("/")[2][:200]
