"""The `face_embedder` role: whose face it is, as a direction that two pictures of one person share."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ContractMismatch
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_EMBEDDER, ModelDescription, describe_model
from preprocess.align import CROP_TEMPLATES, crop_template

DEFAULT_MIN_SIMILARITY = "0.3"
"""Cosine from which on two faces are one person's, for models that do not say."""


def min_similarity(parameters: Mapping[str, str]) -> float:
    """Return the cosine from which on two faces are one person's to a model with such parameters.

    Raises:
        ContractMismatch: they say what is no cosine.
    """
    said = parameters.get("min_similarity", DEFAULT_MIN_SIMILARITY)
    with suppress(ValueError):
        if -1.0 <= float(said) <= 1.0:
            return float(said)
    raise ContractMismatch(
        f"Model {FACE_EMBEDDER} does not fit its role: expected min_similarity of -1 to 1, found {said!r}. Install a model for this role again."
    )


class FaceEmbedder:
    """The `face_embedder` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton.

        Raises:
            InferenceUnavailable, ContractMismatch: see `describe_model`; also a crop template that is not known, or a similarity that is none.
        """
        self._client = client
        self.description: ModelDescription = describe_model(client, FACE_EMBEDDER)
        self.size_px = self.description.sizes["S"]
        self.batch_size = self.description.request_batch_size
        template = self.description.parameters["crop_template"]
        if template not in CROP_TEMPLATES:
            raise ContractMismatch(
                f"Model {FACE_EMBEDDER} does not fit its role: expected crop_template one of {', '.join(CROP_TEMPLATES)}, found {template!r}. "
                "Install a model for this role again."
            )
        self.min_similarity = min_similarity(self.description.parameters)
        self.template5: NDArray[np.float32] = crop_template(template, self.size_px)

    def embed(self, faces: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return (n, D) float32, each of length 1, for n crops (S, S, 3) RGB. Each face is asked about alone, so that no answer hangs on others.

        Raises:
            InferenceError: Triton failed.
        """
        asked = [self._client.infer(FACE_EMBEDDER, {"face": face[None]}, "embedding") for face in faces]
        size = self.description.sizes["D"]
        return np.concatenate([answer.result() for answer in asked]) if asked else np.empty((0, size), np.float32)
