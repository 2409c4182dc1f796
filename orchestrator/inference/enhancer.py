"""The `face_enhancer` role: finer detail on an aligned face."""

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_ENHANCER
from orchestrator.inference.crops import CropModel


class FaceEnhancer(CropModel):
    """The `face_enhancer` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton; see `CropModel`."""
        super().__init__(client, FACE_ENHANCER)

    def enhance(self, faces: Sequence[NDArray[np.uint8]]) -> Future[NDArray[np.uint8]]:
        """Enhance n crops (S, S, 3) RGB, at most `batch_size`.

        Returns:
            Future (n, S, S, 3) uint8 RGB.
        """
        return self._client.infer(FACE_ENHANCER, {"face": faces}, "enhanced")
