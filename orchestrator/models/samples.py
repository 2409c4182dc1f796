"""Inputs to try a model with: drawn faces and noise, and windows of speech-like mel."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.models.wrapping import Arrays


def sample_items(config: ModelConfig, count: int) -> Sequence[Arrays]:
    """Return `count` different items for a model's inputs, always the same ones."""
    random = np.random.default_rng(20_240_614)
    return [{tensor.name: _sample(tensor, random, index) for tensor in config.inputs} for index in range(count)]


def _sample(tensor: Tensor, random: np.random.Generator, index: int) -> NDArray[np.uint8] | NDArray[np.float32]:
    if tensor.data_type == "TYPE_UINT8":
        return drawn_face((tensor.dims[0], tensor.dims[1]), random, index)
    if len(tensor.dims) >= 2 and tensor.dims[-2:] == (80, 16):
        loudness = random.uniform(-4.0, 2.0, (*tensor.dims[:-2], 1, tensor.dims[-1]))
        return np.clip(loudness + random.normal(0, 1, tensor.dims), -4, 4).astype(np.float32)
    return random.normal(0, 1, tensor.dims).astype(np.float32)


def drawn_face(shape_hw: tuple[int, int], random: np.random.Generator, index: int) -> NDArray[np.uint8]:
    """Return a (h, w, 3) uint8 RGB drawing of a face before a noisy ground, placed by chance; every third is noise alone."""
    size_px = min(shape_hw)
    picture = cv2.resize(random.integers(0, 256, (12, 12, 3), np.uint8), shape_hw[::-1], interpolation=cv2.INTER_CUBIC)
    if index % 3 != 2:
        unit = size_px * random.uniform(0.25, 0.4)
        x, y = np.array(shape_hw[::-1]) * random.uniform(0.4, 0.6, 2)
        skin = tuple(int(value) for value in random.integers((150, 90, 70), (240, 190, 170)))

        def ellipse(dx: float, dy: float, rx: float, ry: float, colour: tuple[int, ...]) -> None:
            centre = (round(x + dx * unit), round(y + dy * unit))
            cv2.ellipse(picture, centre, (max(1, round(rx * unit)), max(1, round(ry * unit))), 0, 0, 360, colour, -1, cv2.LINE_AA)

        ellipse(0, 0, 0.75, 1.0, skin)
        for side in (-1, 1):
            ellipse(side * 0.3, -0.2, 0.15, 0.07, (240, 240, 240))
            ellipse(side * 0.3, -0.2, 0.06, 0.06, (30, 20, 20))
            ellipse(side * 0.3, -0.36, 0.18, 0.03, (60, 40, 30))
        ellipse(0, 0.15, 0.1, 0.06, tuple(round(value * 0.8) for value in skin))
        ellipse(0, 0.5, 0.28, 0.08 + 0.05 * index, (150, 40, 50))
    noise = random.normal(0, 6, picture.shape)
    return np.asarray(np.clip(cv2.GaussianBlur(picture, (0, 0), size_px / 256) + noise, 0, 255), np.uint8)
