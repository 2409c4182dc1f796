"""A real face for models to look at."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from orchestrator.models.mouth_warp import CROP_TEMPLATE
from preprocess.align import crop_template, frame_to_crop_matrix


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """The aligned crop of a real face, smiling, 256 px."""
    by_eye = np.array([[203, 101], [248, 103], [224, 124], [204, 144], [242, 145]], np.float32)
    matrix = frame_to_crop_matrix(by_eye, crop_template(CROP_TEMPLATE, 256))
    return np.asarray(cv2.warpAffine(astronaut(), matrix, (256, 256), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), np.uint8)
