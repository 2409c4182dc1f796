"""A process that works on jobs, for tests that kill it: `python -m tests.jobs_process JSON`, see `tests.jobs.Worker`."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from orchestrator.embedded import open_triton
from orchestrator.jobs import caretaker
from orchestrator.jobs.model import JobSpec
from orchestrator.jobs.service import JobService
from orchestrator.logs import set_up_logging
from orchestrator.settings import Settings


def main() -> None:
    """Submit the specs, and work until SIGTERM."""
    told = json.loads(sys.argv[1])
    if "settled_s" in told:
        caretaker.SETTLED_S = caretaker.ROUND_S = told["settled_s"]
    settings, stopped = Settings.model_validate(told["settings"]), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    set_up_logging("json")
    with open_triton(settings) as client:
        service = JobService(settings, client)
        service.start()
        for key, spec in told["specs"].items():
            service.submit(JobSpec.model_validate(spec), idempotency_key=key)
        print("ready", flush=True)
        while not stopped.wait(0.02):
            pause_where_told(Path(told["pause"]), service)
        service.close(told["grace_s"])


def pause_where_told(told: Path, service: JobService) -> None:
    """Stop this process, once, when a job has as many segments as a file says, if there is one."""
    if told.exists():
        wanted = int(told.read_text())
        if any(len(list(service.storage.segments(view.id).glob("*.mp4"))) >= wanted for view in service.find()):
            told.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    main()
