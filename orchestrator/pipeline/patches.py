"""Patches: what a model makes of the faces of some frames, asked for together and put back into each."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.requests import Joined
from orchestrator.media.reader import Picture, plane_views
from postprocess.match import matched_patch
from postprocess.paste import mouth_change, paste_back
from preprocess.yuv import ColourMatrix, FaceCrop

Images = NDArray[np.uint8]
Item = TypeVar("Item")
Patches = TypeVar("Patches")


def ask_for_patches(items: Sequence[Item], ask: Callable[[Sequence[Item]], Future[Patches]], batch_size: int) -> Future[list[Patches]]:
    """Return the future patches of n faces, asked for in requests of at most `batch_size`: an array of b rows each; none for no faces."""
    if not items:
        nothing: Future[list[Patches]] = Future()
        nothing.set_result([])
        return nothing
    return Joined([ask(items[start : start + batch_size]) for start in range(0, len(items), batch_size)])


def put_patch(
    picture: Picture,
    face_crop: FaceCrop,
    patch: Images,
    mask: NDArray[np.float32],
    colour: ColourMatrix,
    source_index: int,
    visible: NDArray[np.float32] | None = None,
) -> bool:
    """Put what a model made of a crop into its picture, inside the mask, matched to the face in colour, sharpness and grain.

    Args:
        picture: the frame.
        face_crop: what the model was given.
        patch: (S, S, 3) uint8 RGB.
        mask: (S, S) float32, where the patch may be used.
        colour: of the frame.
        source_index: which frame of the source it is.
        visible: (S, S) float32, 0 where something lies before the face and stays there; None for nowhere.

    Returns:
        Whether there was anything to change.
    """
    matched = matched_patch(face_crop.image, patch, mask)
    if visible is not None:
        mask = np.asarray(mask * visible, np.float32)
    change = mouth_change(face_crop, matched, mask)
    if change is None:
        return False
    picture.make_writable()  # the decoder may still need its own copy to predict later frames from
    paste_back(plane_views(picture, colour), face_crop, change, source_index)
    return True
