"""The service as a process of its own, and a receiver of webhooks."""

import io
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import av
import httpx
from sync import Sync

from tests.leash import leashed
from tests.programs import LIPSYNC, free_port, wait_until
from tests.web import web_server

KEY, OTHER_KEY = "key-of-anna-0123456789", "key-of-bob-0123456789"


TROUBLE = ("Exception in ASGI application", "was never retrieved", "without completing response", "a submission failed", "a query failed")
"""What a service's log must not have: errors that nobody has dealt with."""


@dataclass(frozen=True)
class Service:
    """A service that runs."""

    url: str
    process: "subprocess.Popen[str]"
    data: Path
    easy_data: Path
    http: httpx.Client
    """With the key, where there is one."""
    sdk_connections: httpx.Client

    def sdk(self, key: str = KEY) -> Sync:
        """Return the official SDK, set to this service."""
        return Sync(base_url=self.url, api_key=key, timeout=60, httpx_client=self.sdk_connections)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job."""
        answer: dict[str, Any] = self.http.get(f"/v2/generate/{job_id}").json()
        return answer

    def ended(self, job_id: str, timeout_s: float = 90) -> dict[str, Any]:
        """Wait for a job's end."""
        wait_until(lambda: self.job(job_id)["status"] not in ("PENDING", "PROCESSING"), f"job {job_id} has ended", timeout_s)
        return self.job(job_id)


@contextmanager
def serving(triton_address: str, folder: Path, key: str = KEY, **settings: str) -> Iterator[Service]:
    """Run the service on a free port until the block ends."""
    port, data, easy_data = free_port(), folder / "data", folder / "easy"
    easy_data.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIPSYNC_")} | {
        "LIPSYNC_DATA": str(data),
        "LIPSYNC_EASY_DATA": str(easy_data),
        "LIPSYNC_API_KEYS": f"anna:{KEY},bob:{OTHER_KEY}" if key else "",
        "LIPSYNC_FREE_SPACE_FLOOR_BYTES": "0",
        **settings,
    }
    log_path = folder / "service.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            leashed(signal.SIGTERM, LIPSYNC, "serve", "--port", str(port), "--triton", triton_address),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        try:
            headers = {"x-api-key": key} if key else {}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, headers=headers) as http, httpx.Client(timeout=60) as sdk_connections:

                def answers() -> bool:
                    assert process.poll() is None, log_path.read_text()
                    try:
                        return http.get("/healthz").status_code == 200
                    except httpx.TransportError:
                        return False

                wait_until(answers, "the service answers")
                yield Service(str(http.base_url), process, data, easy_data, http, sdk_connections)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=40) == 0, log_path.read_text()
            assert not [line for line in log_path.read_text().splitlines() if any(sign in line for sign in TROUBLE)], log_path.read_text()
        finally:
            process.kill()
            process.wait()


@dataclass
class Receiver:
    """A receiver of webhooks."""

    url: str
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


def secured_paths(service: Service) -> set[str]:
    """Return the paths for which the service's OpenAPI document asks for a key."""
    paths = service.http.get("/openapi.json").json()["paths"]
    return {path for path, operations in paths.items() for operation in operations.values() if "security" in operation}


def frame_count(data: bytes) -> int:
    """Decode a video and count its pictures."""
    with av.open(io.BytesIO(data), "r") as container:
        return len(list(container.decode(video=0)))


@contextmanager
def receiving(port: int = 0, status: int = 200) -> Iterator[Receiver]:
    """Run a receiver of webhooks."""
    receiver = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with web_server(Handler, port) as url:
        receiver.url = url
        yield receiver
