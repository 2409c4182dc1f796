"""The optional last stage: the region that was pasted, seen once more by a face enhancer."""

from collections.abc import Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.enhancer import FaceEnhancer
from orchestrator.media.reader import Picture, plane_views
from orchestrator.pipeline.concurrency import batched, in_flight
from orchestrator.pipeline.patches import ask_for_patches, put_patch
from orchestrator.pipeline.watch import Watch
from preprocess.align import frame_to_crop_matrix, invert_affine, warp
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


@dataclass(frozen=True, slots=True)
class Shown:
    """An output frame with its mouth in place."""

    index: int
    picture: Picture
    is_edited: bool
    face: Face | None
    """None where there is no face to render."""
    weight: float | None = None
    """Share with which it is faded in over the one before, at the seam of a loop; None where it stands for itself."""


def enhanced(shown: Generator[Shown], enhancer: FaceEnhancer, colour: ColourMatrix, watch: Watch) -> Generator[Shown]:
    """Yield the frames with every face enhanced inside its mask, also where the lip model changed nothing: sharpness must not come and go."""
    batches = batched(_cropped(shown, enhancer, colour), lambda frame: frame[1] is not None, enhancer.batch_size)
    with closing(batches), closing(in_flight(lambda batch: _request(batch, enhancer), batches, REQUESTS_IN_FLIGHT, watch)) as results:
        for batch, faces in results:
            patches = iter(faces)
            for frame, crop in batch:
                yield frame if crop is None else _pasted(frame, crop, next(patches), colour)


def _cropped(shown: Generator[Shown], enhancer: FaceEnhancer, colour: ColourMatrix) -> Generator[tuple[Shown, FaceCrop | None]]:
    with closing(shown):
        for frame in shown:
            crop = None
            if frame.face is not None:
                to_crop = frame_to_crop_matrix(frame.face.landmarks5, enhancer.template5, enhancer.stretch)
                crop = crop_face(plane_views(frame.picture, colour), to_crop, enhancer.size_px)
            yield frame, crop


def _request(batch: list[tuple[Shown, FaceCrop | None]], enhancer: FaceEnhancer) -> Future[NDArray[np.uint8]]:
    return ask_for_patches([crop.image for _, crop in batch if crop is not None], enhancer.enhance)


def _pasted(frame: Shown, crop: FaceCrop, patch: NDArray[np.uint8], colour: ColourMatrix) -> Shown:
    assert frame.face is not None
    lip_to_crop = np.vstack([crop.frame_to_crop, [0, 0, 1]]) @ np.vstack([invert_affine(frame.face.frame_to_crop), [0, 0, 1]])
    mask = warp(frame.face.mask, lip_to_crop[:2], (len(patch), len(patch)), cv2.BORDER_CONSTANT)
    return replace(frame, is_edited=put_patch(frame.picture, crop, patch, mask, colour) or frame.is_edited)
