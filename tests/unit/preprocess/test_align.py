"""Alignment and resampling: geometry that can be checked by undoing it."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.align import CROP_TEMPLATES, crop_template, frame_to_crop_matrix, invert_affine, warp


@given(st.floats(-180, 180), st.floats(0.05, 20), st.floats(-2000, 2000), st.floats(-2000, 2000), st.sampled_from(sorted(CROP_TEMPLATES)))
def test_any_turn_scale_and_shift_is_recovered(angle_deg: float, scale: float, x: float, y: float, name: str) -> None:
    template5 = crop_template(name, 256)
    angle = np.deg2rad(angle_deg)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks5 = (template5 @ linear.T + [x, y]).astype(np.float32)
    matrix = frame_to_crop_matrix(landmarks5, template5)
    np.testing.assert_allclose(landmarks5 @ matrix[:, :2].T + matrix[:, 2], template5, atol=0.5)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_mirrored_points_do_not_mirror_the_crop() -> None:
    template5 = crop_template("ffhq_512", 256)
    assert np.linalg.det(frame_to_crop_matrix(template5 * np.array([-1, 1], np.float32), template5)[:, :2]) > 0


def test_points_that_fall_together_and_unknown_templates_are_refused() -> None:
    template5 = crop_template("lower_face", 256)
    with pytest.raises(ValueError, match="fall together"):
        frame_to_crop_matrix(np.zeros((5, 2), np.float32), template5)
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        frame_to_crop_matrix(np.zeros((4, 2), np.float32), template5)
    with pytest.raises(ValueError, match="lower_face"):
        crop_template("nose", 256)


def test_inverse_undoes_the_affine() -> None:
    matrix = np.array([[2.0, 0.5, 3.0], [-0.5, 2.0, -7.0]])
    both = np.vstack([invert_affine(matrix), [0, 0, 1]]) @ np.vstack([matrix, [0, 0, 1]])
    np.testing.assert_allclose(both, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 0.25, 0.4, 0.59, 0.61, 1.0, 2.5])
def test_blob_stays_where_the_matrix_puts_it_whatever_the_scale(scale: float) -> None:
    y, x = np.mgrid[:400, :500].astype(np.float32)
    blob = np.asarray(np.exp(-((x - 231.0) ** 2 + (y - 187.0) ** 2) / (2 * 20.0**2)), np.float32)
    matrix = np.array([[scale, 0.0, 3.0], [0.0, scale, -2.0]])
    result = warp(blob, matrix, (round(500 * scale) + 8, round(400 * scale)), cv2.BORDER_CONSTANT)
    ry, rx = np.mgrid[: result.shape[0], : result.shape[1]]
    centre = (rx * result).sum() / result.sum(), (ry * result).sum() / result.sum()
    np.testing.assert_allclose(centre, (231 * scale + 3, 187 * scale - 2), atol=0.05)


def test_shrinking_a_fine_pattern_gives_its_mean_and_no_moire() -> None:
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    result = warp(board, np.array([[0.3, 0.0, 0.0], [0.0, 0.3, 0.0]]), (70, 70), cv2.BORDER_REPLICATE)
    assert np.abs(result.astype(int) - 127).max() < 30


def test_identity_changes_nothing() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    assert np.array_equal(warp(image, np.eye(2, 3), (50, 40), cv2.BORDER_REPLICATE), image)
