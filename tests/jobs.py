"""Services that work on jobs, in this process and in processes that are killed."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil

from orchestrator.inference.client import TritonClient
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.model import JobSpec, JobView
from orchestrator.jobs.service import JobService
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.settings import Settings
from tests.leash import leashed
from tests.programs import wait_until


@contextmanager
def working(settings: Settings, client: TritonClient, hooks: Hooks | None = None) -> Iterator[JobService]:
    service = JobService(settings, client, hooks)
    service.start()
    try:
        yield service
    finally:
        service.close(6)


def options(data: Path, **more: Any) -> Settings:
    return Settings.model_validate({"data": data, "free_space_floor_bytes": 0, "device": "cpu", **more})


def wait_for(service: JobService, job_id: str, condition: Callable[[JobView], bool], timeout_s: float = 300) -> JobView:
    deadline, seen = time.monotonic() + timeout_s, -1
    while True:
        seen, view = service.wait_change(job_id, seen, 5)
        if condition(view):
            return view
        assert time.monotonic() < deadline and (view.state not in ("completed", "failed", "cancelled")), f"never: {view}"


def is_over(view: JobView) -> bool:
    return view.state in ("completed", "failed", "cancelled")


_EXPECTED: dict[str, bytes] = {}


def expected(spec: JobSpec, client: TritonClient, out: Path) -> bytes:
    """Return what an undisturbed render of a spec gives; several tests ask for the same."""
    key = JobSpec(video=spec.video, audio=spec.audio, options=spec.options).model_dump_json()
    if key not in _EXPECTED:
        render(plan_render(Path(spec.video), Path(spec.audio), out, spec.options), client)
        _EXPECTED[key] = out.read_bytes()
    return _EXPECTED[key]


def busy_threads() -> list[str]:
    """Return the names of the threads that work on a render."""
    return [thread.name for thread in threading.enumerate() if any(part in thread.name for part in ("decode", "paste", "segment"))]


class Worker:
    """A process that works on jobs, and this process's look into its database."""

    def __init__(self, settings: Mapping[str, Any], specs: Mapping[str, JobSpec], settled_s: float | None = None) -> None:
        self.settings = options(Path(settings["data"]), **{key: value for key, value in settings.items() if key != "data"})
        self._pause = Path(settings["data"]).with_suffix(".pause")
        self._told = {
            "pause": str(self._pause),
            "settings": {**settings, "free_space_floor_bytes": 0, "device": "cpu"},
            "specs": {key: spec.model_dump(mode="json") for key, spec in specs.items()},
            "grace_s": 6,
            **({} if settled_s is None else {"settled_s": settled_s}),
        }
        self._client = TritonClient("127.0.0.1:1")
        self.view = JobService(self.settings, self._client)
        self.process: subprocess.Popen[str] | None = None
        self._log = Path(settings["data"]).with_suffix(".log")

    def start(self) -> "subprocess.Popen[str]":
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                leashed(signal.SIGTERM, sys.executable, "-m", "tests.jobs_process", json.dumps(self._told)),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.log()
        return self.process

    def pause_at(self, segment_count: int) -> None:
        """Have the process stop, as by SIGSTOP, once a job has so many segments: what is done to it then is done in mid-work, however slow we are."""
        whole = self._pause.with_suffix(".partial")
        whole.write_text(str(segment_count))
        whole.replace(self._pause)

    def wait_until_paused(self) -> None:
        """Wait until it has stopped."""
        assert self.process is not None
        process = psutil.Process(self.process.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, f"the process stops\n{self.log()}", timeout_s=300)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal that ends the process, stopped or not, and return its status."""
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(number)
        self.resume()
        status = self.process.wait(60)
        self.process.stdout.close()
        self.process = None
        return status

    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        self.view.close(0)
        self._client.close()


@contextmanager
def worker(settings: Mapping[str, Any], specs: Mapping[str, JobSpec], settled_s: float | None = None) -> Iterator[Worker]:
    with closing(Worker(settings, specs, settled_s)) as made:
        yield made


def only_job(worker: Worker) -> JobView:
    (job,) = worker.view.find()
    return job
