"""The health check of Triton's container: ends with status 0 if Triton can work, else 1 and why. It kills a Triton that only a restart helps.

Triton goes on saying that it is ready when its GPU's CUDA context is lost (an Xid error, an illegal memory access), though from then on every
request fails until the process ends; and Docker starts a container again when its process has ended, not when it is unhealthy. So on a GPU each
check infers something: zeros, which every lip model takes.

It runs in Triton's own image, with the standard library alone.
"""

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

TRITON, PROGRAM = "http://127.0.0.1:8000", "tritonserver"

MODEL = "lip_sync"
"""Of the trial. The context belongs to the process, so one model tells for all."""

TRIAL_S = 1.0
"""How long one inference may take, s: where the queue is longer it tells nothing, and requests are answered."""

HANGS_S = 50.0
"""A Triton that does not answer for this long hangs, s. While it loads its models it refuses connections, which is no hanging."""

ELEMENT_BYTES = {"UINT8": 1, "FP32": 4}
"""Of what lip models take."""


def main() -> None:
    """Run `triton_healthcheck.py TRIALS [TRITON PROGRAM]`: the number of inferences, and where Triton is other than in this image."""
    trials, triton, program = [*sys.argv[1:], *(TRITON, PROGRAM)[len(sys.argv) - 2 :]]
    try:
        ask(f"{triton}/v2/health/ready", HANGS_S)
        reason = trial(triton, int(trials)) if int(trials) else None
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url} answers {error.code}")
    except TimeoutError:
        reason = f"Triton has not answered for {HANGS_S:.0f} s"
    except OSError as error:
        sys.exit(f"Triton does not answer: {error}")
    if reason is not None:
        kill(program)
        sys.exit(f"{reason}; it was killed, to be started again")


def trial(triton: str, count: int) -> str | None:
    """Return how the lip model fails on zeros in one of so many inferences; None if it does not, or nobody can tell.

    Raises:
        OSError: Triton is gone.
    """
    try:
        request = zeros(json.loads(ask(f"{triton}/v2/models/{MODEL}/config", TRIAL_S)))
        for _ in range(count):
            ask(f"{triton}/v2/models/{MODEL}/infer", TRIAL_S, *request)
    except TimeoutError:
        return None
    except urllib.error.HTTPError as error:
        if error.code == 500:  # a full queue, for one, is 503
            return f"{MODEL} fails on zeros: {error.read(2000).decode(errors='replace')}"
    return None


def zeros(config: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return a request of one item in Triton's binary form, and its headers."""
    inputs, size_bytes = [], 0
    for tensor in config["input"]:
        shape, kind = [1, *(int(size) for size in tensor["dims"])], tensor["data_type"].removeprefix("TYPE_")
        own_bytes = prod(shape) * ELEMENT_BYTES[kind]
        inputs.append({"name": tensor["name"], "shape": shape, "datatype": kind, "parameters": {"binary_data_size": own_bytes}})
        size_bytes += own_bytes
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return header + bytes(size_bytes), {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}


def ask(url: str, timeout_s: float, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """Return what a URL answers; with a body it is posted.

    Raises:
        TimeoutError: there is no answer in time.
        OSError: there is none at all, or an error's status.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # Triton is in this container, whatever proxy the host uses
    with opener.open(urllib.request.Request(url, body, headers or {}), timeout=timeout_s) as response:
        return bytes(response.read())


def kill(program: str) -> None:
    """Kill a program's processes: one whose GPU is lost may not get to its own end."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == program:
                os.kill(int(folder.name), signal.SIGKILL)


if __name__ == "__main__":
    main()
