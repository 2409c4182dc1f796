"""The Triton of this process, given or embedded; an embedded one is started again when it dies."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial

from deploy.local.gpu import Gpu, GpuError, check_gpu, gpu_expected
from deploy.local.home import TritonHome, open_home
from deploy.local.server import LocalTriton, TritonStartError
from orchestrator.errors import ContractMismatch, GpuUnavailable, InferenceUnavailable, RenderError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.selftest import check_ready
from orchestrator.models import config
from orchestrator.models.repository import missing_roles
from orchestrator.settings import Device, Settings
from orchestrator.tuned import read_tuned

log = logging.getLogger("lipsync.triton")

POLL_S = 0.2
"""How often to look whether Triton still lives, s."""

MIN_BACK_OFF_S, MAX_BACK_OFF_S = 0.5, 30.0
"""Wait before a restart, doubled each time Triton does not live for `STABLE_S`, s."""

STABLE_S = 60.0

PROBE_S = 5.0
"""How often to ask Triton whether it is ready, s."""

HUNG_S = 60.0
"""A Triton that lives but was not ready for this long is ended and started again, s."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How an embedded Triton serves."""

    host: str = "127.0.0.1"
    grpc_port: int = 0
    """0 is a free port, another one at each start; as for the other two."""
    http_port: int = 0
    metrics_port: int = 0
    drain_s: float = 1.0
    """How long requests in flight get to finish when it is stopped, s."""


WITHIN = Serving()
"""For the program that starts it alone."""


class SupervisedTriton:
    """An embedded Triton and its supervisor. `client` stays the same across restarts; while Triton is away its requests fail as unavailable."""

    def __init__(
        self,
        settings: Settings,
        serving: Serving = WITHIN,
        *,
        max_failed_starts: int | None = None,
        on_start: Callable[[LocalTriton], None] = lambda _: None,
        on_log: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start Triton.

        Args:
            settings: which models it serves, and on which device.
            serving: where it listens, and how it ends.
            max_failed_starts: how many restarts in a row may fail before there are no more and `failure` says why; None: any number.
            on_start: called whenever Triton has started.
            on_log: called with what Triton logs while it serves; like `on_start`, by the supervisor's thread after the first start.

        Raises:
            InferenceUnavailable: it does not start.
            GpuUnavailable: a GPU is expected and cannot be used.
            ContractMismatch: the model repository lacks a role.
        """
        self._closed = threading.Event()
        self._start = partial(start_embedded, settings, serving, self._closed.is_set)
        self._max_failed_starts = max_failed_starts
        self._on_start = on_start
        self._on_log = on_log
        self.failure: RenderError | None = None
        self._server: LocalTriton = self._start()
        self.client = TritonClient(
            self._server.grpc_address, settings.request_deadline_s, self._server.metrics_address, settings.transport, is_embedded=True
        )
        self._thread = threading.Thread(target=self._supervise, name="triton-supervisor", daemon=True)
        on_start(self._server)
        self._thread.start()

    def close(self) -> None:
        """Stop the supervisor, a start that is under way included, then Triton."""
        self._closed.set()
        self._thread.join()
        self.client.close()
        self._server.stop()

    def _supervise(self) -> None:
        back_off_s = MIN_BACK_OFF_S
        while not self._closed.is_set():
            started_s = time.monotonic()
            cause = self._wait_for_trouble()
            if cause is None:
                return
            self._pass_log_on()
            log.warning("%s; starting it again", cause)
            self._server.stop()
            back_off_s = MIN_BACK_OFF_S if time.monotonic() - started_s > STABLE_S else min(MAX_BACK_OFF_S, 2 * back_off_s)
            failed_starts = 0
            while not self._closed.wait(back_off_s):
                try:
                    self._server = self._start()
                except RenderError as exc:
                    if self._closed.is_set():
                        return
                    failed_starts += 1
                    if failed_starts == self._max_failed_starts:
                        self.failure = exc
                        return
                    log.error("Triton does not start: %s", exc)
                    back_off_s = min(MAX_BACK_OFF_S, 2 * back_off_s)
                    continue
                self.client.reconnect(self._server.grpc_address, self._server.metrics_address)
                log.info("Triton is back")
                self._on_start(self._server)
                break

    def _wait_for_trouble(self) -> str | None:
        """Return why Triton has to be started again; None when the supervisor is closed."""
        ready_s = probed_s = time.monotonic()
        while not self._closed.is_set():
            self._pass_log_on()
            with suppress(subprocess.TimeoutExpired):
                return f"Triton ended by itself with status {self._server.wait(POLL_S)}"
            if time.monotonic() - probed_s > PROBE_S:
                with suppress(RenderError):
                    check_ready(self.client)
                    ready_s = time.monotonic()
                probed_s = time.monotonic()
                if probed_s - ready_s > HUNG_S:
                    return f"Triton lives but was not ready for {probed_s - ready_s:.0f} s"
        return None

    def _pass_log_on(self) -> None:
        if text := self._server.read_new_log():  # which also keeps the log from growing
            self._on_log(text)


@contextmanager
def open_triton(settings: Settings) -> Iterator[TritonClient]:
    """Connect to the Triton the settings name, or to an embedded one that lives, and is started again, for as long as the block runs.

    Raises:
        InferenceUnavailable: the embedded Triton does not start.
        GpuUnavailable: a GPU is expected and cannot be used.
        ContractMismatch: the model repository lacks a role.
    """
    if settings.triton:
        metrics = metrics_address(settings.triton, settings.triton_metrics)
        with TritonClient(settings.triton, settings.request_deadline_s, metrics, settings.transport) as client:
            yield client
        return
    log.info("Triton is loading the models of %s", settings.model_repository)
    triton = SupervisedTriton(settings)
    try:
        log.info("Triton is ready: gRPC %s, metrics %s", triton.client.address, triton.client.metrics_address)
        yield triton.client
    finally:
        triton.close()


def metrics_address(triton: str, given: str | None) -> str:
    """Return the address of a Triton's metrics: what is given, else Triton's usual port on the host of its gRPC address."""
    return given or f"{triton.rpartition(':')[0]}:8002"


def start_embedded(settings: Settings, serving: Serving = WITHIN, is_given_up: Callable[[], bool] = lambda: False) -> LocalTriton:
    """Start the embedded Triton on the settings' models and device, unless nobody waits for it any more.

    Raises:
        InferenceUnavailable: it does not start.
        GpuUnavailable: a GPU is expected and cannot be used.
        ContractMismatch: the model repository lacks a role.
    """
    check_repository(settings)
    config_name = device_config(settings)
    try:
        return LocalTriton.start(settings.triton_home, settings.model_repository, config_name=config_name, is_given_up=is_given_up, **asdict(serving))
    except TritonStartError as exc:
        kind = InferenceUnavailable if config_name == "cpu" else GpuUnavailable
        raise kind(f"The embedded Triton did not start. {exc}") from exc
    except OSError as exc:
        raise InferenceUnavailable(
            f"The embedded Triton did not start: the system refused it a process or a file ({exc.strerror}); look at memory, open files and "
            "disk space."
        ) from exc


def check_repository(settings: Settings) -> None:
    """Check that the model repository has every role.

    Raises:
        ContractMismatch: it lacks one.
    """
    missing = missing_roles(settings.model_repository)
    if missing:
        raise ContractMismatch(
            f"The model repository {settings.model_repository} has no {' and no '.join(missing)}; run `lipsync models install`, or set "
            "LIPSYNC_MODEL_REPOSITORY to the folder that has them."
        )


def device_config(settings: Settings) -> str | None:
    """Return the name of the model configurations for the settings' device: None for `config.pbtxt`, which asks for GPUs.

    Raises:
        GpuUnavailable: the GPU that is asked for, or that shows on this machine, cannot be used.
    """
    device = embedded_device(settings)
    home = open_home(settings.triton_home)
    if device != "cpu" and home is not None:  # without one there is nothing to check, and starting Triton says so
        usable_gpus(settings, home)
    return None if device == "gpu" else device


def embedded_device(settings: Settings) -> config.Device:
    """Return where the embedded Triton runs models: where the settings say, else on a GPU if one shows, as `lipsync tune` chose."""
    if settings.device != "auto":
        return settings.device
    if gpu_expected() is None:
        return "cpu"
    tuned = read_tuned(settings.data)
    return "tensorrt" if tuned is not None and tuned.device == "tensorrt" else "gpu"


def wanted_device(settings: Settings) -> Device:
    """Return where the models have to be found: on the embedded Triton where it was told to run them, on another where the settings say."""
    return settings.device if settings.triton else embedded_device(settings)


def usable_gpus(settings: Settings, home: TritonHome) -> list[Gpu]:
    """Return the GPUs that the embedded Triton can run models on.

    Raises:
        GpuUnavailable: it can on none; the message has the cause, and why a GPU, or TensorRT, is expected where nobody asked for it.
    """
    with_tensorrt = embedded_device(settings) == "tensorrt"
    try:
        return check_gpu(home.python, home.environment(), tensorrt=with_tensorrt)
    except GpuError as exc:
        reasons = ""
        if settings.device == "auto":
            reasons = f" A GPU is expected here because of {gpu_expected()}."
            if with_tensorrt:
                reasons += " TensorRT is what `lipsync tune` chose; run that again, or set LIPSYNC_DEVICE=gpu."
        raise GpuUnavailable(f"{exc}{reasons}") from exc
