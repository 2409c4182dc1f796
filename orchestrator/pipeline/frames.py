"""The output's frames, rendered: from faces cut out to pictures with their mouths in place."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.lip_model import LipModel
from orchestrator.media.reader import VideoReader, stream_colour
from orchestrator.pipeline.analyse import Analysis
from orchestrator.pipeline.concurrency import batched, in_flight, prefetch
from orchestrator.pipeline.enhance import enhanced
from orchestrator.pipeline.occlusion import unoccluded
from orchestrator.pipeline.output_frames import CroppedFrame, Shown, crop_frames
from orchestrator.pipeline.patches import ask_for_patches, put_patch
from orchestrator.pipeline.prepare import Prepared
from orchestrator.pipeline.seam import faded
from orchestrator.pipeline.speech import Windows, speech_windows

REQUESTS_IN_FLIGHT = 3
"""Lip model requests awaited at a time: one computing, one queued in Triton, one on its way."""

GROUPS_UNDER_WAY = REQUESTS_IN_FLIGHT + 2
"""Groups of frames that are held at a time: those awaited, one that waits to be sent, and one that is being decoded."""

CPU_FRAMES_BYTES, GPU_FRAMES_BYTES = 36 << 20, 512 << 20
"""Memory of the frames under way. A model on a CPU gains nothing by large batches, and its host's memory is better spent on more jobs; one on a
GPU is only kept busy by large batches, several of them waiting."""


def render_frames(prepared: Prepared, analysis: Analysis, places: NDArray[np.int64]) -> Generator[Shown]:
    """Yield the output's frames at (n,) rising `places`.

    Decoding and cropping run ahead in a thread of their own while Triton works on earlier batches; another puts the mouths in place while the
    consumer encodes; the number of frames under way is bounded.
    """
    plan, models, watch = prepared.plan, prepared.models, prepared.watch
    colour = stream_colour(plan.info)
    with ExitStack() as opened:
        windows = [
            opened.enter_context(speech_windows(speech, models.lip_model, said, plan.options.temperature))
            for speech, said in zip(prepared.heard, prepared.spans, strict=True)
        ]
        frames = prefetch(_with_mouths(prepared, analysis, windows, places), 1, "render-paste", watch)
        if models.enhancer is not None:
            frames = enhanced(frames, models.enhancer, colour, watch)
        for frame in opened.enter_context(closing(faded(frames))):
            yield frame
            watch.tick()


def _with_mouths(prepared: Prepared, analysis: Analysis, windows: Sequence[Windows], places: NDArray[np.int64]) -> Generator[Shown]:
    info, models, watch = prepared.plan.info, prepared.models, prepared.watch
    colour, lip_model = stream_colour(info), models.lip_model
    with VideoReader(info, watch.tick) as reader:
        group_size = frames_in_group(info.frame_bytes, lip_model)
        frames = crop_frames(reader, prepared, analysis, windows, places)
        if models.occluder is not None:
            frames = unoccluded(frames, models.occluder, lip_model.size_px, group_size, colour, watch)
        batches = batched(frames, lambda cropped: len(cropped.speaking), group_size)
        groups = prefetch(batches, 1, "render-decode", watch)
        with closing(groups), closing(in_flight(lambda batch: _generate(lip_model, batch), groups, REQUESTS_IN_FLIGHT, watch)) as results:
            for batch, mouths in results:
                patches = chain.from_iterable(mouths)
                for cropped in batch:
                    changed = [
                        put_patch(cropped.frame.picture, one.face_crop, next(patches), one.face.mask, colour, cropped.frame.index, one.face.visible)
                        for one in cropped.speaking
                    ]
                    faces = tuple(one.face for one in cropped.speaking)
                    yield Shown(cropped.index, cropped.frame.index, cropped.frame.picture, any(changed), faces, cropped.weight)


def frames_in_group(frame_bytes: int, lip_model: LipModel) -> int:
    """Return how many frames go together: the model's largest request, or as many as the memory for frames under way allows."""
    budget = GPU_FRAMES_BYTES if "KIND_GPU" in lip_model.description.instance_kinds else CPU_FRAMES_BYTES
    return max(1, min(lip_model.batch_size, budget // (GROUPS_UNDER_WAY * frame_bytes)))


def _generate(lip_model: LipModel, batch: list[CroppedFrame]) -> Future[list[NDArray[np.uint8]]]:
    """Ask for the mouths of a batch's faces, in order."""
    speaking = [one for cropped in batch for one in cropped.speaking]
    return ask_for_patches(
        [(one.face_crop.image, one.speech_window) for one in speaking],
        lambda part: lip_model.generate([image for image, _ in part], [window for _, window in part]),
        lip_model.batch_size,
    )
