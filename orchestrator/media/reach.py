"""Which addresses may be reached when strangers name the URL, and connections that go nowhere else.

A host name is resolved once per connection, every address it has is checked, and the connection goes to an address that was checked: a name
that resolves to something else a moment later (DNS rebinding) gains nothing.
"""

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import httpcore

from orchestrator.errors import FetchFailed, RenderCancelled, UrlRefused

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

POLL_S = 0.5
"""How often who waits for a server looks whether the answer is still wanted, s."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_PUBLIC6 = ipaddress.IPv6Network("2000::/3")
"""Of all IPv6 addresses, those that are given out to the public (RFC 4291, 2.4): neither IPv4-compatible nor site-local ones are."""


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


def is_url(source: str) -> bool:
    """Tell whether an input is a URL and not a path."""
    return source.lower().startswith(("http://", "https://"))


def check_url(url: str, policy: FetchPolicy) -> None:
    """Check what can be seen of a URL without the network: scheme, credentials, host.

    Raises:
        UrlRefused: it must not be fetched.
    """
    host_of(url, policy)


def host_of(url: str, policy: FetchPolicy) -> str:
    """Return a URL's host, checked.

    Raises:
        UrlRefused: it must not be fetched.
    """
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port  # looking at the port checks it
        host = host.encode("idna").decode() if not host.isascii() else host
    except (ValueError, UnicodeError) as exc:
        raise UrlRefused("A URL of the request is malformed; give a complete http or https URL.") from exc
    if parts.scheme not in ("http", "https") or not host:
        raise UrlRefused("Only complete http and https URLs are fetched; give one, or give the file itself.")
    if parts.username is not None or parts.password is not None:
        raise UrlRefused(f"The URL on {host} contains a user name or password; give a URL that works without.")
    if not url.isprintable() or " " in url:
        raise UrlRefused(f"The URL on {host} contains characters that must be percent-encoded; encode them.")
    if policy.hosts and not any(fnmatchcase(host.lower(), pattern.lower()) for pattern in policy.hosts):
        raise UrlRefused(f"Files are not fetched from {host}; give the file itself, or add the host to LIPSYNC_FETCH_HOSTS.")
    literal = _literal(host)
    if literal is not None and not may_reach(literal, policy.networks):
        raise _not_public(host)
    return host


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
        f"The host {host} is not on the public internet, and is not fetched from; give the file itself, or add its network to LIPSYNC_FETCH_NETWORKS."
    )


def may_reach(address: IpAddress, networks: Iterable[IpNetwork] = ()) -> bool:
    """Tell whether an address is public, or in one of the networks that are allowed besides.

    An IPv4 address inside an IPv6 one (mapped, 6to4, NAT64) is what counts.
    """
    inner = _embedded(address)
    if any(candidate.version == network.version and candidate in network for candidate in (address, inner) for network in networks):
        return True
    return all(candidate.is_global and not candidate.is_multicast for candidate in (address, inner)) and (inner.version == 4 or inner in _PUBLIC6)


def _embedded(address: IpAddress) -> IpAddress:
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


class Clock:
    """The moment by which the next bytes must be there, set anew for each phase of an exchange."""

    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        self._deadline = float("inf")
        self._is_cancelled = is_cancelled

    def allow(self, seconds: float) -> None:
        """Set the deadline."""
        self._deadline = time.monotonic() + seconds

    def left_s(self) -> float:
        """Return the time that is left, s."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout("the deadline passed")
        return left_s

    def check(self) -> None:
        """Look whether the exchange is still wanted.

        Raises:
            RenderCancelled: it is not.
        """
        if self._is_cancelled():
            raise RenderCancelled("It was cancelled while a file was fetched.")


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were resolved and checked here."""

    def __init__(self, policy: FetchPolicy, clock: Clock) -> None:
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

    def __init__(self, inner: httpcore.NetworkStream, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            left_s = self._clock.left_s()
            try:
                return self._inner.read(max_bytes, min(POLL_S, left_s))
            except httpcore.ReadTimeout:
                self._clock.check()

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
def connections(policy: FetchPolicy, is_cancelled: Callable[[], bool]) -> Iterator[tuple[httpcore.ConnectionPool, Clock]]:
    """Give connections to checked addresses, and the clock that they go by."""
    clock = Clock(is_cancelled)
    backend = _CheckedBackend(policy, clock)
    with httpcore.ConnectionPool(ssl_context=ssl.create_default_context(), network_backend=backend, max_keepalive_connections=0) as pool:
        yield pool, clock
