"""Letterboxing: a marker put into the coded frame is found again through the square."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.letterbox import Letterbox
from preprocess.orientation import UPRIGHT, Orientation


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_marker_in_the_square_leads_back_to_its_place_in_the_coded_frame(turn_deg: int, is_mirrored: bool) -> None:
    coded = np.zeros((60, 100, 3), np.uint8)
    coded[13, 71] = 255
    box = Letterbox.fit((100, 60), Orientation(turn_deg, is_mirrored), 100)
    assert box.scaled_coded_wh == (100, 60)
    square = box.place(coded)
    y, x = np.argwhere(square[:, :, 0] == 255)[0]
    np.testing.assert_allclose(box.points_to_frame(np.array([[x, y]], np.float32)), [[71, 13]], atol=1e-4)


def test_centres_of_pixels_stay_centres_when_scaled() -> None:
    box = Letterbox.fit((1920, 1080), UPRIGHT, 384)
    assert box.scaled_wh == (384, 216)
    np.testing.assert_allclose(box.points_to_frame(np.array([191.5, 107.5], np.float32)), [959.5, 539.5], atol=1e-3)
    assert box.place(np.full((216, 384, 3), 9, np.uint8))[216:].max() == 0


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([0, 90, 180, 270]), st.sampled_from([320, 640]))
def test_any_picture_fits_and_its_corners_lead_back_to_the_frames(width: int, height: int, turn_deg: int, size_px: int) -> None:
    box = Letterbox.fit((width, height), Orientation(turn_deg), size_px)
    assert max(box.scaled_wh) == size_px
    assert min(box.scaled_wh) >= 1
    assert box.place(np.zeros((box.scaled_coded_wh[1], box.scaled_coded_wh[0], 3), np.uint8)).shape == (size_px, size_px, 3)
    right, bottom = box.scaled_wh[0] - 0.5, box.scaled_wh[1] - 0.5
    corners = box.points_to_frame(np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], np.float32))
    expected = [(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)]
    assert {tuple(np.round(corner, 1).tolist()) for corner in corners.astype(float)} == {tuple(np.round(corner, 1).tolist()) for corner in expected}


@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([0, 90, 180, 270]), st.sampled_from([96, 384, 640]))
def test_detector_with_open_sizes_gets_the_least_picture_that_holds_the_frame(width: int, height: int, turn_deg: int, size_px: int) -> None:
    box = Letterbox.fit((width, height), Orientation(turn_deg), size_px, is_square=False)
    square = Letterbox.fit((width, height), Orientation(turn_deg), size_px)
    assert (box.scaled_wh, box.upright_wh, max(box.canvas_wh)) == (square.scaled_wh, square.upright_wh, size_px)
    for side, scaled in zip(box.canvas_wh, box.scaled_wh, strict=True):
        assert side % 32 == 0 and side >= max(96, scaled)
        assert side == 96 or side - 32 < scaled
    scaled_coded = np.full((box.scaled_coded_wh[1], box.scaled_coded_wh[0], 3), 7, np.uint8)
    np.testing.assert_array_equal(box.place(scaled_coded), square.place(scaled_coded)[: box.canvas_wh[1], : box.canvas_wh[0]])


@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_marker_survives_scaling_and_turning_to_within_a_pixel(turn_deg: int) -> None:
    """The coded frame is shrunk four times, then turned: the marker's middle must come back from the square to where it was drawn."""
    coded = np.zeros((240, 400, 3), np.uint8)
    coded[52:60, 284:292] = 255  # centre 287.5, 55.5
    box = Letterbox.fit((400, 240), Orientation(turn_deg), 100)
    scaled = coded.reshape(60, 4, 100, 4, 3).mean((1, 3)).astype(np.uint8)
    rows, columns = np.nonzero(box.place(scaled)[:, :, 0] > 128)
    found = box.points_to_frame(np.array([columns.mean(), rows.mean()], np.float32))
    np.testing.assert_allclose(found, [287.5, 55.5], atol=0.01)
