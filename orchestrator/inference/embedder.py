"""The `face_embedder` role: whose face it is, as a direction that two pictures of one person share."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_EMBEDDER, mismatch
from orchestrator.inference.crops import CropModel

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
    raise mismatch(FACE_EMBEDDER, "min_similarity of -1 to 1", repr(said))


class FaceEmbedder(CropModel):
    """The `face_embedder` role."""

    def __init__(self, client: TritonClient) -> None:
        """Check the model on Triton.

        Raises:
            InferenceUnavailable, ContractMismatch: see `CropModel`; also a similarity that is none.
        """
        super().__init__(client, FACE_EMBEDDER)
        self.min_similarity = min_similarity(self.description.parameters)

    def embed(self, faces: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return (n, D) float32, each of length 1, for n crops (S, S, 3) RGB. Each face is asked about alone, so that no answer hangs on others.

        Raises:
            InferenceError: Triton failed.
        """
        asked = [self.ask([face]) for face in faces]
        size = self.description.sizes["D"]
        return np.concatenate([answer.result() for answer in asked]) if asked else np.empty((0, size), np.float32)
