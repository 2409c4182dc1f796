"""The `face_occluder` role: what of a face is face, and not a hand or a microphone before it."""

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_OCCLUDER
from orchestrator.inference.crops import CropModel


class FaceOccluder(CropModel):
    """The `face_occluder` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton; see `CropModel`."""
        super().__init__(client, FACE_OCCLUDER)

    def find(self, faces: Sequence[NDArray[np.uint8]]) -> Future[NDArray[np.float32]]:
        """Look at n crops (S, S, 3) RGB, at most `batch_size`.

        Returns:
            Future (n, S, S) float32: 1 for what is face, 0 for what is not or lies before it.
        """
        return self._client.infer(FACE_OCCLUDER, {"face": faces}, "mask")
