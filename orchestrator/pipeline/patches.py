"""Patches: what a model makes of the faces of some frames, asked for together and put back into each."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from orchestrator.media.reader import Picture, plane_views
from postprocess.paste import mouth_difference, paste_back
from preprocess.yuv import ColourMatrix, FaceCrop

Images = NDArray[np.uint8]


def ask_for_patches(images: Sequence[Images], ask: Callable[[Sequence[Images]], Future[Images]]) -> Future[Images]:
    """Return the future patches, (n, S, S, 3), of n face crops; of none, without asking anybody."""
    if images:
        return ask(images)
    nothing: Future[Images] = Future()
    nothing.set_result(np.empty((0, 0, 0, 3), np.uint8))
    return nothing


def put_patch(picture: Picture, face_crop: FaceCrop, patch: Images, mask: NDArray[np.float32], colour: ColourMatrix) -> bool:
    """Put what a model made of a crop into its picture, inside the mask; returns whether there was anything to change."""
    difference = mouth_difference(face_crop, patch, mask)
    if difference is None:
        return False
    picture.make_writable()  # the decoder may still need its own copy to predict later frames from
    paste_back(plane_views(picture, colour), face_crop, difference, mask)
    return True
