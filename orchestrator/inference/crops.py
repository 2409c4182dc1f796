"""What the roles have in common that read crops of faces, turned and scaled to a template."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import ModelDescription, describe_model, mismatch, output_of
from preprocess.align import CROP_STRETCH, CROP_TEMPLATES, crop_template


class CropModel:
    """A role that reads square crops of faces."""

    def __init__(self, client: TritonClient, role: str) -> None:
        """Check the model on Triton and read how its crops are cut out.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`; also a crop template that is not known.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, role)
        self.size_px = self.description.sizes["S"]
        self.batch_size = self.description.request_batch_size
        template = self.description.parameters["crop_template"]
        if template not in CROP_TEMPLATES:
            raise mismatch(role, f"crop_template one of {', '.join(CROP_TEMPLATES)}", repr(template))
        self.template5: NDArray[np.float32] = crop_template(template, self.size_px)
        self.stretch = CROP_STRETCH.get(template, 1.0)
        """How many times wider than high the crop shows the frame's pixels."""

    def ask(self, faces: Sequence[NDArray[np.uint8]]) -> Future[NDArray[Any]]:
        """Ask about n crops (S, S, 3) RGB, at most `batch_size`, a model that is given nothing else.

        Returns:
            Future (n, ...) of the role's output: of a `face_enhancer` (S, S, 3) uint8 RGB with finer detail; of a `face_occluder` (S, S) float32,
            1 for what is face, 0 for what is not or lies before it, such as a hand; of a `face_embedder` see `FaceEmbedder`.
        """
        return self._client.infer(self.description.role, {"face": faces}, output_of(self.description.role))
