"""What is settled about a render before its first face is found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.media.audio import Speech
from orchestrator.media.encoders import encoder_version
from orchestrator.media.limits import too_many_frames
from orchestrator.pipeline.analyse import Analysis
from orchestrator.pipeline.models import Models
from orchestrator.pipeline.passages import check_begins_in, speaking_shares, stretches_of, until_last
from orchestrator.pipeline.plan import RenderPlan
from orchestrator.pipeline.segments import SegmentFolder
from orchestrator.pipeline.speech import find_speech, heard_speech
from orchestrator.pipeline.timeline import Stretch, Timeline, lay_out, total_s
from orchestrator.pipeline.watch import Watch
from preprocess.voice import Spans


@dataclass(frozen=True, slots=True)
class Prepared:
    """A render of which everything is known but where the faces are."""

    plan: RenderPlan
    models: Models
    watch: Watch
    shown: Timeline
    stretches: Sequence[Stretch]
    """What of the source it shows how long; none where the whole of it goes by one mode."""
    folder: SegmentFolder
    first: int
    """Its first frame that no earlier attempt had finished."""
    heard: Sequence[Speech]
    """Of each voice, see `heard_speech`."""
    spans: Sequence[Spans | None]
    """When each of them speaks; None where nobody can tell."""
    shares: NDArray[np.float32]
    """(V, N) see `speaking_shares`."""


def prepare(plan: RenderPlan, analysis: Analysis, models: Models, path: Path, watch: Watch) -> Prepared:
    """Lay an output out, open the folder of its segments at `path`, and listen to the speech. Of the analysis, the frames and their times are enough.

    Raises:
        InvalidOption: a segment begins behind the end of the video, or the cross-fade takes more than half of it.
        LimitExceeded: the source or the output has too many frames.
        RenderError: see `SegmentFolder`, `heard_speech` and `find_speech`.
    """
    options, speech_s, stretches = plan.options, plan.speech_s, list[Stretch]()
    if options.segments is not None:
        video_s = analysis.times.duration_s
        if plan.info.is_still:
            video_s = until_last(options.segments)
        for segment in options.segments:
            check_begins_in(segment, video_s)
        stretches = stretches_of(options.segments, plan.said_s, video_s)
        speech_s = min(speech_s, total_s(stretches))
    shown = lay_out(options.mode, options.rate, analysis.times, speech_s, analysis.is_whole, options.loop_crossfade_s, stretches)
    if speech_s < plan.speech_s:
        shown = replace(shown, sound_s=shown.duration_s)
    if max(shown.frame_count, len(analysis.index)) > plan.limits.max_frames:
        raise too_many_frames(shown.frame_count, plan.limits)
    folder = SegmentFolder(path, _fingerprint(plan, shown, models))
    heard = [heard_speech(voice.speech, models.voice_separator, folder.path / f"voice-{index}.wav", watch) for index, voice in enumerate(plan.voices)]
    spans = [find_speech(speech, models.voice_activity, watch) if models.voice_activity else None for speech in heard]
    shares = np.stack([speaking_shares(voice.speech.info, shown) for voice in plan.voices])
    return Prepared(plan, models, watch, shown, stretches, folder, folder.frame_count, heard, spans, shares)


def _fingerprint(plan: RenderPlan, shown: Timeline, models: Models) -> dict[str, Any]:
    """Return everything but the inputs' content that the output's bits depend on: segments of another fingerprint are of no use."""
    return {
        "program": version("lipsync-triton"),
        "encoder": encoder_version(),
        "speakers": [str(voice.choice) for voice in plan.voices[1:]],
        "portrait": None if plan.portrait is None else sha256(plan.portrait.tobytes()).hexdigest(),
        "options": plan.options.model_dump(mode="json"),
        "output": plan.output.description,
        "encoder_threads": plan.output.encoding.resolved_thread_count,
        "frame_count": shown.frame_count,
        "frame_rate": str(shown.clock.frame_rate),
        "timeline": shown.digest(),
        "size_wh": list(plan.info.working_size_wh),
        "models": [description.identity for description in models.descriptions],
    }
