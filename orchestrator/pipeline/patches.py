"""Patches: what a model makes of the faces of some frames, asked for together and put back into each."""

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.crops import CropModel
from orchestrator.inference.requests import Joined
from orchestrator.media.reader import Picture, plane_views
from orchestrator.pipeline.concurrency import batched, in_flight
from orchestrator.pipeline.output_frames import Face
from orchestrator.pipeline.watch import Watch
from postprocess.match import matched_patch
from postprocess.paste import mouth_change, paste_back
from preprocess.align import frame_to_crop_matrix
from preprocess.yuv import ColourMatrix, FaceCrop, crop_face

REQUESTS_IN_FLIGHT = 2
"""Requests of `answered` that are awaited at a time: one computing, one on its way."""

Images = NDArray[np.uint8]
Item = TypeVar("Item")
Patches = TypeVar("Patches")


def ask_for_patches(items: Sequence[Item], ask: Callable[[Sequence[Item]], Future[Patches]], batch_size: int) -> Future[list[Patches]]:
    """Return the future patches of n faces, asked for in requests of at most `batch_size`: an array of b rows each; none for no faces."""
    return Joined([ask(items[start : start + batch_size]) for start in range(0, len(items), batch_size)])


def answered(
    frames: Generator[Item],
    faces_of: Callable[[Item], tuple[Picture, Iterable[Face]]],
    model: CropModel,
    colour: ColourMatrix,
    watch: Watch,
    group_size: int | None = None,
) -> Generator[tuple[Item, list[tuple[FaceCrop, NDArray[Any]]]]]:
    """Yield frames, each with the crops of its faces and what a model, asked about them, answers to each.

    The faces of at most `group_size` frames go to it together, which are held meanwhile; None for as many as it takes.
    """

    def cropped() -> Generator[tuple[Item, list[FaceCrop]]]:
        with closing(frames):
            for frame in frames:
                picture, faces = faces_of(frame)
                to_crops = (frame_to_crop_matrix(face.landmarks5, model.template5, model.stretch) for face in faces)
                yield frame, [crop_face(plane_views(picture, colour), to_crop, model.size_px) for to_crop in to_crops]

    def request(group: list[tuple[Item, list[FaceCrop]]]) -> Future[list[NDArray[Any]]]:
        return ask_for_patches([crop.image for _, crops in group for crop in crops], model.ask, model.batch_size)

    groups = batched(cropped(), lambda one: len(one[1]), min(group_size or model.batch_size, model.batch_size))
    with closing(groups), closing(in_flight(request, groups, REQUESTS_IN_FLIGHT, watch)) as results:
        for group, answers in results:
            rows = chain.from_iterable(answers)
            for frame, crops in group:
                yield frame, [(crop, next(rows)) for crop in crops]


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
