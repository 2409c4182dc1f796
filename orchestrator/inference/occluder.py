"""The `face_occluder` role: what of a face is face, and not a hand or a microphone before it."""

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ContractMismatch
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_OCCLUDER, ModelDescription, describe_model
from preprocess.align import CROP_STRETCH, CROP_TEMPLATES, crop_template


class FaceOccluder:
    """The `face_occluder` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`; also a crop template that is not known.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, FACE_OCCLUDER)
        self.size_px = self.description.sizes["S"]
        self.batch_size = self.description.request_batch_size
        template = self.description.parameters["crop_template"]
        if template not in CROP_TEMPLATES:
            raise ContractMismatch(
                f"Model {FACE_OCCLUDER} does not fit its role: expected crop_template one of {', '.join(CROP_TEMPLATES)}, found {template!r}. "
                "Install a model for this role again."
            )
        self.template5: NDArray[np.float32] = crop_template(template, self.size_px)
        self.stretch = CROP_STRETCH.get(template, 1.0)
        """See `LipModel.stretch`."""

    def find(self, faces: Sequence[NDArray[np.uint8]]) -> Future[NDArray[np.float32]]:
        """Look at n crops (S, S, 3) RGB, at most `batch_size`.

        Returns:
            Future (n, S, S) float32: 1 for what is face, 0 for what is not or lies before it.
        """
        return self._client.infer(FACE_OCCLUDER, {"face": faces}, "mask")
