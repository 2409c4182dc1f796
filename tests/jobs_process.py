"""A process that works on jobs, for tests that kill it: `python -m tests.jobs_process JSON`, see `tests.jobs.Worker`."""

import json
import signal
import sys
import threading

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
        while not stopped.wait(0.2):
            pass
        service.close(told["grace_s"])


if __name__ == "__main__":
    main()
