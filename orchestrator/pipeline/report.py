"""What a render did, for people and programs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.inference.usage import ModelUse


@dataclass(frozen=True, slots=True)
class RenderReport:
    """A finished render."""

    output: str
    frame_count: int
    frame_rate: str
    """Exact, as a fraction of Hz."""
    size_wh: tuple[int, int]
    duration_s: float
    audio_duration_s: float
    source_frame_count: int
    """Source frames that were analysed."""
    face_frame_count: int
    """Those among them that show the speaker's face."""
    passed_through: tuple[tuple[int, int], ...]
    """Output frames that are the source's own, as ranges [first, behind the last): no face there, or the mouth at rest."""
    stage_s: Mapping[str, float]
    frames_per_s: float
    """Speed of the render stage."""
    encoding: str
    """How pictures and sound are stored: codec, encoder, pixel format, container."""
    models: Mapping[str, ModelUse]
    """Triton's own count of what each role did meanwhile."""
    notes: tuple[str, ...]
    """Sentences about how the source was treated."""


def frame_ranges(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """Return where (n,) flags are set, as ranges [first, behind the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple((int(first), int(stop)) for first, stop in edges.reshape(-1, 2))
