"""Grain: what an edit smooths away of a source's noise is made up for, so that a mouth does not look cleaner than the face around it."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.yuv import Plane

NONE_BELOW, WHOLE_ABOVE = 2.0, 3.0
"""Noise, levels of 8 bits, below which a source counts as clean, and above which all that is missing is made up for. Clean 720p faces: 1.2 to 1.4."""

GRAIN_BELOW, TEXTURE_ABOVE = 0.25, 0.45
"""How alike neighbouring samples' fine detail is: below, it is grain; above, texture, which moves with the skin and must not be made up. Measured:
0.0 for a sensor's noise, 0.5 to 0.7 for skin."""

FINE_PX = 2.0
"""Radius below which detail is fine. Coarser grain survives in the crop that a model is given."""

AROUND_PX = 9
"""Side of the square over which noise is measured."""

_NOISE = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
"""Immerkaer's mask (1996), which answers to noise and hardly to edges: lips and teeth are not taken for it."""

_LEAST_SIDE_PX = 2
"""A line of samples, as the frame's edge leaves of a face, is all edge to that mask, which finds no noise there."""

_FLAT = 1.5
"""A place with up to so many times the usual fine detail has no edges in it."""


@dataclass(frozen=True, slots=True)
class Grain:
    """A source's noise around an edit."""

    loud: float
    """How far it counts as noise by its strength, 0..1."""
    alike: float
    """How alike neighbouring samples of it are, 0 for a sensor's own."""
    share: float
    """How much of what is missing is made up for, 0..1."""
    energy: float
    """What `_noise_energy` finds, the median over the region."""


def grain_of(original: Plane, unit: float, luma: Grain | None = None) -> Grain | None:
    """Measure a region's noise before it is edited, (h, w); None where there is none to make up for.

    Args:
        original: the samples.
        unit: steps of a sample in one level of 8 bits.
        luma: for samples of chroma the grain of their luma. It decides whether the source is noisy: chroma has less noise, and less to hide it.
    """
    if min(original.shape) < _LEAST_SIDE_PX:
        return None
    fine = _fine(original[len(original) * 2 // 3 :], unit)  # below the mouth is skin
    energy = _energy(fine)
    usual = _median(energy)
    loud = _ramp(usual**0.5, NONE_BELOW, WHOLE_ABOVE) if luma is None else luma.loud
    if not loud:
        return None
    flat = fine * (energy < _FLAT * usual)
    alike = float(np.vdot(fine[:, :-1], flat[:, 1:])) / max(float(np.vdot(fine, flat)), 1e-6)
    share = loud * _ramp(alike, TEXTURE_ABOVE, GRAIN_BELOW)
    return Grain(loud, alike, share, _median(_noise_energy(original))) if share else None


def match_grain(grain: Grain, region: Plane, is_edited: NDArray[np.bool_], unit: float, seed: Sequence[int]) -> None:
    """Bring an edited region's noise up to its source's, in place; samples that were not edited keep their value.

    Args:
        grain: of the region before the edit.
        region: (h, w), edited; writable.
        is_edited: (h, w).
        unit: steps of a sample in one level of 8 bits.
        seed: of the noise: that of the same plane of the same source frame is always the same, so a still's stays where it is.
    """
    # Uniform numbers take a quarter of the time of normal ones, and what is kept of them, their fine detail, looks the same.
    noise = np.random.default_rng(seed).random(region.shape, np.float32)
    if grain.alike > 0.05:  # neighbours of noise that a Gaussian of radius r has blurred are alike by exp(-1 / 4 r^2)
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), (-0.25 / np.log(grain.alike)) ** 0.5), np.float32)
    noise -= cv2.GaussianBlur(noise, (0, 0), FINE_PX)
    missing = np.sqrt(np.maximum(np.float32(grain.energy) - _noise_energy(region), 0.0))
    added = np.float32(grain.share / float(np.square(_noisy(noise)).mean()) ** 0.5) * missing * noise
    limit = np.float32(256 * unit - 1)
    region[is_edited] = np.rint(np.clip(region + added, 0, limit))[is_edited].astype(region.dtype)


def _fine(plane: Plane, unit: float) -> NDArray[np.float32]:
    samples = plane.astype(np.float32) / np.float32(unit)
    return np.asarray(samples - cv2.GaussianBlur(samples, (0, 0), FINE_PX), np.float32)


def _noise_energy(plane: Plane) -> NDArray[np.float32]:
    """Return the energy of what is neither flat nor a straight edge, around each sample."""
    return _energy(_noisy(plane.astype(np.float32)))


def _noisy(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.filter2D(samples, -1, _NOISE), np.float32)


def _energy(detail: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(detail * detail, (AROUND_PX, AROUND_PX)), np.float32)


def _median(energy: NDArray[np.float32]) -> float:
    """Return the median of a region's energies: neighbours share most of the square they are measured over, so every fourth says as much."""
    sample = energy[::4, ::4].ravel()
    sample.partition(len(sample) // 2)  # a seventh of the time of `np.median`
    return float(sample[len(sample) // 2])


def _ramp(value: float, start: float, end: float) -> float:
    return min(max((value - start) / (end - start), 0.0), 1.0)
