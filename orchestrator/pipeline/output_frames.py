"""Output frames on their way through the stages: cut out for the lip model, and with their mouths in place."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.lip_model import LipModel
from orchestrator.media.reader import DecodedFrame, Picture, VideoReader, plane_views, stream_colour
from orchestrator.pipeline.analyse import Analysis
from orchestrator.pipeline.prepare import Prepared
from orchestrator.pipeline.speech import Windows
from postprocess.mask import outline_mask, paste_mask
from preprocess.align import frame_to_crop_matrix
from preprocess.face_track import FaceTrack
from preprocess.yuv import FaceCrop, crop_face


@dataclass(frozen=True, slots=True)
class Face:
    """Where a picture's face is, and what of it may be changed."""

    landmarks5: NDArray[np.float32]
    """(5, 2), px of the frame."""
    frame_to_crop: NDArray[np.float64]
    """(2, 3), to the lip model's crop."""
    mask: NDArray[np.float32]
    """(S, S), of the lip model's crop."""
    visible: NDArray[np.float32] | None = None
    """(S, S) of the same crop: 0 where something lies before the face; None where nothing was looked for."""

    @property
    def editable(self) -> NDArray[np.float32]:
        """The mask, without what lies before the face."""
        return self.mask if self.visible is None else np.asarray(self.mask * self.visible, np.float32)


@dataclass(frozen=True, slots=True)
class Speaking:
    """A face of an output frame, and what it says."""

    face: Face
    face_crop: FaceCrop
    speech_window: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CroppedFrame:
    """One output frame on its way through the stages."""

    index: int
    """Position in the output."""
    frame: DecodedFrame
    speaking: tuple[Speaking, ...]
    weight: float | None
    """Share with which it is faded in over the one before, at the seam of a loop; None where it stands for itself."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An output frame with its mouth in place."""

    index: int
    source_index: int
    """Which frame of the source it shows."""
    picture: Picture
    is_edited: bool
    faces: tuple[Face, ...]
    """Those that are rendered."""
    weight: float | None = None
    """Share with which it is faded in over the one before, at the seam of a loop; None where it stands for itself."""


def crop_frames(
    reader: VideoReader, prepared: Prepared, analysis: Analysis, windows: Sequence[Windows], places: NDArray[np.int64]
) -> Generator[CroppedFrame]:
    """Decode the source frames of the output's frames at `places` in order and cut out the faces of those who speak.

    Where a loop's end fades into its beginning, two of them make one frame. Both faces are rendered to the same speech before they are mixed, so
    both mouths move alike.
    """
    shown, shares, lip_model = prepared.shown, prepared.shares, prepared.models.lip_model
    colour = stream_colour(prepared.plan.info)
    mask = paste_mask(lip_model.size_px, lip_model.paste_region)

    def cropped(index: int, frame: DecodedFrame, weight: float | None = None) -> CroppedFrame:
        faces = []
        analysis.wait_for(frame.index)
        for track in analysis.tracks:
            share = float(shares[track.speaker, index])
            if share and track.is_present_in(frame.index):
                face = _face_of(track, frame.index, lip_model, mask, share)
                face_crop = crop_face(plane_views(frame.picture, colour), face.frame_to_crop, lip_model.size_px)
                faces.append(Speaking(face, face_crop, windows[track.speaker](shown.clock.time_s(index))))
        return CroppedFrame(index, frame, tuple(faces), weight)

    incoming = shown.incoming[places]
    # Each stretch is decoded from a key frame of its own: what lies between them is not wanted.
    stretches = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1) if len(places) else []
    with closing(_decoded_beside(prepared, analysis, incoming[incoming >= 0])) as second:
        for stretch in stretches:
            for index, frame in zip(stretch.tolist(), reader.decode_order(analysis.index, shown.source[stretch]), strict=True):
                yield cropped(index, frame)
                if shown.incoming[index] >= 0:
                    yield cropped(index, next(second), float(shown.incoming_weight[index]))


def _decoded_beside(prepared: Prepared, analysis: Analysis, order: NDArray[np.int64]) -> Generator[DecodedFrame]:
    """Decode source frames with a reader of their own, opened when the first one is wanted."""
    with VideoReader(prepared.plan.info, prepared.watch.tick) as reader:
        yield from reader.decode_order(analysis.index, order)


def _face_of(track: FaceTrack, source_index: int, lip_model: LipModel, mask: NDArray[np.float32], share: float) -> Face:
    """Return where a track's face is in a source frame, with what of the lip model's `mask` may be changed there, and how far."""
    landmarks5, outline = track.landmarks5[source_index], track.outline[source_index]
    to_crop = frame_to_crop_matrix(landmarks5, lip_model.template5, lip_model.stretch)
    own_mask = outline_mask(mask, outline @ to_crop[:, :2].T + to_crop[:, 2]) if len(outline) else mask
    strength = track.strength[source_index] * share
    return Face(landmarks5, to_crop, own_mask if strength == 1 else own_mask * strength)
