"""A Triton for this process, given or embedded, and the one function that renders with it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.gpu import GpuError, check_gpu, gpu_expected
from deploy.local.home import open_home
from deploy.local.server import LocalTriton, TritonStartError
from orchestrator.errors import ContractMismatch, GpuUnavailable, InferenceError, InferenceUnavailable
from orchestrator.inference.client import INTERACTIVE, TritonClient
from orchestrator.inference.selftest import self_test
from orchestrator.models.repository import missing_roles
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.progress import OnProgress
from orchestrator.pipeline.render import render as render_plan
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.speakers import SpeakerAudio
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.settings import Settings

log = logging.getLogger("lipsync.session")


def render(
    video: Path,
    audio: Path,
    out: Path,
    *,
    options: RenderOptions | None = None,
    others: Sequence[SpeakerAudio] = (),
    on_progress: OnProgress | None = None,
    settings: Settings | None = None,
) -> RenderReport:
    """Render `video` with lips that follow `audio` into the MP4 `out`.

    `others` are more speakers, each with a track of his own; then `options`, too, choose theirs by a point.

    Starts the embedded Triton for the time of the call unless `settings.triton` names one that runs.

    Raises:
        RenderError: see `orchestrator.errors`. Nothing is left at `out`.
    """
    settings = settings or Settings()
    plan = plan_render(video, audio, out, options, on_progress, others=others)
    with open_triton(settings) as client:
        return render_plan(
            plan,
            client.at_priority(INTERACTIVE),
            on_progress,
            tracks=TrackCache(settings.data / "tracks", settings.track_cache_bytes),
            roles=settings.optional_roles,
        )


@contextmanager
def open_triton(settings: Settings) -> Iterator[TritonClient]:
    """Connect to the Triton the settings name, or to an embedded one that lives as long as the block.

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
    with (
        start_embedded(settings) as server,
        TritonClient(server.grpc_address, settings.request_deadline_s, server.metrics_address, settings.transport) as client,
    ):
        yield client


def refuse_unfit_models(client: TritonClient, settings: Settings) -> None:
    """Test every role before a service begins. A Triton that is not there yet may come; models that are wrong do not get right by waiting.

    Raises:
        ContractMismatch: a model is not what its role needs, or answers nonsense.
        GpuUnavailable: a model is not on the device it is expected on.
        InferenceRejected: an inference failed.
    """
    try:
        self_test(client, settings.device)
    except InferenceError as exc:
        if not exc.retryable:
            raise
        log.warning("%s: %s The service is not ready until that changes.", exc.code, exc)


def metrics_address(triton: str, given: str | None) -> str:
    """Return the address of a Triton's metrics: what is given, else Triton's usual port on the host of its gRPC address."""
    return given or f"{triton.rpartition(':')[0]}:8002"


def start_embedded(settings: Settings) -> LocalTriton:
    """Start the embedded Triton on the settings' models and device.

    Raises:
        InferenceUnavailable: it does not start.
        GpuUnavailable: a GPU is expected and cannot be used.
        ContractMismatch: the model repository lacks a role.
    """
    check_repository(settings)
    config_name = device_config(settings)
    try:
        return LocalTriton.start(settings.triton_home, settings.model_repository, config_name=config_name)
    except TritonStartError as exc:
        kind = InferenceUnavailable if config_name == "cpu" else GpuUnavailable
        raise kind(f"The embedded Triton did not start. {exc}") from exc


def check_repository(settings: Settings) -> None:
    """Check that the model repository has every role.

    Raises:
        ContractMismatch: it lacks one.
    """
    missing = missing_roles(settings.model_repository)
    if missing:
        raise ContractMismatch(f"The model repository {settings.model_repository} has no {' and no '.join(missing)}; run `lipsync models install`.")


def device_config(settings: Settings) -> str | None:
    """Return the name of the model configurations for the settings' device: None for `config.pbtxt`, which asks for GPUs.

    Raises:
        GpuUnavailable: the GPU that is asked for, or that shows on this machine, cannot be used.
    """
    if settings.device == "cpu":
        return "cpu"
    sign = gpu_expected()
    if settings.device == "auto" and sign is None:
        return "cpu"
    home = open_home(settings.triton_home)
    if home is not None:  # without one there is nothing to check, and starting Triton says so
        try:
            check_gpu(home.python, home.environment(), tensorrt=settings.device == "tensorrt")
        except GpuError as exc:
            expected = f" A GPU is expected here because of {sign}." if settings.device == "auto" else ""
            raise GpuUnavailable(f"{exc}{expected}") from exc
    return "tensorrt" if settings.device == "tensorrt" else None
