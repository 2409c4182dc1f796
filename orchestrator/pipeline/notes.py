"""What a user should know about how the source was treated, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.contract import FACE_EMBEDDER
from orchestrator.media.audio import AudioInfo
from orchestrator.media.probe import VideoInfo
from orchestrator.pipeline.analyse import Analysis
from orchestrator.pipeline.models import PACKS_WITHOUT_FILE, Models
from orchestrator.pipeline.plan import RenderPlan
from orchestrator.pipeline.prepare import Prepared
from orchestrator.pipeline.timeline import Timeline
from preprocess.pose import Presence
from preprocess.speaker import FaceAt
from preprocess.voice import Spans

LEAST_CUT_S = 0.05
"""Less than this is not worth a note, s."""


_LEFT_ALONE = {
    Presence.NO_FACE.name.lower(): "no face is seen",
    Presence.PROFILE.name.lower(): "the face is turned too far to a side",
    Presence.TOO_SMALL.name.lower(): "the face is too small",
}
"""Why a face's lips stay as they are, by the report's reasons."""


def render_notes(prepared: Prepared, analysis: Analysis, because: Mapping[str, Sequence[tuple[int, int]]]) -> tuple[str, ...]:
    """Return the notes of a render; `because` are the output frames that are the source's own, see `RenderReport.passed_through_because`."""
    plan, models, shown, spans = prepared.plan, prepared.models, prepared.shown, prepared.spans
    return (
        *_time_notes(analysis, shown),
        *_picture_notes(plan.info),
        *_speaker_notes(plan, models, analysis, shown.source[np.any(prepared.shares > 0, 0)]),
        *_face_notes(because),
        *_input_notes([voice.speech.info for voice in plan.voices], analysis, shown.duration_s),
        *_voice_notes(spans, models.voice_separator is not None),
        *plan.output.notes,
    )


def _time_notes(analysis: Analysis, shown: Timeline) -> Iterator[str]:
    times, rate = analysis.times, f"{float(shown.clock.frame_rate):.6g}"
    if times.unstamped_count == len(times) > 1:
        yield f"The source's frames carry no times; they were taken to be {float(times.frame_rate):.6g} a second, as its header has it."
    elif times.unstamped_count:
        yield f"{times.unstamped_count} of the source's frames carry no time of their own; they were put between those that do."
    if shown.clock.starts is not None:
        yield "The source has a variable frame rate, which was kept."
    elif not times.is_constant:
        shortest_s, longest_s = times.shortest_and_longest_s()
        unseen = len(np.setdiff1d(np.arange(int(shown.source.max()) + 1), shown.source))
        yield (
            f"The source has a variable frame rate, with frames of {1000 * shortest_s:.0f} to {1000 * longest_s:.0f} ms; it was converted to {rate} "
            f"frames/s by what is on screen at each time, which leaves out {unseen} of its frames."
        )
    elif times.frame_rate != shown.clock.frame_rate:
        yield f"The source's {float(times.frame_rate):.6g} frames/s were converted to {rate} by what is on screen at each time."


def _picture_notes(info: VideoInfo) -> Iterator[str]:
    if info.is_interlaced:
        yield "The source is interlaced; it was deinterlaced, one frame for each."
    if info.tone_mapped_from:
        yield f"The source is HDR ({(info.as_hdr.hdr or '').upper()}); it was converted to SDR (BT.709), highlights rolled off."
    if info.hdr:
        yield f"The source is HDR ({info.hdr.upper()}); its colours and tags were kept, and the models saw it as SDR."
    if info.working_pix_fmt != info.pix_fmt:
        yield f"The source's pixel format {info.pix_fmt} was converted to {info.working_pix_fmt}."
    if info.working_size_wh != info.size_wh:
        yield f"The source's odd size {info.size_wh[0]}x{info.size_wh[1]} was cut to {info.working_size_wh[0]}x{info.working_size_wh[1]}."


def _speaker_notes(plan: RenderPlan, models: Models, analysis: Analysis, spoken: NDArray[np.int64]) -> Iterator[str]:
    is_by_point = any(isinstance(voice.choice, FaceAt) for voice in plan.voices)
    if is_by_point and models.embedder is None and analysis.cuts:
        yield (
            "In the other shots a speaker who was chosen by a point is the face nearest to his in place and size, whoever's it is; "
            f"with a model that knows people again (`lipsync models install {PACKS_WITHOUT_FILE[FACE_EMBEDDER]}`) he is looked for by his likeness."
        )
    if models.embedder is None:
        return
    stranger = np.logical_and.reduce([track.presence == Presence.NOT_THE_SPEAKER for track in analysis.tracks])
    if count := int(stranger[spoken].sum()):
        who = "nobody who was chosen is" if len(plan.voices) > 1 else f"the person {'who was chosen' if is_by_point else 'in the picture'} is not"
        other = "a point in another frame" if is_by_point else "another picture of him"
        yield (
            f"In {count} frames {who} seen, though other faces are, and nobody's lips move; should one of them be his, "
            f"give {other}, or speaker_boxes."
        )


def _face_notes(because: Mapping[str, Sequence[tuple[int, int]]]) -> Iterator[str]:
    counts = {why: sum(stop - first for first, stop in because.get(reason, ())) for reason, why in _LEFT_ALONE.items()}
    if found := ", or ".join(f"where {why} ({count} frames)" for why, count in counts.items() if count):
        yield f"The speaker's lips stay as they are {found}."


def _input_notes(speeches: Sequence[AudioInfo], analysis: Analysis, shown_s: Fraction) -> Iterator[str]:
    if analysis.damaged_packet_count:
        yield f"The source has {analysis.damaged_packet_count} damaged packets; the frames before them are shown in their place."
    for count in sorted({speech.added_up_count for speech in speeches} - {0}):
        yield f"The speech's {count} channels have no layout (tracks of a mixer, or ambisonics); one was made of them."
    for count in sorted({speech.channel_count for speech in speeches} - {1, 2}):
        yield f"The speech's {count} channels were mixed into two."
    if damaged := sum(speech.damaged_packet_count for speech in speeches):
        yield f"The speech has {damaged} damaged packets, which are left out."
    for passage in (passage for speech in speeches for passage in speech.passages):
        behind_s = max(Fraction(0), min(passage.said_s, passage.start_s + passage.said_s - shown_s))
        if (cut_s := passage.cut_s + behind_s) > LEAST_CUT_S:
            than = "that, which ends with the video" if behind_s else "that"
            yield f"The speech of the segment from {float(passage.asked_s):g} s on is {float(cut_s):.2f} s longer than {than}; it was cut."


def _voice_notes(spans: Sequence[Spans | None], is_separated: bool) -> Iterator[str]:
    if is_separated:
        yield "The lips follow the voice alone, separated from the track; the sound is the track's own."
    if any(heard is not None and not heard for heard in spans):
        yield "Nobody speaks on the track, so the mouth stays at rest; without voice activity it follows any sound."
