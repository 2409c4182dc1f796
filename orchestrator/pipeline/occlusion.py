"""What lies before a face stays there: the `face_occluder` role looks at each face before its mouth is made."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.crops import CropModel
from orchestrator.media.reader import Picture
from orchestrator.pipeline.output_frames import CroppedFrame, Face
from orchestrator.pipeline.patches import answered
from orchestrator.pipeline.watch import Watch
from postprocess.mask import visible_mask
from preprocess.align import as_3x3, invert_affine, warp
from preprocess.yuv import ColourMatrix, FaceCrop


def unoccluded(
    frames: Generator[CroppedFrame], occluder: CropModel, size_px: int, group_size: int, colour: ColourMatrix, watch: Watch
) -> Generator[CroppedFrame]:
    """Yield the frames, each face with what of it is visible, (S, S) of the lip model's crop of `size_px`.

    At most `group_size` frames go to the model together: they are held meanwhile.
    """

    def faces_of(cropped: CroppedFrame) -> tuple[Picture, list[Face]]:
        return cropped.frame.picture, [one.face for one in cropped.speaking]

    with closing(answered(frames, faces_of, occluder, colour, watch, group_size)) as results:
        for cropped, answers in results:
            speaking = tuple(
                replace(one, face=replace(one.face, visible=_in_lip_crop(mask, crop, one.face, size_px)))
                for one, (crop, mask) in zip(cropped.speaking, answers, strict=True)
            )
            yield replace(cropped, speaking=speaking)


def _in_lip_crop(mask: NDArray[np.float32], crop: FaceCrop, face: Face, size_px: int) -> NDArray[np.float32]:
    """Return a mask of the occluder's crop as one of the lip model's."""
    to_lip = as_3x3(face.frame_to_crop) @ as_3x3(invert_affine(crop.frame_to_crop))
    return warp(visible_mask(mask), to_lip[:2], (size_px, size_px), cv2.BORDER_REPLICATE)
