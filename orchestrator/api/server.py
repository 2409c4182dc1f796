"""The HTTP server: uvicorn, which here also gives up on connections that do not get as far as a request."""

import asyncio
import signal
import socket
import threading
from types import FrameType

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_S = 15.0
"""Longest time from a connection, or the first byte of a further request on it, to the end of the request's headers, s."""

MAX_CONNECTIONS = 2000
"""Connections beyond this are answered 503."""

SHUTDOWN_S = 10
"""How long open answers may go on after the service was told to stop, s."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a limit on how long a client may take over its headers."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(HEADER_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_between_requests():
            self._header_timer = self._header_timer or self.loop.call_later(HEADER_S, self._give_up)
        else:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up(self) -> None:
        self._header_timer = None
        if self._is_between_requests() and not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None


class Server(uvicorn.Server):
    """uvicorn that tells endless answers (events, live videos) to end when it is told to stop."""

    def __init__(self, config: uvicorn.Config, stopping: threading.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a second Ctrl-C, at once. uvicorn would raise the signal again in the end, which makes of every stop a failure by its exit status."""
        self._stopping.set()
        self.force_exit |= self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def serve(app: ASGIApp, stopping: threading.Event, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=SHUTDOWN_S,
        h11_max_incomplete_event_size=64 * 1024,
    )
    Server(config, stopping).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket, so that a port that is taken is known before anything is started.

    Raises:
        OSError: it cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(1024)
        listener.set_inheritable(False)
    except OSError:
        listener.close()
        raise
    return listener
