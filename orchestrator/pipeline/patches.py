"""Patches: what a model makes of the faces of some frames, asked for together and put back into each."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.media.reader import Picture, plane_views
from orchestrator.pipeline.concurrency import Joined
from postprocess.match import matched_patch
from postprocess.paste import mouth_difference, paste_back
from preprocess.yuv import ColourMatrix, FaceCrop

Images = NDArray[np.uint8]
Item = TypeVar("Item")


def ask_for_patches(items: Sequence[Item], ask: Callable[[Sequence[Item]], Future[Images]], batch_size: int) -> Future[list[Images]]:
    """Return the future patches of n faces, asked for in requests of at most `batch_size`: an array (b, S, S, 3) each; none for no faces."""
    if not items:
        nothing: Future[list[Images]] = Future()
        nothing.set_result([])
        return nothing
    return Joined([ask(items[start : start + batch_size]) for start in range(0, len(items), batch_size)])


def put_patch(picture: Picture, face_crop: FaceCrop, patch: Images, mask: NDArray[np.float32], colour: ColourMatrix) -> bool:
    """Put what a model made of a crop into its picture, inside the mask, matched to the face in colour and sharpness.

    Returns whether there was anything to change.
    """
    difference = mouth_difference(face_crop, matched_patch(face_crop.image, patch, mask), mask)
    if difference is None:
        return False
    picture.make_writable()  # the decoder may still need its own copy to predict later frames from
    paste_back(plane_views(picture, colour), face_crop, difference, mask)
    return True
