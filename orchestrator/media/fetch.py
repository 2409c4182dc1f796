"""Files from http(s) URLs that strangers name: only addresses that may be reached, and only as much and as long as allowed.

A host name is resolved once per connection, every address it has is checked, and the connection goes to an address that was checked: a name
that resolves to something else a moment later (DNS rebinding) gains nothing. Redirects are followed by hand and checked like the first URL.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import httpcore

from orchestrator.errors import FetchFailed, LimitExceeded, MissingFile, RenderCancelled, UrlRefused

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_REDIRECTS = 5

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched, and how patiently."""

    hosts: Sequence[str] = ()
    """Host names that may be named, `*` as a wildcard; empty: all."""
    networks: Sequence[IpNetwork] = ()
    """Addresses that may be reached although they are not public."""
    max_bytes: int = 4 << 30
    connect_s: float = 10.0
    first_byte_s: float = 30.0
    """Longest wait for the head of the answer, s."""
    stall_s: float = 30.0
    """Longest time without any data, s. Also the time after which `min_bytes_per_s` holds."""
    min_bytes_per_s: int = 4096
    """A download that is slower than this on average is given up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an HTTP answer."""

    url: str
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""


def check_url(url: str, policy: FetchPolicy) -> None:
    """Check what can be seen of a URL without the network: scheme, credentials, host.

    Raises:
        UrlRefused: it must not be fetched.
    """
    _split(url, policy)


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
        is_cancelled: looked at between pieces.

    Returns:
        The file name that the URL ends with, without any folder; "" where it has none.

    Raises:
        UrlRefused: the URL or a redirect leads where it must not.
        MissingFile: the server says that there is no such file, or that it may not be had.
        FetchFailed: the server cannot be reached, fails, or is too slow (retryable).
        LimitExceeded: the file is larger than allowed.
        RenderCancelled: `is_cancelled` returned true.
    """
    with _connections(policy) as (pool, clock):
        for _ in range(MAX_REDIRECTS + 1):
            with _request(pool, clock, "GET", url, {}, b"", policy) as (answer, pieces):
                if answer.status in _REDIRECTS and "location" in answer.headers:
                    url = urljoin(url, answer.headers["location"])
                    continue
                _refuse_status(answer)
                _receive(answer, pieces, write, policy, is_cancelled)
                return _file_name(url)
    raise UrlRefused(f"{_shown(url)} redirects more than {MAX_REDIRECTS} times; give the file's own URL.")


def post(url: str, body: bytes, headers: Mapping[str, str], policy: FetchPolicy) -> int:
    """Send a body to a URL under the same rules and return the HTTP status. A redirect is not followed.

    Raises:
        UrlRefused: the URL leads where it must not.
        FetchFailed: the server cannot be reached or is too slow (retryable).
    """
    with _connections(policy) as (pool, clock), _request(pool, clock, "POST", url, headers, body, policy) as (answer, _):
        return answer.status


def may_reach(address: IpAddress, networks: Iterable[IpNetwork] = ()) -> bool:
    """Tell whether an address is public, or in one of the networks that are allowed besides.

    An IPv4 address inside an IPv6 one (mapped, 6to4, NAT64) is what counts.
    """
    inner = _embedded(address)
    if any(candidate.version == network.version and candidate in network for candidate in (address, inner) for network in networks):
        return True
    return all(candidate.is_global and not candidate.is_multicast for candidate in (address, inner))


def _embedded(address: IpAddress) -> IpAddress:
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _split(url: str, policy: FetchPolicy) -> tuple[str, str, int]:
    """Return a URL's scheme, host and port."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        host = host.encode("idna").decode() if not host.isascii() else host
    except (ValueError, UnicodeError) as exc:
        raise UrlRefused("A URL of the request is malformed; give a complete http or https URL.") from exc
    if parts.scheme not in ("http", "https") or not host:
        raise UrlRefused("Only complete http and https URLs are fetched; give one, or upload the file.")
    if parts.username is not None or parts.password is not None:
        raise UrlRefused(f"The URL on {host} contains a user name or password; give a URL that works without.")
    if not url.isprintable() or " " in url:
        raise UrlRefused(f"The URL on {host} contains characters that must be percent-encoded; encode them.")
    if policy.hosts and not any(fnmatchcase(host.lower(), pattern.lower()) for pattern in policy.hosts):
        raise UrlRefused(f"Files are not fetched from {host}; upload the file, or add the host to LIPSYNC_FETCH_HOSTS.")
    literal = _literal(host)
    if literal is not None and not may_reach(literal, policy.networks):
        raise _not_public(host)
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def _literal(host: str) -> IpAddress | None:
    """Return the address that a host is, None for a name. IPv4 may be written in any way that the system's resolver takes: 127.1, 0x7f000001."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _not_public(host: str) -> UrlRefused:
    return UrlRefused(
        f"The host {host} is not on the public internet, and is not fetched from; upload the file, or add its network to LIPSYNC_FETCH_NETWORKS."
    )


class _Clock:
    """The moment by which the next bytes must be there, set anew for each phase of an exchange."""

    def __init__(self) -> None:
        self._deadline = float("inf")

    def allow(self, seconds: float) -> None:
        """Set the deadline."""
        self._deadline = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the time that is left, s."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the deadline passed")
        return left_s


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were resolved and checked here."""

    def __init__(self, policy: FetchPolicy, clock: _Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        error: Exception | None = None
        for address in _resolve(host, port, self._policy):
            try:
                return _TimedStream(self._sockets.connect_tcp(str(address), port, self._policy.connect_s), self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                error = exc
        raise error or httpcore.ConnectError(f"{host} has no address")

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("sockets of this host are not reached")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _TimedStream(httpcore.NetworkStream):
    """A connection on which a server that sends a byte now and then does not reset the clock."""

    def __init__(self, inner: httpcore.NetworkStream, clock: _Clock) -> None:
        self._inner = inner
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._clock.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._clock.left_s())

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> httpcore.NetworkStream:
        return _TimedStream(self._inner.start_tls(ssl_context, server_hostname, self._clock.left_s()), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _resolve(host: str, port: int, policy: FetchPolicy) -> list[IpAddress]:
    """Return a host's addresses, all of them checked: a name with one address that must not be reached is refused as a whole."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise FetchFailed(f"The host {host} cannot be found; check the URL, or try again.") from exc
    addresses = list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    if not all(may_reach(address, policy.networks) for address in addresses):
        raise _not_public(host)
    return addresses


@contextmanager
def _connections(policy: FetchPolicy) -> Iterator[tuple[httpcore.ConnectionPool, _Clock]]:
    clock = _Clock()
    backend = _CheckedBackend(policy, clock)
    with httpcore.ConnectionPool(ssl_context=ssl.create_default_context(), network_backend=backend, max_keepalive_connections=0) as pool:
        yield pool, clock


@contextmanager
def _request(
    pool: httpcore.ConnectionPool, clock: _Clock, method: str, url: str, headers: Mapping[str, str], body: bytes, policy: FetchPolicy
) -> Iterator[tuple[Answer, Iterable[bytes]]]:
    _, host, _ = _split(url, policy)
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
    path = "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode()) for char in parts.path or "/")
    query = "".join(char if char.isascii() else "".join(f"%{byte:02X}" for byte in char.encode()) for char in parts.query)
    return f"{parts.scheme}://{netloc}{path}{'?' + query if query else ''}".encode("ascii")


def _timed(pieces: Iterable[bytes], clock: _Clock, policy: FetchPolicy) -> Iterator[bytes]:
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


def _receive(
    answer: Answer, pieces: Iterable[bytes], write: Callable[[bytes], object], policy: FetchPolicy, is_cancelled: Callable[[], bool]
) -> None:
    """Hand the body on, refusing one that is too large, encoded, too slow, or shorter than announced."""
    where = _shown(answer.url)
    if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise MissingFile(f"{where} answers with compressed content, which media need not be; serve the file as it is.")
    declared = answer.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > policy.max_bytes:
        raise _too_large(where, policy)
    started, received = time.monotonic(), 0
    for piece in pieces:
        if is_cancelled():
            raise RenderCancelled("The job was cancelled while its input was fetched.")
        received += len(piece)
        if received > policy.max_bytes:
            raise _too_large(where, policy)
        elapsed_s = time.monotonic() - started
        if elapsed_s > policy.stall_s and received < elapsed_s * policy.min_bytes_per_s:
            raise FetchFailed(f"{where} sends less than {policy.min_bytes_per_s} bytes a second; use a faster server, or upload the file.")
        write(piece)
    if not received:
        raise MissingFile(f"{where} is empty (0 bytes); check the URL.")


def _too_large(where: str, policy: FetchPolicy) -> LimitExceeded:
    return LimitExceeded(f"{where} is larger than {policy.max_bytes} bytes; use a smaller file, or raise LIPSYNC_MAX_UPLOAD_BYTES.")


def _shown(url: str) -> str:
    """Return a URL without its query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).replace("\\", "/").rpartition("/")[2][:200]
