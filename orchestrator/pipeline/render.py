"""The whole of one render, from two files to one."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from orchestrator.errors import MissingStream
from orchestrator.files import placed_when_complete, scratch_folder
from orchestrator.inference.client import TritonClient
from orchestrator.inference.usage import ModelUse, model_use
from orchestrator.media.assembly import assemble
from orchestrator.media.gops import closed_gops
from orchestrator.media.mix import Background, SoundPiece, channels_of_source
from orchestrator.media.sound import SpeechEncoder
from orchestrator.media.tags import Tags
from orchestrator.pipeline.analyse import Analysis, Extent, KnownFaces, analyse
from orchestrator.pipeline.frames import render_frames
from orchestrator.pipeline.models import DEFAULT_ROLES, Models, open_models
from orchestrator.pipeline.notes import render_notes
from orchestrator.pipeline.parts import Part, copies_in
from orchestrator.pipeline.plan import RenderPlan
from orchestrator.pipeline.prepare import Prepared, prepare
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.recognise import Recogniser
from orchestrator.pipeline.report import RenderReport, frame_ranges, reasons_of, speaker_report
from orchestrator.pipeline.segments import SegmentWriter
from orchestrator.pipeline.speakers import Voice
from orchestrator.pipeline.speech import check_temperature
from orchestrator.pipeline.timeline import shows_whole_source
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.underway import UnderWay, Unforeseen
from orchestrator.pipeline.watch import Watch
from preprocess.speaker import FaceAt, LargestFace
from preprocess.voice import Spans, spoken_s


def render(
    plan: RenderPlan,
    client: TritonClient,
    on_progress: OnProgress | None = None,
    *,
    watch: Watch | None = None,
    tracks: TrackCache | None = None,
    segments: Path | None = None,
    roles: frozenset[str] = DEFAULT_ROLES,
) -> RenderReport:
    """Render a plan: the same video, with lips that follow the speech.

    Args:
        plan: from `plan_render`. The output appears at its path when it is complete; a file that is there already stays until then.
        client: a Triton that serves every role.
        on_progress: see `OnProgress`.
        watch: ends the render when it is told to stop, or when nothing gets finished.
        tracks: where analyses are kept; None analyses the video anew.
        segments: folder of the finished segments. A render that was ended goes on from those that are there, and they stay; None uses a
            folder beside the output, which goes when the render ends.
        roles: optional roles that take part, where there is a model, when the options leave it open.

    Raises:
        RenderError: see `orchestrator.errors`. Nothing is left at the output's path.
    """
    watch, options = watch or Watch(), plan.options
    is_by_point = any(isinstance(voice.choice, FaceAt) for voice in plan.voices)
    models = open_models(client, options, roles, knows_speaker=True if plan.portrait is not None else None if is_by_point else False)
    check_temperature(models.lip_model, options.temperature)
    use_before = {description.role: model_use(client, description.role) for description in models.descriptions}
    with nullcontext(segments) if segments else scratch_folder(plan.out) as path:
        rendered = _render_faces(plan, models, path, on_progress, watch, tracks)
        finish_s = _finish(rendered, on_progress, watch)
    used = {role: model_use(client, role).since(before) for role, before in use_before.items()}
    return _report(rendered, finish_s, used)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A render whose segments are all there."""

    prepared: Prepared
    analysis: Analysis
    faces_found: int
    analyse_s: float
    render_s: float


def _render_faces(plan: RenderPlan, models: Models, path: Path, on_progress: OnProgress | None, watch: Watch, tracks: TrackCache | None) -> _Rendered:
    """Find the faces and render the segments in a folder: as the faces are found where that goes, else one after the other."""
    info, options = plan.info, plan.options
    choices = [voice.choice for voice in plan.voices]
    recogniser = None if models.embedder is None else Recogniser.of(plan.portrait, models.detector, models.embedder)
    # One more than the limit shows that there are too many, however many there are.
    extent = Extent(None if shows_whole_source(options.mode) else plan.speech_s, plan.limits.max_frames + 1)
    known = KnownFaces(info, models.detector, tracks, watch)
    clock, analysis = StageClock("analyse", 0, None), None
    # Which groups of pictures can be copied, and who speaks where it has to be looked for, is known at the end of an analysis only.
    may_overlap = choices == [LargestFace()] and recogniser is None and not options.smart and known.load(extent) is None
    if may_overlap and (under_way := UnderWay.begin(info, models.detector, extent, known, watch)) is not None:
        with under_way:
            try:
                prepared = prepare(plan, under_way.foreseen, models, path, watch)
                begun = under_way.first_face(on_progress)
                analyse_s = clock.elapsed_s
                render_s = _render_prepared(prepared, begun, on_progress, lambda: under_way.faces_found)
                analysis = under_way.confirm()
                return _Rendered(prepared, analysis, analysis.faces_found, analyse_s, render_s)
            except Unforeseen:
                analysis = under_way.whole()
    if analysis is None:
        analysis = analyse(info, models.detector, extent, on_progress, choices, recogniser=recogniser, watch=watch, known=known)
    faces_found = analysis.faces_found
    prepared = prepare(plan, analysis, models, path, watch)
    analyse_s = clock.elapsed_s
    render_s = _render_prepared(prepared, analysis, on_progress, lambda: faces_found)
    return _Rendered(prepared, analysis, faces_found, analyse_s, render_s)


def _finish(rendered: _Rendered, on_progress: OnProgress | None, watch: Watch) -> float:
    """Put the segments together at the output's path; return how long that took, s."""
    prepared, folder = rendered.prepared, rendered.prepared.folder
    plan, shown = prepared.plan, prepared.shown
    clock = StageClock("finish", shown.frame_count, on_progress, faces_found=lambda: rendered.faces_found)
    with placed_when_complete(plan.out) as partial:
        files = [segment.file for segment in folder.finished]
        assemble(files, partial, plan.info, shown.clock, plan.output, watch.tick, _tags(prepared, rendered.analysis))
    clock.advance(shown.frame_count, passed_through=folder.passed_through_count, segment_count=len(folder.finished))
    return clock.elapsed_s


def _report(rendered: _Rendered, finish_s: float, used: Mapping[str, ModelUse]) -> RenderReport:
    """Return what was done."""
    prepared, analysis, render_s = rendered.prepared, rendered.analysis, rendered.render_s
    plan, shown, folder = prepared.plan, prepared.shown, prepared.folder
    because = reasons_of(folder.edited(), shown.source, prepared.shares > 0, analysis.tracks, is_cut_up=plan.options.segments is not None)
    return RenderReport(
        output=str(plan.out),
        frame_count=shown.frame_count,
        frame_rate=str(shown.clock.frame_rate),
        size_wh=plan.info.shown_wh,
        duration_s=float(shown.duration_s),
        audio_duration_s=float(plan.speech_s if plan.options.segments is None else min(plan.speech_s, shown.duration_s)),
        source_frame_count=len(analysis.index),
        face_frame_count=rendered.faces_found,
        passed_through=frame_ranges(~folder.edited()),
        copied=folder.copied(),
        passed_through_because=because,
        speakers=tuple(speaker_report(track) for track in analysis.tracks),
        cuts=analysis.cuts,
        stage_s={"read": plan.read_s, "analyse": rendered.analyse_s, "render": render_s, "finish": finish_s},
        frames_per_s=(shown.frame_count - prepared.first) / render_s if shown.frame_count > prepared.first else 0.0,
        encoding=plan.output.description,
        models=used,
        speech_s=_spoken_s(plan.voices, prepared.spans),
        notes=render_notes(prepared, analysis, because),
    )


def _render_prepared(prepared: Prepared, analysis: Analysis, on_progress: OnProgress | None, faces_found: Callable[[], int | None]) -> float:
    """Render the segments that the folder lacks; returns how long that took, s.

    Raises:
        Unforeseen: the analysis is under way, and finds other frames than it was begun with.
    """
    frame_count, first = prepared.shown.frame_count, prepared.first
    clock = StageClock("render", frame_count, on_progress, first=first, faces_found=faces_found)
    if first:
        analysis.wait_for(len(analysis.index) - 1)  # to go on there, key frames have to be known
    if first < frame_count:
        _render_segments(prepared, analysis, clock)
    return clock.elapsed_s


def _render_segments(prepared: Prepared, analysis: Analysis, clock: StageClock) -> None:
    """Render what the folder lacks."""
    plan, shown, folder, watch = prepared.plan, prepared.shown, prepared.folder, prepared.watch
    passed_through = folder.passed_through_count
    speech, *others = (voice.speech.info for voice in plan.voices)
    copies = _copies(prepared, analysis) if plan.options.smart else []
    with (
        closing(SpeechEncoder(speech, watch.tick, shown.sound_s, plan.output.sound, _background(prepared, analysis), others)) as sound,
        SegmentWriter(folder, plan.info, shown.clock, sound, plan.output, shown.frame_count, watch, copies) as writer,
    ):
        is_rendered = np.arange(shown.frame_count) >= prepared.first
        for copy in copies:
            is_rendered[copy.first : copy.stop] = False
        with closing(render_frames(prepared, analysis, np.flatnonzero(is_rendered))) as pictures:
            for frame in pictures:
                writer.write(frame.picture, frame.is_edited)
                passed_through += not frame.is_edited
                clock.advance(frame.index + 1, passed_through=passed_through, segment_count=len(folder.finished))
        writer.copy_what_is_next()
    clock.advance(shown.frame_count, passed_through=folder.passed_through_count, segment_count=len(folder.finished))


def _copies(prepared: Prepared, analysis: Analysis) -> list[Part]:
    """Return what of the output can be copied: whole groups of the source in which there is no face to speak, or nothing to be said."""
    if not analysis.index.is_seekable:
        return []
    plan, shown = prepared.plan, prepared.shown
    is_untouched = shown.incoming < 0
    for track in analysis.tracks:
        is_untouched &= ~((prepared.shares[track.speaker] > 0) & track.is_present[shown.source])
    gops = closed_gops(plan.info, analysis.index.pts, prepared.watch.tick)
    return copies_in(shown.source, is_untouched, gops, plan.output.encoding.segment_frame_count(shown.clock.frame_rate))


def _background(prepared: Prepared, analysis: Analysis) -> Background | None:
    """Return the source's own sound where it is heard: under the speech if that is asked for, and beside segments.

    It begins again where the pictures would, except behind the end of a video that is shown once. In a segment that lasts longer than its
    pictures silence follows it, and in one that is shorter it is cut: it is never slower or faster.
    """
    plan, options, info = prepared.plan, prepared.plan.options, prepared.plan.info
    if options.background_audio is None and options.segments is None:
        return None
    try:
        channel_count = channels_of_source(info.path)
    except MissingStream:
        return None  # what was asked for has been checked
    period_s = prepared.shown.round_s or (analysis.times.duration_s if analysis.is_whole else max(analysis.times.duration_s, plan.speech_s))
    pieces = [SoundPiece(stretch.from_s, stretch.source_s, stretch.lasts_s) for stretch in prepared.stretches]
    passages = [passage for voice in plan.voices for passage in voice.speech.info.passages]
    return Background(
        info.path,
        channel_count,
        options.background_audio,
        tuple(pieces) or (SoundPiece(Fraction(0), period_s, period_s),),
        options.mode != "silence",
        info.start_s,
        None if options.segments is None else tuple((passage.start_s, passage.end_s) for passage in passages),
    )


def _tags(prepared: Prepared, analysis: Analysis) -> Tags:
    """Return what the output says of itself: what the source does, with its chapters where they are seen first."""
    plan, shown = prepared.plan, prepared.shown
    languages = {voice.speech.info.language for voice in plan.voices}
    is_one = len(languages) == 1 and plan.options.segments is None and plan.options.background_audio is None
    reached, chapters = np.maximum.accumulate(shown.source), []
    for chapter in plan.info.tags.chapters:
        first = int(np.searchsorted(reached, analysis.times.nearest(chapter.start_s)))
        if first < shown.frame_count:
            chapters.append(replace(chapter, start_s=shown.clock.time_s(first)))
    return replace(plan.info.tags, sound_language=languages.pop() if is_one else None, chapters=tuple(chapters))


def _spoken_s(voices: Sequence[Voice], spans: Sequence[Spans | None]) -> float | None:
    spoken = [spoken_s(said, float(voice.speech.info.duration_s)) for voice, said in zip(voices, spans, strict=True) if said is not None]
    return sum(spoken) if spoken else None
