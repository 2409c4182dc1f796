"""Web servers on this host, for what is fetched and posted."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class _Quiet:
    def log_message(self, *_: Any) -> None:
        """Say nothing about requests."""


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that close the connection."""


@contextmanager
def web_server(handler: type[BaseHTTPRequestHandler], port: int = 0, **options: Any) -> Iterator[str]:
    """Answer requests by a handler, made with some options, and yield the server's URL."""
    quiet = type("Handler", (_Quiet, handler), {})
    server = _QuietServer(("127.0.0.1", port), partial(quiet, **options))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def sharing(folder: Path) -> Iterator[str]:
    """Serve a folder's files and yield its URL."""
    with web_server(SimpleHTTPRequestHandler, directory=str(folder)) as url:
        yield url
