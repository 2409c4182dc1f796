"""Alignment and resampling: geometry that can be checked by undoing it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
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


def test_dlibs_template_is_dlibs_mean_face() -> None:
    """Points 36 to 41 and 42 to 47 (the eyes), 30, 48 and 54 of `mean_face_shape_x` and `_y` in dlib's interpolation.h, in a border of 0.25."""
    eyes_y = [0.216423, 0.178758, 0.179852, 0.231733, 0.245099, 0.244077]
    left_x = [0.121737, 0.187122, 0.265825, 0.334606, 0.260918, 0.182743]
    right_x = [0.645647, 0.714428, 0.793132, 0.858516, 0.79751, 0.719335]
    x = [np.mean(left_x), np.mean(right_x), 0.490127, 0.254149, 0.726104]
    y = [np.mean(eyes_y), np.mean(eyes_y), 0.515625, 0.780233, 0.780233]
    mean_face = np.array([x, y], np.float64).T
    np.testing.assert_allclose(crop_template("dlib_150", 1), (mean_face + 0.25) / 1.5, atol=1e-4)


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


@settings(max_examples=40)
@given(st.floats(0.08, 3.0), st.floats(-180, 180), st.floats(-300, 300), st.floats(-300, 300))
def test_warp_of_a_ramp_is_the_ramp_read_through_the_inverse(scale: float, angle_deg: float, x: float, y: float) -> None:
    """A linear ramp is kept exactly by linear interpolation and by area means alike, so any shift shows."""
    rows, columns = np.mgrid[:300, :400].astype(np.float32)
    image = np.asarray(columns + 1000 * rows, np.float32)
    c, s = scale * np.cos(np.deg2rad(angle_deg)), scale * np.sin(np.deg2rad(angle_deg))
    matrix = np.array([[c, -s, x], [s, c, y]])
    result = warp(image, matrix, (64, 48), cv2.BORDER_REPLICATE)
    ry, rx = np.mgrid[:48, :64]
    source = np.einsum("ij,jhw->ihw", invert_affine(matrix), np.stack([rx, ry, np.ones_like(rx)]).astype(float))
    margin = 3 + 2 / scale
    inside = ((source >= margin) & (source <= np.array([399, 299])[:, None, None] - margin)).all(0)
    found_rows = np.round((result - np.clip(source[0], 0, 399)) / 1000, 6)
    # cv2 places samples to 1/32 px of what it reads, which in the shrunk picture is 1/32 of `1 / scale` px.
    tolerance = 0.05 * max(1.0, 1 / scale)
    assert (np.abs(found_rows - source[1])[inside] < tolerance + 0.001 * 2 * tolerance).all()


def test_warp_keeps_type_channels_and_border_rule() -> None:
    image = np.full((40, 50, 3), 200, np.uint8)
    for scale in (0.2, 1.0):
        matrix = np.array([[scale, 0.0, 30.0], [0.0, scale, 30.0]])
        black = warp(image, matrix, (64, 64), cv2.BORDER_CONSTANT)
        filled = warp(image, matrix, (64, 64), cv2.BORDER_REPLICATE)
        assert black.shape == filled.shape == (64, 64, 3) and black.dtype == filled.dtype == np.uint8
        assert black[0, 0].tolist() == [0, 0, 0] and filled.min() == 200
    assert warp(image[:, :, 0].astype(np.float32), np.eye(2, 3), (50, 40), cv2.BORDER_REPLICATE).dtype == np.float32


def test_crop_far_outside_a_picture_that_is_shrunk_shows_its_nearest_edge() -> None:
    image = np.zeros((400, 400), np.uint8)
    image[:, -1] = 77
    result = warp(image, np.array([[0.25, 0.0, -500.0], [0.0, 0.25, 0.0]]), (64, 64), cv2.BORDER_REPLICATE)
    assert (result == 77).all()
    assert not warp(image, np.array([[0.25, 0.0, -500.0], [0.0, 0.25, 0.0]]), (64, 64), cv2.BORDER_CONSTANT).any()


def test_noisy_landmarks_get_the_transform_of_least_squares() -> None:
    """The oracle is numpy's general solver on the four numbers of a similarity."""
    template5 = crop_template("ffhq_512", 256)
    landmarks5 = (template5 * 1.7 + np.random.default_rng(8).normal(0, 5, (5, 2)) + [300, 200]).astype(np.float32)
    equations, wanted = [], []
    for (px, py), (qx, qy) in zip(landmarks5.astype(float), template5.astype(float), strict=True):
        equations += [[px, -py, 1, 0], [py, px, 0, 1]]
        wanted += [qx, qy]
    a, b, tx, ty = np.linalg.lstsq(np.array(equations), np.array(wanted), rcond=None)[0]
    np.testing.assert_allclose(frame_to_crop_matrix(landmarks5, template5), [[a, -b, tx], [b, a, ty]], rtol=1e-6, atol=1e-6)
