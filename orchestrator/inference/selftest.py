"""Proof that the models on Triton work: each role's contract, and one real inference whose answer is checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from orchestrator.errors import ContractMismatch, InferenceUnavailable
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import CONTRACTS, FACE_DETECTOR, LIP_SYNC
from orchestrator.inference.faces import FaceDetector, LipModel
from preprocess.mel import MAX_ABS, N_MELS, WINDOW_COLUMNS


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """A role that passed."""

    version: str
    instance_kinds: tuple[str, ...]
    max_batch_size: int


def self_test(client: TritonClient) -> Mapping[str, RoleStatus]:
    """Check every role on Triton with a batch of two.

    Raises:
        InferenceUnavailable: Triton or a model is not ready.
        ContractMismatch: a model is not what its role needs, or answers nonsense.
        InferenceError: an inference failed.
    """
    check_ready(client)
    detector, lip_model = FaceDetector(client), LipModel(client)

    blank = np.full((2, detector.size_px, detector.size_px, 3), 127, np.uint8)
    faces = detector.detect(blank).result()
    if not np.isfinite(faces).all() or (faces[:, :, 4] > 0.9).any():
        raise ContractMismatch(f"Model {FACE_DETECTOR} sees faces in an empty picture; install a model for this role again.")

    size_px = lip_model.size_px
    level = np.linspace(40, 215, size_px, dtype=np.uint8)
    crop = np.stack([np.broadcast_to(level, (size_px, size_px))] * 3, axis=-1)
    if lip_model.encoder is None:
        silence = np.full((N_MELS, WINDOW_COLUMNS), -MAX_ABS, np.float32)
    else:
        count = prod(lip_model.audio_dims) // lip_model.encoder.feature_size
        silence = np.zeros((count, lip_model.encoder.feature_size), np.float32)
    mouths = lip_model.generate([crop, crop], [silence, silence]).result()
    if mouths.shape != (2, size_px, size_px, 3) or mouths.dtype != np.uint8 or np.ptp(mouths) == 0:
        raise ContractMismatch(
            f"Model {LIP_SYNC} answers {mouths.dtype} {list(mouths.shape)} in place of a picture; install a model for this role again."
        )
    return {
        description.role: RoleStatus(description.version, description.instance_kinds, description.max_batch_size)
        for description in (detector.description, lip_model.description)
    }


def check_ready(client: TritonClient) -> None:
    """Ask Triton whether it and every role are ready.

    Raises:
        InferenceUnavailable: something is not.
    """
    if not client.is_server_ready():
        raise InferenceUnavailable(f"No Triton answers at {client.address}, or it is not ready; start it, or check the address and port.")
    missing = [role for role in CONTRACTS if not client.is_model_ready(role)]
    if missing:
        raise InferenceUnavailable(f"Triton at {client.address} has no model ready for {' and '.join(missing)}; check its model repository and log.")
