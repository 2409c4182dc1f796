"""A picture with one known face, and what a model of each role has to make of it.

face.jpg is cut from NASA's portrait of Eileen Collins (public domain), as scikit-image ships it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ContractMismatch
from orchestrator.inference.contract import FACE_DETECTOR, FACE_ENHANCER, FACE_LANDMARKS, LIP_SYNC, ModelDescription
from preprocess.align import CROP_TEMPLATES, crop_template, frame_to_crop_matrix, warp
from preprocess.mel import MAX_ABS

Arrays = Mapping[str, NDArray[Any]]

FACE_XYXY = (0.347, 0.232, 0.661, 0.611)
"""The face in the picture, 0..1 of its side, as CenterFace finds it; the points as CenterFace and YuNet agree to within 0.01."""

LANDMARKS5 = ((0.426, 0.357), (0.582, 0.366), (0.500, 0.436), (0.430, 0.496), (0.562, 0.502))

POINT_TOLERANCE = 0.06
"""How far a detector may put a point from its place, 0..1 of the picture; a sixth of the face's height."""

MIN_IOU = 0.4
"""Detectors draw their boxes differently (with or without forehead and ears)."""


def golden_inputs(description: ModelDescription, count: int) -> dict[str, NDArray[Any]]:
    """Make a batch for a model: the golden face first, then others that differ from it and from each other.

    Inputs are known by name and contract: `image` and `face` are RGB pictures, `audio` is a mel window; anything else is noise.
    """
    noise = np.random.default_rng(0)
    arrays: dict[str, NDArray[Any]] = {}
    for name, dims in description.input_dims.items():
        if name == "image":
            picture = cv2.resize(_picture(), (dims[1], dims[0]), interpolation=cv2.INTER_LINEAR)
            arrays[name] = np.stack([_variant(picture, index) for index in range(count)])
        elif name == "face":
            crop = golden_crop(dims[0], description.parameters.get("crop_template", "ffhq_512"))
            arrays[name] = np.stack([_variant(crop, index) for index in range(count)])
        elif name == "audio":
            # From silence, one level a band, to loud speech-like noise.
            loud = noise.uniform(-MAX_ABS / 2, MAX_ABS / 2, (count, *dims)).astype(np.float32)
            loud[::2] = -MAX_ABS
            arrays[name] = loud
        else:
            arrays[name] = noise.uniform(0, 1, (count, *dims)).astype(np.float32)
    return arrays


def golden_crop(size_px: int, template: str) -> NDArray[np.uint8]:
    """Return the golden face aligned as a model wants it, (S, S, 3) RGB."""
    picture = _picture()
    points = np.asarray(LANDMARKS5, np.float32) * picture.shape[0]
    name = template if template in CROP_TEMPLATES else "ffhq_512"
    return warp(picture, frame_to_crop_matrix(points, crop_template(name, size_px)), (size_px, size_px), cv2.BORDER_REPLICATE)


def check_golden(role: str, size_px: int, inputs: Arrays, output: NDArray[Any]) -> list[str]:
    """Check a model's answer to `golden_inputs`; return what is odd about it, though not against the contract.

    Raises:
        ContractMismatch: the answer is nonsense.
    """
    if not np.isfinite(output.astype(np.float64)).all():
        raise _nonsense(role, "finite numbers", "others")
    if role == FACE_DETECTOR:
        return _check_faces(output[0] / np.float32(size_px))
    if role in (LIP_SYNC, FACE_ENHANCER):
        return _check_picture(role, np.asarray(inputs["face"][0], np.float32), output[0])
    if role == FACE_LANDMARKS:
        return _check_landmarks(output[0])
    return []


def _check_faces(faces: NDArray[np.float32]) -> list[str]:
    """Check (K, 15) faces, boxes and points as 0..1 of the picture."""
    best = faces[int(faces[:, 4].argmax())]
    iou = _iou(best[:4], np.asarray(FACE_XYXY))
    if iou < MIN_IOU:
        found = ", ".join(f"{value:.2f}" for value in best[:4])
        raise _nonsense(FACE_DETECTOR, f"the face of a portrait at {FACE_XYXY}", f"({found})")
    points = best[5:].reshape(5, 2)
    if not points.any():
        return ["no five points: alignment needs the face_landmarks role"]
    distance = float(np.abs(points - np.asarray(LANDMARKS5)).max())
    if distance > POINT_TOLERANCE:
        raise _nonsense(FACE_DETECTOR, f"eyes, nose and mouth corners within {POINT_TOLERANCE} of their places", f"one {distance:.2f} away")
    return []


def _check_landmarks(points: NDArray[np.float32]) -> list[str]:
    """Check (P, 2) points on a crop, 0..1 of it."""
    low, high = float(points.min()), float(points.max())
    if low < -0.5 or high > 1.5 or high - low < 0.2:
        raise _nonsense(FACE_LANDMARKS, "points over the crop, 0..1 of it", f"points from {low:.2f} to {high:.2f}")
    return []


def _check_picture(role: str, face: NDArray[np.float32], picture: NDArray[Any]) -> list[str]:
    """Check a (S, S, 3) picture against the crop it was made from."""
    if picture.dtype != np.uint8 or picture.shape != face.shape or np.ptp(picture) == 0:
        found = f"{picture.dtype} {list(picture.shape)} of {len(np.unique(picture))} level(s)"
        raise _nonsense(role, f"a picture uint8 {list(face.shape)}", found)
    difference = float(np.abs(picture - face).mean())
    if difference > 40:  # of 255: a generator's own blur stays below 15; swapped colours, inverted or missing ranges are above
        return [
            f"the answer does not look like the face it was given (mean difference {difference:.0f} of 255): wrong range, colour order or weights?"
        ]
    return []


def _picture() -> NDArray[np.uint8]:
    encoded = np.frombuffer((Path(__file__).parent / "face.jpg").read_bytes(), np.uint8)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("face.jpg of the package is damaged")
    return np.ascontiguousarray(decoded[:, :, ::-1], np.uint8)


def _variant(picture: NDArray[Any], index: int) -> NDArray[np.uint8]:
    """Return the picture itself, mirrored, or darker, so that a model which mixes up a batch is found out."""
    changed = picture if index % 2 == 0 else picture[:, ::-1]
    return np.ascontiguousarray(changed * (1.0 - 0.5 * (index % 7) / 7), np.uint8)


def _iou(a: NDArray[Any], b: NDArray[Any]) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return shared / max(areas - shared, 1e-9)


def _nonsense(role: str, expected: str, found: str) -> ContractMismatch:
    return ContractMismatch(f"Model {role} fails its golden inference: expected {expected}, found {found}. Install a model for this role again.")
