"""The containers as Docker runs them: `make containers`. Builds the images and starts the CPU profile as a project of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from tests.clips import write_speech
from tests.programs import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
API_KEY = "a-key-of-the-tests-only"
SERVICE, TRITON = "orchestrator-cpu", "triton-cpu"

# An image has neither ps nor pkill, and Docker takes a container that it is told to kill for one that shall stay down.
SIGNAL_BY_NAME = """
import os, sys
for process in filter(str.isdigit, os.listdir("/proc")):
    if open(f"/proc/{process}/comm").read().strip() == sys.argv[1]:
        os.kill(int(process), int(sys.argv[2]))
        print(process)
"""


@dataclass(frozen=True)
class Stack:
    """A running project."""

    url: str
    environment: dict[str, str]

    def compose(self, *arguments: str, stdin: str | None = None) -> str:
        command = ["docker", "compose", "--project-name", "lipsync-test", "--profile", "cpu", *arguments]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, service: str, *command: str, stdin: str | None = None) -> str:
        return self.compose("exec", "-T", service, *command, stdin=stdin)

    def health(self) -> dict[str, str]:
        lines = self.compose("ps", "--format", "json").splitlines()
        return {service["Service"]: service["Health"] for service in map(json.loads, lines)}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"x-api-key": API_KEY}, timeout=60)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    address = f"127.0.0.1:{free_port()}"
    made = Stack(f"http://{address}", {**os.environ, "LIPSYNC_LISTEN": address, "LIPSYNC_API_KEYS": f"test:{API_KEY}"})
    made.compose("down", "--volumes")  # what a run that was killed has left
    try:
        made.compose("up", "--detach", "--build", "--wait")
        yield made
    finally:
        made.compose("down", "--volumes")


def submit(client: httpx.Client, clip: Path, speech: Path) -> str:
    with clip.open("rb") as video, speech.open("rb") as audio:
        answer = client.post("/v2/generate", files={"video": video, "audio": audio}, data={"model": "lipsync-2"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def job_of(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Read a job; one that nothing is known of while the service is away."""
    try:
        return dict(client.get(f"/v2/generate/{job_id}").json())
    except httpx.TransportError:
        return {"status": None, "progress": {}}


def test_everything_is_well_after_up(stack: Stack) -> None:
    assert stack.health() == {SERVICE: "healthy", TRITON: "healthy"}
    assert "passed on Triton" in stack.run(SERVICE, "lipsync", "doctor", "--triton", "triton-server:8001")


@pytest.mark.parametrize("service", [SERVICE, TRITON])
def test_a_container_runs_without_privileges(stack: Stack, service: str) -> None:
    status = dict(line.split(":\t", 1) for line in stack.run(service, "cat", "/proc/self/status").splitlines() if ":\t" in line)
    assert status["Uid"].split() == status["Gid"].split() == ["1000"] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")


def test_tensors_travel_in_the_memory_that_the_two_containers_share(stack: Stack) -> None:
    bench = ["lipsync", "bench", "models", "lip_sync", "--shm", "--concurrency", "1", "--batch", "1", "--seconds", "1"]
    assert "lip_sync" in stack.run(SERVICE, *bench, "--triton", "triton-server:8001")


def test_a_video_is_rendered(stack: Stack, clip: Path, speech: Path, tmp_path: Path) -> None:
    with stack.client() as client, clip.open("rb") as video, speech.open("rb") as audio:
        answer = client.post("/render", files={"video": video, "audio": audio})
    assert answer.status_code == 200, answer.text
    result = tmp_path / "result.mp4"
    result.write_bytes(answer.content)
    with av.open(result) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0


@pytest.mark.parametrize(
    ("service", "process", "signal"),
    [(SERVICE, "lipsync", 9), (SERVICE, "tini", 9), (TRITON, "tritonserver", 9), (TRITON, "tritonserver", 19)],
    ids=["the service is killed", "its container is killed", "Triton is killed", "Triton hangs"],
)
def test_a_job_gets_done_although(stack: Stack, clip: Path, tmp_path: Path, service: str, process: str, signal: int) -> None:
    with stack.client() as client:
        job = submit(client, clip, write_speech(tmp_path / "speech.wav", 20))
        wait_until(lambda: job_of(client, job)["progress"].get("stage") == "render", "it renders", timeout_s=120)
        if process == "tini":  # the first process of a container can be killed from without alone
            if os.geteuid():
                pytest.skip("only root can kill the first process of a container")
            [container] = stack.compose("ps", "--quiet", service).split()
            found = subprocess.run(
                ["docker", "inspect", "--format", "{{.State.Pid}}", container], env=stack.environment, capture_output=True, check=True
            )
            os.kill(int(found.stdout), signal)
        else:
            assert stack.run(service, "python3", "-", process, str(signal), stdin=SIGNAL_BY_NAME).strip()
        wait_until(lambda: job_of(client, job)["status"] == "COMPLETED", "the job is done", timeout_s=240)
        assert job_of(client, job)["progress"]["attempts"] == 2
    wait_until(lambda: set(stack.health().values()) == {"healthy"}, "everything is well again", timeout_s=120)
