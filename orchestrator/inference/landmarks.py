"""The `face_landmarks` role: dense points on faces, and the five points of detectors that find none themselves."""

from collections.abc import Sequence
from concurrent.futures import Future

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import passed_to
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_LANDMARKS, ModelDescription, describe_model, mismatch
from orchestrator.inference.requests import Joined
from preprocess.align import invert_affine, warp
from preprocess.landmarks import FIVE_OF, LOWER_FACE_OF, box_to_crop_matrix, five_points, lower_face

Faces = NDArray[np.float32]
"""Rows of the detector, (n, K, 15), or with the lower face's outline behind them, (n, K, 15 + 2 M)."""


class LandmarkModel:
    """The `face_landmarks` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`; also a scheme that is not known.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, FACE_LANDMARKS)
        self.size_px = self.description.sizes["S"]
        self.scheme = self.description.parameters["scheme"]
        if self.scheme not in FIVE_OF or self.description.sizes["P"] != int(self.scheme):
            raise mismatch(
                FACE_LANDMARKS, f"scheme one of {', '.join(FIVE_OF)} with as many points", f"{self.scheme!r} with {self.description.sizes['P']}"
            )
        try:
            self.crop_scale = float(self.description.parameters["crop_scale"])
        except ValueError:
            raise mismatch(FACE_LANDMARKS, "crop_scale a number", repr(self.description.parameters["crop_scale"])) from None

    def find(self, faces: Sequence[NDArray[np.uint8]]) -> Future[NDArray[np.float32]]:
        """Find the points on n crops (S, S, 3) RGB, at most the model's largest batch.

        Returns:
            Future (n, P, 2) float32, 0..1 of the crop.
        """
        return self._client.infer(FACE_LANDMARKS, {"face": faces}, "landmarks")

    def crop(self, image: NDArray[np.uint8], box_xyxy: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Return the crop (S, S, 3) of a face box in an (h, w, 3) picture, and the (2, 3) map from the picture to it."""
        to_crop = box_to_crop_matrix(box_xyxy, self.crop_scale, self.size_px)
        return warp(image, to_crop, (self.size_px, self.size_px), cv2.BORDER_REPLICATE), to_crop

    def complete(self, images: NDArray[np.uint8], boxes: Future[Faces]) -> Future[Faces]:
        """Put landmarks' own five points into faces, in place of the detector's if it has some, and the lower face's outline behind them.

        Args:
            images: (n, h, w, 3) RGB pictures.
            boxes: future (n, K, 15) rows of the detector, px of the pictures.

        Returns:
            Future (n, K, 15 + 2 M) of the same rows with their points, see `LOWER_FACE_OF`. Nothing here waits: each step begins when the
            one before it has ended.
        """
        completed: Future[Faces] = Future()
        completed.set_running_or_notify_cancel()

        def begin(found: Future[Faces]) -> None:
            with passed_to(completed):
                outline_columns = 2 * len(LOWER_FACE_OF[self.scheme])
                faces = np.pad(found.result(), ((0, 0), (0, 0), (0, outline_columns)))
                places = list(zip(*np.nonzero(faces[:, :, 4] > 0), strict=True))
                if not places:
                    completed.set_result(faces)
                    return
                crops = [self.crop(images[index], faces[index, row, :4]) for index, row in places]
                images_of_faces = [crop for crop, _ in crops]
                size = self.description.max_batch_size

                def end(answers: Future[list[NDArray[np.float32]]]) -> None:
                    with passed_to(completed):
                        found_landmarks = np.concatenate(answers.result())
                        for (index, row), (_, to_crop), landmarks in zip(places, crops, found_landmarks, strict=True):
                            from_crop = invert_affine(to_crop)
                            points = np.concatenate([five_points(landmarks, self.scheme), lower_face(landmarks, self.scheme)])
                            in_crop = points * self.size_px - 0.5
                            faces[index, row, 5:] = (in_crop @ from_crop[:, :2].T + from_crop[:, 2]).ravel()
                        completed.set_result(faces)

                Joined([self.find(images_of_faces[start : start + size]) for start in range(0, len(crops), size)]).add_done_callback(end)

        boxes.add_done_callback(begin)
        return completed
