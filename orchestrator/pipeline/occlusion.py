"""What lies before a face stays there: the `face_occluder` role looks at each face before its mouth is made."""

from collections.abc import Generator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.occluder import FaceOccluder
from orchestrator.media.reader import plane_views
from orchestrator.pipeline.concurrency import batched, in_flight
from orchestrator.pipeline.enhance import Face
from orchestrator.pipeline.patches import ask_for_patches
from orchestrator.pipeline.shots import Shot
from orchestrator.pipeline.watch import Watch
from postprocess.mask import visible_mask
from preprocess.align import as_3x3, frame_to_crop_matrix, invert_affine, warp
from preprocess.yuv import ColourMatrix, FaceCrop, crop_face

REQUESTS_IN_FLIGHT = 2
"""Requests awaited at a time: one computing, one on its way."""

_Cropped = tuple[Shot, tuple[FaceCrop, ...]]


def unoccluded(shots: Generator[Shot], occluder: FaceOccluder, size_px: int, group_size: int, colour: ColourMatrix, watch: Watch) -> Generator[Shot]:
    """Yield the shots, each face with what of it is visible, (S, S) of the lip model's crop of `size_px`.

    At most `group_size` frames go to the model together: they are held meanwhile.
    """
    batches = batched(_cropped(shots, occluder, colour), lambda cropped: len(cropped[1]), min(group_size, occluder.batch_size))
    with closing(batches), closing(in_flight(lambda batch: _request(batch, occluder), batches, REQUESTS_IN_FLIGHT, watch)) as results:
        for batch, answers in results:
            masks = chain.from_iterable(answers)
            for shot, crops in batch:
                speaking = tuple(
                    replace(one, face=replace(one.face, visible=_in_lip_crop(next(masks), crop, one.face, size_px)))
                    for one, crop in zip(shot.speaking, crops, strict=True)
                )
                yield replace(shot, speaking=speaking)


def _cropped(shots: Generator[Shot], occluder: FaceOccluder, colour: ColourMatrix) -> Generator[_Cropped]:
    with closing(shots):
        for shot in shots:
            to_crops = [frame_to_crop_matrix(one.face.landmarks5, occluder.template5, occluder.stretch) for one in shot.speaking]
            yield shot, tuple(crop_face(plane_views(shot.frame.picture, colour), to_crop, occluder.size_px) for to_crop in to_crops)


def _request(batch: list[_Cropped], occluder: FaceOccluder) -> Future[list[NDArray[np.float32]]]:
    return ask_for_patches([crop.image for _, crops in batch for crop in crops], occluder.find, occluder.batch_size)


def _in_lip_crop(mask: NDArray[np.float32], crop: FaceCrop, face: Face, size_px: int) -> NDArray[np.float32]:
    """Return a mask of the occluder's crop as one of the lip model's."""
    to_lip = as_3x3(face.frame_to_crop) @ as_3x3(invert_affine(crop.frame_to_crop))
    return warp(visible_mask(mask), to_lip[:2], (size_px, size_px), cv2.BORDER_REPLICATE)
