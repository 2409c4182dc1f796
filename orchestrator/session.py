"""The one function that renders, and what a Triton is tested for before a service begins."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.embedded import open_triton, wanted_device
from orchestrator.errors import InferenceError, RenderStalled
from orchestrator.files import scratch_folder
from orchestrator.inference.client import INTERACTIVE, TritonClient
from orchestrator.inference.selftest import await_ready, check_devices, check_ready, self_test
from orchestrator.media.nvdec import chosen_decoder
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.progress import OnProgress
from orchestrator.pipeline.render import render as render_plan
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.speakers import SpeakerAudio
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.watch import Watch
from orchestrator.settings import Settings
from orchestrator.tuned import encoder_threads

log = logging.getLogger("lipsync.session")

ATTEMPTS = 3
"""How often a render is begun that Triton lets down: each goes on from the segments that the one before finished."""

PAUSE_S = 1.0
"""How long a Triton that let a render down is left alone: one that dies takes a moment to be seen as dead."""


def render(
    video: Path,
    audio: Path,
    out: Path,
    *,
    options: RenderOptions | None = None,
    others: Sequence[SpeakerAudio] = (),
    speaker_image: Path | None = None,
    on_progress: OnProgress | None = None,
    settings: Settings | None = None,
) -> RenderReport:
    """Render `video` with lips that follow `audio` into `out`.

    `others` are more speakers, each with a track of his own; then `options`, too, choose theirs by a point. `speaker_image` is a picture of
    the one speaker, in place of what the options choose.

    Starts the embedded Triton for the time of the call unless `settings.triton` names one that runs.

    Raises:
        RenderError: see `orchestrator.errors`. Nothing is left at `out`.
    """
    settings = settings or Settings()
    plan = plan_render(
        video,
        audio,
        out,
        options,
        on_progress,
        others=others,
        speaker_image=speaker_image,
        encoder_threads=encoder_threads(settings),
        decoder=chosen_decoder(settings),
    )
    tracks = TrackCache(settings.data / "tracks", settings.track_cache_bytes)
    with open_triton(settings) as client, scratch_folder(out) as segments:
        check_ready(client)  # a Triton that was never there is not waited for
        check_devices(client, wanted_device(settings))
        attempt = 1
        while True:
            try:
                return render_plan(
                    plan,
                    client.at_priority(INTERACTIVE),
                    on_progress,
                    watch=Watch(settings.stall_s),
                    tracks=tracks,
                    segments=segments,
                    roles=settings.optional_roles,
                )
            except (InferenceError, RenderStalled) as exc:
                if not exc.retryable or attempt == ATTEMPTS:
                    raise
                log.warning("%s The render goes on from its last finished segment when Triton is ready.", exc)
                time.sleep(PAUSE_S)
                await_ready(client, settings.stall_s)
                attempt += 1


def refuse_unfit_models(client: TritonClient, settings: Settings) -> None:
    """Test every role before a service begins. A Triton that is not there yet may come; models that are wrong do not get right by waiting.

    Raises:
        ContractMismatch: a model is not what its role needs, or answers nonsense.
        GpuUnavailable: a model is not on the device it is expected on.
        InferenceRejected: an inference failed.
    """
    try:
        self_test(client, wanted_device(settings))
    except InferenceError as exc:
        if not exc.retryable:
            raise
        log.warning("%s: %s The service is not ready until that changes.", exc.code, exc)
