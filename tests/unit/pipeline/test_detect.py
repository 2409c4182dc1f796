"""The search for faces, with a detector that is answered by hand."""

from concurrent.futures import Future
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.errors import InferenceTimeout
from orchestrator.inference.detector import FaceDetector
from orchestrator.pipeline.detect import _Picture, _Search, _Window
from preprocess.cuts import thumbnail


class Detector:
    """Answers when it is told to."""

    batch_size = 8

    def __init__(self) -> None:
        self.asked: list[Future[NDArray[np.float32]]] = []

    def detect(self, images: NDArray[np.uint8]) -> Future[NDArray[np.float32]]:
        self.asked.append(Future())
        return self.asked[-1]


def test_request_that_failed_is_nothing_that_was_finished() -> None:
    """The first thread that saw a Triton stand still gave its requests up, and their ends once began the time of the stall anew for all others."""
    images = [np.full((32, 32, 3), level, np.uint8) for level in (0, 80, 160)]
    window = _Window([_Picture(number, False, thumbnail(image)) for number, image in enumerate(images)], list[Any](images))
    detector, ticks = Detector(), list[None]()
    search = _Search(window, cast(FaceDetector, detector), 2, lambda: ticks.append(None))
    detector.asked[0].set_exception(InferenceTimeout("Triton did not answer in time."))
    with pytest.raises(InferenceTimeout):
        search.result(0)
    assert not ticks
