"""The optional last stage: the region that was pasted, seen once more by a face enhancer."""

from collections.abc import Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.enhancer import FaceEnhancer
from orchestrator.media.reader import Picture, plane_views
from orchestrator.pipeline.concurrency import batched, in_flight
from orchestrator.pipeline.patches import ask_for_patches, put_patch
from orchestrator.pipeline.watch import Watch
from preprocess.align import as_3x3, frame_to_crop_matrix, invert_affine, warp
from preprocess.yuv import ColourMatrix, FaceCrop, crop_face

REQUESTS_IN_FLIGHT = 2
"""Enhancer requests awaited at a time: one computing, one on its way."""


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


def enhanced(shown: Generator[Shown], enhancer: FaceEnhancer, colour: ColourMatrix, watch: Watch) -> Generator[Shown]:
    """Yield the frames with every face enhanced inside its mask, also where the lip model changed nothing: sharpness must not come and go."""
    batches = batched(_cropped(shown, enhancer, colour), lambda frame: len(frame[1]), enhancer.batch_size)
    with closing(batches), closing(in_flight(lambda batch: _request(batch, enhancer), batches, REQUESTS_IN_FLIGHT, watch)) as results:
        for batch, enhanced_faces in results:
            patches = chain.from_iterable(enhanced_faces)
            for frame, crops in batch:
                changed = [_paste(frame, face, crop, next(patches), colour) for face, crop in zip(frame.faces, crops, strict=True)]
                yield replace(frame, is_edited=frame.is_edited or any(changed))


def _cropped(shown: Generator[Shown], enhancer: FaceEnhancer, colour: ColourMatrix) -> Generator[tuple[Shown, tuple[FaceCrop, ...]]]:
    with closing(shown):
        for frame in shown:
            to_crops = (frame_to_crop_matrix(face.landmarks5, enhancer.template5, enhancer.stretch) for face in frame.faces)
            yield frame, tuple(crop_face(plane_views(frame.picture, colour), to_crop, enhancer.size_px) for to_crop in to_crops)


def _request(batch: list[tuple[Shown, tuple[FaceCrop, ...]]], enhancer: FaceEnhancer) -> Future[list[NDArray[np.uint8]]]:
    return ask_for_patches([crop.image for _, crops in batch for crop in crops], enhancer.enhance, enhancer.batch_size)


def _paste(frame: Shown, face: Face, crop: FaceCrop, patch: NDArray[np.uint8], colour: ColourMatrix) -> bool:
    """Put an enhanced face into its picture; returns whether it changed anything."""
    lip_to_crop = as_3x3(crop.frame_to_crop) @ as_3x3(invert_affine(face.frame_to_crop))
    mask = warp(face.editable, lip_to_crop[:2], (len(patch), len(patch)), cv2.BORDER_CONSTANT)
    return put_patch(frame.picture, crop, patch, mask, colour, frame.source_index)
