"""Output frames on their way to the lip model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.media.reader import DecodedFrame
from orchestrator.pipeline.enhance import Face
from preprocess.yuv import FaceCrop


@dataclass(frozen=True, slots=True)
class Speaking:
    """A face of an output frame, and what it says."""

    face: Face
    face_crop: FaceCrop
    speech_window: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shot:
    """One output frame on its way through the stages."""

    index: int
    """Position in the output."""
    frame: DecodedFrame
    speaking: tuple[Speaking, ...]
    weight: float | None
    """Share with which it is faded in over the shot before, at the seam of a loop; None where it stands for itself."""
