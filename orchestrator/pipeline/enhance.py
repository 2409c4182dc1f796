"""The optional last stage: the region that was pasted, seen once more by a face enhancer."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.crops import CropModel
from orchestrator.pipeline.output_frames import Face, Shown
from orchestrator.pipeline.patches import answered, put_patch
from orchestrator.pipeline.watch import Watch
from preprocess.align import as_3x3, invert_affine, warp
from preprocess.yuv import ColourMatrix, FaceCrop


def enhanced(shown: Generator[Shown], enhancer: CropModel, colour: ColourMatrix, watch: Watch) -> Generator[Shown]:
    """Yield the frames with every face enhanced inside its mask, also where the lip model changed nothing: sharpness must not come and go."""
    with closing(answered(shown, lambda frame: (frame.picture, frame.faces), enhancer, colour, watch)) as results:
        for frame, answers in results:
            changed = [_paste(frame, face, crop, patch, colour) for face, (crop, patch) in zip(frame.faces, answers, strict=True)]
            yield replace(frame, is_edited=frame.is_edited or any(changed))


def _paste(frame: Shown, face: Face, crop: FaceCrop, patch: NDArray[np.uint8], colour: ColourMatrix) -> bool:
    """Put an enhanced face into its picture; returns whether it changed anything."""
    lip_to_crop = as_3x3(crop.frame_to_crop) @ as_3x3(invert_affine(face.frame_to_crop))
    mask = warp(face.editable, lip_to_crop[:2], (len(patch), len(patch)), cv2.BORDER_CONSTANT)
    return put_patch(frame.picture, crop, patch, mask, colour, frame.source_index)
