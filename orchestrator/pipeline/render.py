"""The render pass, and the whole of one render from two files to one."""

import os
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption, StorageError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_ENHANCER, FACE_LANDMARKS, FACE_OCCLUDER, VOICE_ACTIVITY, ModelDescription
from orchestrator.inference.enhancer import FaceEnhancer
from orchestrator.inference.faces import FaceDetector, LipModel
from orchestrator.inference.occluder import FaceOccluder
from orchestrator.inference.usage import model_use
from orchestrator.inference.voice import VoiceActivity
from orchestrator.media.audio import read_speech
from orchestrator.media.formats import container_of
from orchestrator.media.gops import closed_gops
from orchestrator.media.limits import UNLIMITED, MediaLimits, too_many_frames
from orchestrator.media.mix import Background, channels_of_source
from orchestrator.media.output import Output, choose_output
from orchestrator.media.probe import VideoInfo, bits_of, probe_video
from orchestrator.media.reader import DecodedFrame, VideoReader, plane_views, stream_colour
from orchestrator.media.segment import assemble, encoder_version
from orchestrator.media.sound import SpeechEncoder
from orchestrator.media.writer import placed_when_complete, scratch_folder
from orchestrator.pipeline.analyse import Analysis, Extent, analyse
from orchestrator.pipeline.concurrency import batched, in_flight, prefetch
from orchestrator.pipeline.enhance import Face, Shown, enhanced
from orchestrator.pipeline.notes import render_notes
from orchestrator.pipeline.occlusion import unoccluded
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.parts import Part, copies_in
from orchestrator.pipeline.patches import ask_for_patches, put_patch
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.report import RenderReport, frame_ranges, reasons_of, speaker_report
from orchestrator.pipeline.seam import faded
from orchestrator.pipeline.segments import SegmentFolder, SegmentWriter
from orchestrator.pipeline.shots import Shot, Speaking
from orchestrator.pipeline.speakers import SpeakerAudio, Voice, check_speakers, speaker_choice
from orchestrator.pipeline.speech import Windows, check_temperature, find_speech, speech_windows
from orchestrator.pipeline.timeline import Timeline, frame_order, lay_out, shows_whole_source, speech_frame_count
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.pipeline.watch import Watch
from postprocess.mask import outline_mask, paste_mask
from preprocess.align import frame_to_crop_matrix
from preprocess.face_track import FaceTrack
from preprocess.voice import Spans, spoken_s
from preprocess.yuv import crop_face

REQUESTS_IN_FLIGHT = 3
"""Lip model requests awaited at a time: one computing, one queued in Triton, one on its way."""

GROUPS_UNDER_WAY = REQUESTS_IN_FLIGHT + 2
"""Groups of frames that are held at a time: those awaited, one that waits to be sent, and one that is being decoded."""

CPU_FRAMES_BYTES, GPU_FRAMES_BYTES = 36 << 20, 512 << 20
"""Memory of the frames under way. A model on a CPU gains nothing by large batches, and its host's memory is better spent on more jobs; one on a
GPU is only kept busy by large batches, several of them waiting."""


DEFAULT_ROLES = frozenset({FACE_LANDMARKS, FACE_OCCLUDER, VOICE_ACTIVITY})
"""Optional roles that take part, where there is a model, when the options leave it open."""


@dataclass(frozen=True, slots=True)
class Models:
    """What Triton does for a render."""

    detector: FaceDetector
    lip_model: LipModel
    enhancer: FaceEnhancer | None
    voice_activity: VoiceActivity | None
    occluder: FaceOccluder | None

    @property
    def descriptions(self) -> tuple[ModelDescription, ...]:
        """Every model that takes part."""
        optional = [part.description for part in (self.lip_model.encoder, self.enhancer, self.voice_activity, self.occluder) if part is not None]
        return (*self.detector.descriptions, self.lip_model.description, *optional)


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """A render whose inputs have been read and found good; nothing expensive has happened yet."""

    info: VideoInfo
    voices: tuple[Voice, ...]
    """Who speaks, and what; the output's sound is all of them together."""
    out: Path
    options: RenderOptions
    output: Output
    limits: MediaLimits
    read_s: float
    """Time it took to read the inputs, s."""

    @property
    def speech_s(self) -> Fraction:
        """Length of the speech, s; of several, the longest."""
        return max(voice.speech.info.duration_s for voice in self.voices)

    @property
    def expected_frame_count(self) -> int:
        """Frames of the output as far as the header of the video tells; exact for modes in which it lasts as long as the speech at constant rate."""
        rate = expected_rate(self.info, self.options)
        source = round(self.info.expected_frame_count * rate / self.info.frame_rate)
        speech = speech_frame_count(self.speech_s, rate)
        return len(frame_order(self.options.sync_mode, source or speech, speech))


def expected_rate(info: VideoInfo, options: RenderOptions) -> Fraction:
    """Return the output's frame rate as far as the header of the video tells, Hz."""
    return options.rate if isinstance(options.rate, Fraction) else info.frame_rate


def plan_render(
    video: Path,
    audio: Path,
    out: Path,
    options: RenderOptions | None = None,
    on_progress: OnProgress | None = None,
    watch: Watch | None = None,
    limits: MediaLimits = UNLIMITED,
    others: Sequence[SpeakerAudio] = (),
) -> RenderPlan:
    """Read and check the inputs of a render. Needs no Triton.

    Args:
        video: a video of a person, or a still image.
        audio: speech; a sound file, or a video of which the sound is taken.
        out: file to write; the end of its name says the container where the options do not.
        options: how to render.
        on_progress: see `OnProgress`.
        watch: ends the reading when it is told to stop.
        limits: how long and large the inputs and the output may be, by what is in them and not by their headers.
        others: more speakers, each with a track of his own; then the options, too, choose the first one by a point.

    Raises:
        InputError: a file is missing, not media, damaged, empty or too large.
        InvalidOption: the output is one of the inputs, options do not go together, or a speaker's point is not in the picture.
        StorageError: the output's folder cannot be written.
    """
    options = options or RenderOptions()
    options.check()
    check_speakers(options.speaker, [other.speaker for other in others])
    encoding = options.encoding(container_of(out))
    if out.resolve() in (video.resolve(), audio.resolve(), *(other.audio.resolve() for other in others)):
        raise InvalidOption(f"The output {out} is also an input; choose another output.")
    if not os.access(out.parent, os.W_OK | os.X_OK) or out.is_dir():
        raise StorageError(f"Cannot write {out}; create the folder {out.parent} or choose another output.")
    clock = StageClock("read", 0, on_progress)
    info = probe_video(video)
    info = info.as_sdr if info.hdr and options.hdr == "sdr" else info
    output = choose_output(encoding, info)
    if info.hdr and bits_of(output.pix_fmt) == 8:
        info = info.as_sdr
        output = choose_output(encoding, info)
    info = replace(info, keeps_alpha=output.keeps_alpha)
    if options.background_audio is not None:
        channels_of_source(video)
    choices = [speaker_choice(options.speaker, options.speaker_boxes, info), *(speaker_choice(other.speaker, None, info) for other in others)]
    tick = (watch or Watch()).tick
    speeches = [read_speech(path, tick, limits.max_duration_s, options.audio_offset_s) for path in (audio, *(other.audio for other in others))]
    voices = tuple(Voice(choice, speech) for choice, speech in zip(choices, speeches, strict=True))
    speech_frames = speech_frame_count(max(speech.info.duration_s for speech in speeches), expected_rate(info, options))
    if speech_frames > limits.max_frames:
        raise too_many_frames(speech_frames, limits)
    return RenderPlan(info, voices, out, options, output, limits, clock.elapsed_s)


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
    watch, info, options, speech_s = watch or Watch(), plan.info, plan.options, plan.speech_s
    used = _roles_used(client, options, roles)
    models = Models(
        FaceDetector(client, refine=FACE_LANDMARKS in used),
        LipModel(client),
        FaceEnhancer(client) if FACE_ENHANCER in used else None,
        VoiceActivity(client) if VOICE_ACTIVITY in used else None,
        FaceOccluder(client) if FACE_OCCLUDER in used else None,
    )
    check_temperature(models.lip_model, options.temperature)
    use_before = {description.role: model_use(client, description.role) for description in models.descriptions}
    with nullcontext(segments) if segments else scratch_folder(plan.out) as path:
        analyse_clock = StageClock("analyse", 0, None)
        # One more than the limit shows that there are too many, however many there are.
        extent = Extent(None if shows_whole_source(options.sync_mode) else speech_s, plan.limits.max_frames + 1)
        analysis = analyse(info, models.detector, extent, on_progress, [voice.choice for voice in plan.voices], watch=watch, tracks=tracks)
        analyse_s = analyse_clock.elapsed_s
        faces_found = int(np.any([track.is_present for track in analysis.tracks], axis=0).sum())
        shown = lay_out(options.sync_mode, options.rate, analysis.times, speech_s, analysis.is_whole, options.loop_crossfade_s)
        frame_count = shown.frame_count
        if max(frame_count, len(analysis.index)) > plan.limits.max_frames:
            raise too_many_frames(frame_count, plan.limits)

        folder = SegmentFolder(path, _fingerprint(plan, shown, models))
        first = sum(segment.file.frame_count for segment in folder.finished)
        render_clock = StageClock("render", frame_count, on_progress, first=first, faces_found=faces_found)
        spans = [find_speech(voice.speech, models.voice_activity, watch) if models.voice_activity else None for voice in plan.voices]
        if first < frame_count:
            _render_segments(plan, analysis, shown, models, spans, folder, render_clock, watch)
        render_s = render_clock.elapsed_s

        finish_clock = StageClock("finish", frame_count, on_progress, faces_found=faces_found)
        with placed_when_complete(plan.out) as partial:
            assemble([segment.file for segment in folder.finished], partial, info, shown.clock, plan.output, watch.tick)
        finish_clock.advance(frame_count, passed_through=folder.passed_through_count, segment_count=len(folder.finished))
    return RenderReport(
        output=str(plan.out),
        frame_count=frame_count,
        frame_rate=str(shown.clock.frame_rate),
        size_wh=info.working_size_wh,
        duration_s=float(shown.duration_s),
        audio_duration_s=float(speech_s),
        source_frame_count=len(analysis.index),
        face_frame_count=faces_found,
        passed_through=frame_ranges(~folder.edited()),
        copied=folder.copied(),
        passed_through_because=reasons_of(folder.edited(), shown.source, shown.speech_frames, analysis.tracks),
        speakers=tuple(speaker_report(track) for track in analysis.tracks),
        cuts=analysis.cuts,
        stage_s={"read": plan.read_s, "analyse": analyse_s, "render": render_s, "finish": finish_clock.elapsed_s},
        frames_per_s=(frame_count - first) / render_s if frame_count > first else 0.0,
        encoding=plan.output.description,
        models={role: model_use(client, role).since(before) for role, before in use_before.items()},
        speech_s=_spoken_s(plan.voices, spans),
        notes=(*render_notes(info, [voice.speech.info for voice in plan.voices], analysis, shown, spans), *plan.output.notes),
    )


def _render_segments(
    plan: RenderPlan,
    analysis: Analysis,
    shown: Timeline,
    models: Models,
    spans: Sequence[Spans | None],
    folder: SegmentFolder,
    clock: StageClock,
    watch: Watch,
) -> None:
    """Render what the folder lacks."""
    passed_through = folder.passed_through_count
    speech, *others = (voice.speech.info for voice in plan.voices)
    sound = SpeechEncoder(speech, watch.tick, shown.sound_s, plan.output.sound, _background(plan, analysis), others)
    copies = _copies(plan, analysis, shown, watch) if plan.options.smart else []
    with SegmentWriter(folder, plan.info, shown.clock, sound, plan.output, shown.frame_count, watch, copies) as writer:
        is_rendered = np.arange(shown.frame_count) >= writer.first_frame
        for copy in copies:
            is_rendered[copy.first : copy.stop] = False
        pictures = render_frames(plan, analysis, shown, models, spans, np.flatnonzero(is_rendered), watch)
        with closing(pictures):
            for frame in pictures:
                writer.write(frame.picture, frame.is_edited)
                passed_through += not frame.is_edited
                clock.advance(frame.index + 1, passed_through=passed_through, segment_count=len(folder.finished))
        writer.copy_what_is_next()
    clock.advance(shown.frame_count, passed_through=folder.passed_through_count, segment_count=len(folder.finished))


def _copies(plan: RenderPlan, analysis: Analysis, shown: Timeline, watch: Watch) -> list[Part]:
    """Return what of the output can be copied: whole groups of the source in which there is no face to speak, or nothing to be said."""
    if not analysis.index.is_seekable:
        return []
    is_untouched = shown.incoming < 0
    speaking = shown.source[: shown.speech_frames]
    for track in analysis.tracks:
        is_untouched[: len(speaking)] &= ~track.is_present[speaking]
    gops = closed_gops(plan.info, analysis.index.pts, watch.tick)
    return copies_in(shown.source, is_untouched, gops, plan.output.encoding.segment_frame_count(shown.clock.frame_rate))


def _background(plan: RenderPlan, analysis: Analysis) -> Background | None:
    """Return the source's own sound where it is to lie under the speech: it begins again where the pictures would, except behind `silence`'s end."""
    options = plan.options
    if options.background_audio is None:
        return None
    speech_s = plan.speech_s
    period_s = analysis.times.duration_s if analysis.is_whole else max(analysis.times.duration_s, speech_s)
    if options.sync_mode == "loop" and period_s < speech_s:
        period_s -= options.loop_crossfade_s
    return Background(
        plan.info.path,
        channels_of_source(plan.info.path),
        options.background_audio,
        period_s,
        options.sync_mode != "silence",
        plan.info.start_s,
    )


def _fingerprint(plan: RenderPlan, shown: Timeline, models: Models) -> dict[str, Any]:
    """Return everything but the inputs' content that the output's bits depend on: segments of another fingerprint are of no use."""
    return {
        "program": version("lipsync-triton"),
        "encoder": encoder_version(),
        "speakers": [str(voice.choice) for voice in plan.voices[1:]],
        "options": plan.options.model_dump(mode="json"),
        "output": plan.output.description,
        "encoder_threads": plan.output.encoding.resolved_thread_count,
        "frame_count": shown.frame_count,
        "frame_rate": str(shown.clock.frame_rate),
        "timeline": shown.digest(),
        "size_wh": list(plan.info.working_size_wh),
        "models": [description.identity for description in models.descriptions],
    }


def render_frames(
    plan: RenderPlan,
    analysis: Analysis,
    shown: Timeline,
    models: Models,
    spans: Sequence[Spans | None],
    places: NDArray[np.int64] | None = None,
    watch: Watch | None = None,
) -> Generator[Shown]:
    """Yield the output's frames at (n,) rising `places`, or all.

    Decoding and cropping run ahead in a thread of their own while Triton works on earlier batches and the consumer encodes; the number of
    frames under way is bounded.
    """
    watch, colour = watch or Watch(), stream_colour(plan.info)
    windows = [
        speech_windows(voice.speech, models.lip_model, heard, plan.options.temperature) for voice, heard in zip(plan.voices, spans, strict=True)
    ]
    places = np.arange(shown.frame_count) if places is None else places
    frames = _with_mouths(plan, analysis, shown, models, windows, places, watch)
    if models.enhancer is not None:
        frames = enhanced(frames, models.enhancer, colour, watch)
    with closing(faded(frames)) as pictures:
        for frame in pictures:
            yield frame
            watch.tick()


def _with_mouths(
    plan: RenderPlan, analysis: Analysis, shown: Timeline, models: Models, windows: Sequence[Windows], places: NDArray[np.int64], watch: Watch
) -> Generator[Shown]:
    colour, lip_model = stream_colour(plan.info), models.lip_model
    with VideoReader(plan.info, watch.tick) as reader, VideoReader(plan.info, watch.tick) as second_reader:
        group_size = frames_in_group(plan.info.frame_bytes, lip_model)
        frames = _shots(reader, second_reader, plan, analysis, shown, lip_model, windows, places)
        if models.occluder is not None:
            frames = unoccluded(frames, models.occluder, lip_model.size_px, group_size, colour, watch)
        batches = batched(frames, lambda shot: len(shot.speaking), group_size)
        shots = prefetch(batches, 1, "render-decode", watch)
        with closing(shots), closing(in_flight(lambda batch: _generate(lip_model, batch), shots, REQUESTS_IN_FLIGHT, watch)) as results:
            for batch, mouths in results:
                patches = chain.from_iterable(mouths)
                for shot in batch:
                    changed = [
                        put_patch(shot.frame.picture, one.face_crop, next(patches), one.face.mask, colour, one.face.visible) for one in shot.speaking
                    ]
                    yield Shown(shot.index, shot.frame.picture, any(changed), tuple(one.face for one in shot.speaking), shot.weight)


def frames_in_group(frame_bytes: int, lip_model: LipModel) -> int:
    """Return how many frames go together: the model's largest request, or as many as the memory for frames under way allows."""
    budget = GPU_FRAMES_BYTES if "KIND_GPU" in lip_model.description.instance_kinds else CPU_FRAMES_BYTES
    return max(1, min(lip_model.batch_size, budget // (GROUPS_UNDER_WAY * frame_bytes)))


def _shots(
    reader: VideoReader,
    second_reader: VideoReader,
    plan: RenderPlan,
    analysis: Analysis,
    shown: Timeline,
    lip_model: LipModel,
    windows: Sequence[Windows],
    places: NDArray[np.int64],
) -> Generator[Shot]:
    """Decode the output's source frames in order and cut out the faces. What lies behind the speech stays as it is.

    Where a loop's end fades into its beginning, two shots make one frame. Both faces are rendered to the same speech before they are mixed, so
    both mouths move alike.
    """
    colour = stream_colour(plan.info)
    mask = paste_mask(lip_model.size_px, lip_model.paste_region)

    def shot(index: int, frame: DecodedFrame, weight: float | None = None) -> Shot:
        speaking = []
        for track in analysis.tracks if index < shown.speech_frames else ():
            if track.is_present[frame.index]:
                face = _face_of(track, frame.index, lip_model, mask)
                face_crop = crop_face(plane_views(frame.picture, colour), face.frame_to_crop, lip_model.size_px)
                speaking.append(Speaking(face, face_crop, windows[track.speaker](shown.clock.time_s(index))))
        return Shot(index, frame, tuple(speaking), weight)

    incoming = shown.incoming[places]
    second = second_reader.decode_order(analysis.index, incoming[incoming >= 0])
    # Each stretch is decoded from a key frame of its own: what lies between them is not wanted.
    stretches = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1) if len(places) else []
    for stretch in stretches:
        for index, frame in zip(stretch.tolist(), reader.decode_order(analysis.index, shown.source[stretch]), strict=True):
            yield shot(index, frame)
            if shown.incoming[index] >= 0:
                yield shot(index, next(second), float(shown.incoming_weight[index]))


def _face_of(track: FaceTrack, source_index: int, lip_model: LipModel, mask: NDArray[np.float32]) -> Face:
    """Return where a track's face is in a source frame, with what of the lip model's `mask` may be changed there."""
    landmarks5, outline = track.landmarks5[source_index], track.outline[source_index]
    to_crop = frame_to_crop_matrix(landmarks5, lip_model.template5, lip_model.stretch)
    own_mask = outline_mask(mask, outline @ to_crop[:, :2].T + to_crop[:, 2]) if len(outline) else mask
    return Face(landmarks5, to_crop, own_mask * track.strength[source_index])


def _generate(lip_model: LipModel, batch: list[Shot]) -> Future[list[NDArray[np.uint8]]]:
    """Ask for the mouths of a batch's faces, in order."""
    speaking = [one for shot in batch for one in shot.speaking]
    return ask_for_patches(
        [(one.face_crop.image, one.speech_window) for one in speaking],
        lambda part: lip_model.generate([image for image, _ in part], [window for _, window in part]),
        lip_model.batch_size,
    )


def _roles_used(client: TritonClient, options: RenderOptions, by_default: frozenset[str]) -> set[str]:
    """Return the optional roles that take part.

    Raises:
        InvalidOption: one that was asked for has no model.
    """
    used = set()
    for role, is_asked_for in options.optional_roles.items():
        if is_asked_for is False or (is_asked_for is None and role not in by_default):
            continue
        if client.is_model_ready(role):
            used.add(role)
        elif is_asked_for:
            raise InvalidOption(f"There is no {role} model on {client.address}; install one with `lipsync models install`, or do without.")
    return used


def _spoken_s(voices: Sequence[Voice], spans: Sequence[Spans | None]) -> float | None:
    spoken = [spoken_s(heard, float(voice.speech.info.duration_s)) for voice, heard in zip(voices, spans, strict=True) if heard is not None]
    return sum(spoken) if spoken else None
