"""Letterboxing: a marker put into the coded frame is found again through the square."""

import numpy as np
import pytest

from preprocess.letterbox import Letterbox


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_marker_in_the_square_leads_back_to_its_place_in_the_coded_frame(rotation_deg: int) -> None:
    coded = np.zeros((60, 100, 3), np.uint8)
    coded[13, 71] = 255
    box = Letterbox.fit((100, 60), rotation_deg, 100)
    assert box.scaled_coded_wh == (100, 60)
    square = box.place(coded)
    y, x = np.argwhere(square[:, :, 0] == 255)[0]
    np.testing.assert_allclose(box.points_to_frame(np.array([[x, y]], np.float32)), [[71, 13]], atol=1e-4)


def test_centres_of_pixels_stay_centres_when_scaled() -> None:
    box = Letterbox.fit((1920, 1080), 0, 384)
    assert box.scaled_wh == (384, 216)
    np.testing.assert_allclose(box.points_to_frame(np.array([191.5, 107.5], np.float32)), [959.5, 539.5], atol=1e-3)
    assert box.place(np.full((216, 384, 3), 9, np.uint8))[216:].max() == 0
