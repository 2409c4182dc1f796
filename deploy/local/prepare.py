"""What comes before a Triton: checks whose failure Triton would report less clearly, its ports, and its command line."""

import math
import random
import shlex
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local import guard
from deploy.local.home import TritonHome, open_home

PORT_RANGE = range(20000, 30000)
"""Where free ports are picked: below those Linux hands out for outgoing connections, so that none is lost while models load."""

SHARED_MEMORY_MINIMUM_BYTES = 64 << 20
"""Docker's default /dev/shm. Batches of 16 crops of 256 px and of 8 images of 640 px, with four clients, took 44 MiB."""


INSTANCE_MEMORY_BYTES, ROOMY_INSTANCE_MEMORY_BYTES = 8 << 20, 16 << 20
"""Shared memory each model instance begins with, the second where /dev/shm has `ROOMY_BYTES`; Triton's default is 1 MiB. It grows by itself, but a
stub was twice seen to crash at the edge of a region that had just grown. The first holds what the models that come with the project need on a
CPU, the second a batch of 32 crops of 256 px."""

ROOMY_BYTES = 512 << 20

GPU_METRICS_MS = 500
"""How often Triton reads the GPUs' utilisation; at its default, 2 s, a self-test would be over before it shows."""

UNLOAD_S = 5
"""What Triton gets, beyond the drain time, to end by itself when its guard was killed; measured 4 s. The guard does not wait for it."""


class TritonStartError(RuntimeError):
    """Triton did not come up; the message says why and what to do, and how its log ends."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The three ports of a server; 0 where a free one is to be picked."""

    grpc: int
    http: int
    metrics: int


def check_before_start(home: Path, model_repository: Path) -> TritonHome:
    """Find out what would end in a message of Triton's that says less."""
    triton = open_home(home)
    if triton is None:
        raise TritonStartError(f"There is no Triton in {home}: run `python -m deploy.local.install --home {shlex.quote(str(home))}`.")
    if not model_repository.is_dir():
        raise TritonStartError(f"There is no model repository at {model_repository}: create it, or name another folder.")
    for what, folder in (("model repository", model_repository), ("Triton home", home)):
        path = str(folder.absolute())
        if shlex.quote(path) != path:  # Triton hands it to a shell, and to a Python that may take ASCII alone
            raise TritonStartError(f"Triton cannot use the path {path}: move the {what} to one without spaces, quotes or letters beyond ASCII.")
    if (free_bytes := shutil.disk_usage(guard.REGIONS).free) < SHARED_MEMORY_MINIMUM_BYTES:
        raise TritonStartError(
            f"{guard.REGIONS} has {free_bytes >> 20} MiB free and Triton needs {SHARED_MEMORY_MINIMUM_BYTES >> 20}: "
            "free some, or start the container with --shm-size=1g."
        )
    return triton


def make_command(
    triton: TritonHome,
    model_repository: Path,
    config_name: str | None,
    host: str,
    ports: Ports,
    prefix: str,
    drain_s: float,
    extra_args: Sequence[str],
) -> list[str]:
    """Make Triton's command line.

    Completing configurations is switched off: ours are complete, and it would start an extra process per model, 1.3 s together.
    """
    is_roomy = shutil.disk_usage(guard.REGIONS).free >= ROOMY_BYTES
    return [
        str(triton.tritonserver),
        f"--id={prefix}",
        f"--model-repository={model_repository.absolute()}",
        f"--backend-directory={triton.backends}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        f"--backend-config=python,shm-default-byte-size={ROOMY_INSTANCE_MEMORY_BYTES if is_roomy else INSTANCE_MEMORY_BYTES}",
        "--disable-auto-complete-config",
        f"--metrics-interval-ms={GPU_METRICS_MS}",
        *(["--model-load-thread-count=1"] if config_name == "tensorrt" else []),  # engines built side by side crash ONNX Runtime (#20089)
        *([f"--model-config-name={config_name}"] if config_name else []),
        f"--grpc-address={host}",
        f"--grpc-port={ports.grpc}",
        f"--http-address={host}",
        f"--http-port={ports.http}",
        f"--metrics-address={host}",
        f"--metrics-port={ports.metrics}",
        f"--exit-timeout-secs={math.ceil(drain_s) + UNLOAD_S}",
        *extra_args,
    ]


def choose_ports(host: str, wanted: Ports) -> Ports:
    """Pick what is 0 and check what is not.

    Raises:
        TritonStartError: nobody can listen on the host, or a wanted port is taken.
    """
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except (OSError, UnicodeError) as exc:
            raise TritonStartError(f"Triton cannot listen on {host!r} ({exc}): give an IPv4 address of this machine, as 127.0.0.1.") from exc
    chosen: list[int] = []
    for port in (wanted.grpc, wanted.http, wanted.metrics):
        if port and not _is_free(host, port):
            raise TritonStartError(
                f"Port {port} on {host} is taken: stop the program that listens there, or choose another port (0 picks a free one)."
            )
        candidates = (candidate for candidate in random.sample(PORT_RANGE, len(PORT_RANGE)) if candidate not in chosen and _is_free(host, candidate))
        chosen.append(port or next(candidates))
    return Ports(*chosen)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Triton does; a port lately closed is free
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
