"""The render pass, and the whole of one render from two files to one."""

import os
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption, StorageError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.faces import FaceDetector, LipModel
from orchestrator.inference.usage import model_use
from orchestrator.media.audio import Speech, read_speech
from orchestrator.media.probe import VideoInfo, probe_video
from orchestrator.media.reader import DecodedFrame, Picture, VideoReader, plane_views, stream_colour
from orchestrator.media.writer import Encoding, MovieWriter, placed_when_complete
from orchestrator.pipeline.analyse import Analysis, analyse
from orchestrator.pipeline.concurrency import in_flight, prefetch
from orchestrator.pipeline.progress import OnProgress, StageClock
from orchestrator.pipeline.report import RenderReport, frame_ranges
from orchestrator.pipeline.timeline import bounce_runs, output_frame_count
from postprocess.mask import paste_mask
from postprocess.paste import mouth_difference, paste_back
from preprocess.align import frame_to_crop_matrix
from preprocess.mel import mel_window, with_loud_level
from preprocess.yuv import ColourMatrix, FaceCrop, crop_face

REQUESTS_IN_FLIGHT = 3
"""Lip model requests awaited at a time: one computing, one queued in Triton, one on its way."""


@dataclass(frozen=True, slots=True)
class _Shot:
    """One output frame on its way through the stages."""

    index: int
    """Position in the output."""
    frame: DecodedFrame
    face_crop: FaceCrop | None
    mel_window: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class RenderPlan:
    """A render whose inputs have been read and found good; nothing expensive has happened yet."""

    info: VideoInfo
    speech: Speech
    out: Path
    frame_count: int
    read_s: float
    """Time it took to read the inputs, s."""


def plan_render(video: Path, audio: Path, out: Path, on_progress: OnProgress | None = None) -> RenderPlan:
    """Read and check the inputs of a render. Needs no Triton.

    Args:
        video: a video of a person, or a still image.
        audio: speech; a sound file, or a video of which the sound is taken.
        out: MP4 to write.
        on_progress: see `OnProgress`.

    Raises:
        InputError: a file is missing, not media, damaged or empty.
        InvalidOption: the output is one of the inputs.
        StorageError: the output's folder cannot be written.
    """
    if out.resolve() in (video.resolve(), audio.resolve()):
        raise InvalidOption(f"The output {out} is also an input; choose another output.")
    if not os.access(out.parent, os.W_OK | os.X_OK) or out.is_dir():
        raise StorageError(f"Cannot write {out}; create the folder {out.parent} or choose another output.")
    clock = StageClock("read", 0, on_progress)
    info = probe_video(video)
    speech = read_speech(audio)
    frame_count = output_frame_count(speech.info.duration_s, info.frame_rate)
    return RenderPlan(info, speech, out, frame_count, clock.elapsed_s)


def render(plan: RenderPlan, client: TritonClient, encoding: Encoding | None = None, on_progress: OnProgress | None = None) -> RenderReport:
    """Render a plan: the same video, with lips that follow the speech.

    Args:
        plan: from `plan_render`. The output appears at its path when it is complete; a file that is there already stays until then.
        client: a Triton that serves every role.
        encoding: how the video is compressed.
        on_progress: see `OnProgress`.

    Raises:
        RenderError: see `orchestrator.errors`. Nothing is left at the output's path.
    """
    info, speech, frame_count = plan.info, plan.speech, plan.frame_count
    detector, lip_model = FaceDetector(client), LipModel(client)
    descriptions = (detector.description, lip_model.description)
    use_before = {description.role: model_use(client, description) for description in descriptions}
    with placed_when_complete(plan.out) as partial:
        analyse_clock = StageClock("analyse", 0, None)
        analysis = analyse(info, detector, frame_count, on_progress)
        analyse_s = analyse_clock.elapsed_s

        render_clock = StageClock("render", frame_count, on_progress)
        edited = np.zeros(frame_count, np.bool_)
        with (
            closing(render_frames(info, analysis, speech, frame_count, lip_model)) as pictures,
            MovieWriter(partial, info, speech.info, encoding or Encoding()) as writer,
        ):
            for index, picture, is_edited in pictures:
                writer.write(picture)
                edited[index] = is_edited
                render_clock.advance(index + 1)
        render_s = render_clock.elapsed_s
    return RenderReport(
        output=str(plan.out),
        frame_count=frame_count,
        frame_rate=str(info.frame_rate),
        size_wh=info.working_size_wh,
        duration_s=float(frame_count / info.frame_rate),
        audio_duration_s=float(speech.info.duration_s),
        source_frame_count=len(analysis.index),
        face_frame_count=int(analysis.face_track.is_present.sum()),
        passed_through=frame_ranges(~edited),
        stage_s={"read": plan.read_s, "analyse": analyse_s, "render": render_s},
        frames_per_s=frame_count / render_s,
        models={description.role: model_use(client, description).since(use_before[description.role]) for description in descriptions},
        notes=_notes(info, analysis),
    )


def render_frames(info: VideoInfo, analysis: Analysis, speech: Speech, frame_count: int, lip_model: LipModel) -> Generator[tuple[int, Picture, bool]]:
    """Yield the output's pictures in order, each with its position and whether it was edited.

    Decoding and cropping run ahead in a thread of their own while Triton works on earlier batches and the consumer encodes; the number of
    frames under way is bounded.
    """
    colour = stream_colour(info)
    mask = paste_mask(lip_model.size_px, lip_model.paste_region)
    with VideoReader(info) as reader:
        shots = prefetch(_batched(_shots(reader, info, analysis, speech, frame_count, lip_model), lip_model.batch_size), 1, "render-decode")
        with closing(shots), closing(in_flight(lambda batch: _generate(lip_model, batch), shots, REQUESTS_IN_FLIGHT)) as results:
            for batch, mouths in results:
                patches = iter(mouths)
                for shot in batch:
                    if shot.face_crop is None:
                        yield shot.index, shot.frame.picture, False
                    else:
                        yield shot.index, *_paste(shot.frame.picture, shot.face_crop, next(patches), mask, colour)


def _shots(reader: VideoReader, info: VideoInfo, analysis: Analysis, speech: Speech, frame_count: int, lip_model: LipModel) -> Generator[_Shot]:
    """Decode the output's source frames in order and cut out the faces."""
    track, colour = analysis.face_track, stream_colour(info)
    mel = speech.mel if lip_model.loud_level_db is None else with_loud_level(speech.mel, lip_model.loud_level_db)
    frames = (frame for run in bounce_runs(len(analysis.index), frame_count) for frame in reader.decode_run(analysis.index, run))
    for index, frame in enumerate(frames):
        face_crop = window = None
        if track.is_present[frame.index]:
            frame_to_crop = frame_to_crop_matrix(track.landmarks5[frame.index], lip_model.template5)
            face_crop = crop_face(plane_views(frame.picture, colour), frame_to_crop, lip_model.size_px)
            window = mel_window(mel, Fraction(index) / info.frame_rate, lip_model.window_start_s)
        yield _Shot(index, frame, face_crop, window)


def _batched(shots: Generator[_Shot], batch_size: int) -> Generator[list[_Shot]]:
    """Group shots so that a group has at most `batch_size` faces, and no more than twice as many frames."""
    with closing(shots):
        batch: list[_Shot] = []
        faces = 0
        for shot in shots:
            batch.append(shot)
            faces += shot.face_crop is not None
            if faces == batch_size or len(batch) == 2 * batch_size:
                yield batch
                batch, faces = [], 0
        if batch:
            yield batch


def _generate(lip_model: LipModel, batch: list[_Shot]) -> Future[NDArray[np.uint8]]:
    """Ask for the mouths of a batch's faces, in order."""
    faces = [shot.face_crop.image for shot in batch if shot.face_crop is not None]
    if faces:
        return lip_model.generate(faces, [shot.mel_window for shot in batch if shot.mel_window is not None])
    nothing: Future[NDArray[np.uint8]] = Future()
    nothing.set_result(np.empty((0, lip_model.size_px, lip_model.size_px, 3), np.uint8))
    return nothing


def _paste(
    picture: Picture, face_crop: FaceCrop, mouth_patch: NDArray[np.uint8], mask: NDArray[np.float32], colour: ColourMatrix
) -> tuple[Picture, bool]:
    """Return the picture with the mouth in it, itself untouched where the model changed nothing."""
    difference = mouth_difference(face_crop, mouth_patch, mask)
    if difference is None:
        return picture, False
    picture.make_writable()  # the decoder may still need its own copy to predict later frames from
    paste_back(plane_views(picture, colour), face_crop, difference, mask)
    return picture, True


def _notes(info: VideoInfo, analysis: Analysis) -> tuple[str, ...]:
    """Return what a user should know about how the source was treated."""
    notes = []
    if info.working_pix_fmt != info.pix_fmt:
        notes.append(f"The source's pixel format {info.pix_fmt} was converted to {info.working_pix_fmt}.")
    if info.working_size_wh != info.size_wh:
        notes.append(f"The source's odd size {info.size_wh[0]}x{info.size_wh[1]} was cut to {info.working_size_wh[0]}x{info.working_size_wh[1]}.")
    if analysis.damaged_packet_count:
        notes.append(f"The source has {analysis.damaged_packet_count} damaged packets; their frames are missing.")
    return tuple(notes)
