"""A Triton for this process, given or embedded, and the one function that renders with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.server import LocalTriton, TritonStartError
from orchestrator.errors import ContractMismatch, InferenceUnavailable
from orchestrator.inference.client import TritonClient
from orchestrator.media.writer import Encoding
from orchestrator.models.repository import missing_roles
from orchestrator.pipeline.progress import OnProgress
from orchestrator.pipeline.render import plan_render
from orchestrator.pipeline.render import render as render_plan
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.timeline import SyncMode
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.settings import Settings


def render(
    video: Path,
    audio: Path,
    out: Path,
    *,
    encoding: Encoding | None = None,
    sync_mode: SyncMode = "bounce",
    on_progress: OnProgress | None = None,
    settings: Settings | None = None,
) -> RenderReport:
    """Render `video` with lips that follow `audio` into the MP4 `out`.

    Starts the embedded Triton for the time of the call unless `settings.triton` names one that runs.

    Raises:
        RenderError: see `orchestrator.errors`. Nothing is left at `out`.
    """
    settings = settings or Settings()
    plan = plan_render(video, audio, out, on_progress, sync_mode=sync_mode)
    with open_triton(settings) as client:
        return render_plan(plan, client, encoding, on_progress, tracks=TrackCache(settings.data / "tracks", settings.track_cache_bytes))


@contextmanager
def open_triton(settings: Settings) -> Iterator[TritonClient]:
    """Connect to the Triton the settings name, or to an embedded one that lives as long as the block.

    Raises:
        InferenceUnavailable: the embedded Triton does not start.
        ContractMismatch: the model repository lacks a role.
    """
    if settings.triton:
        with TritonClient(settings.triton, settings.request_deadline_s) as client:
            yield client
        return
    with start_embedded(settings) as server, TritonClient(server.grpc_address, settings.request_deadline_s) as client:
        yield client


def start_embedded(settings: Settings) -> LocalTriton:
    """Start the embedded Triton on the settings' models and device.

    Raises:
        InferenceUnavailable: it does not start.
        ContractMismatch: the model repository lacks a role.
    """
    check_repository(settings)
    try:
        return LocalTriton.start(settings.triton_home, settings.model_repository, config_name=device_config(settings))
    except TritonStartError as exc:
        raise InferenceUnavailable(f"The embedded Triton did not start. {exc}") from exc


def check_repository(settings: Settings) -> None:
    """Check that the model repository has every role.

    Raises:
        ContractMismatch: it lacks one.
    """
    missing = missing_roles(settings.model_repository)
    if missing:
        raise ContractMismatch(f"The model repository {settings.model_repository} has no {' and no '.join(missing)}; run `lipsync models install`.")


def device_config(settings: Settings) -> str | None:
    """Return the name of the model configurations to use: None for `config.pbtxt`, which asks for GPUs."""
    if settings.device == "auto":
        return None if Path("/dev/nvidiactl").exists() else "cpu"
    return None if settings.device == "gpu" else "cpu"
