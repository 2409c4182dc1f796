"""Masks: soft, and where they should be."""

import numpy as np

from postprocess.mask import outline_mask, paste_mask


def test_outline_takes_away_what_lies_beside_the_face() -> None:
    mask = paste_mask(128, (0.1, 0.1, 0.9, 0.9))
    square = np.array([[40, 40], [88, 40], [88, 100], [40, 100]], np.float32)
    bounded = outline_mask(mask, square)
    assert bounded[70, 64] > 0.99 * mask[70, 64]
    assert not bounded[70, :25].any() and not bounded[70, 104:].any() and not bounded[:25].any()
    assert (bounded <= mask + 1e-6).all()


def test_edge_of_the_outline_is_soft_and_order_of_its_points_does_not_matter() -> None:
    mask = paste_mask(128, (0.1, 0.1, 0.9, 0.9))
    points = np.array([[40, 40], [88, 40], [88, 100], [40, 100], [64, 70]], np.float32)
    bounded = outline_mask(mask, points)
    assert abs(np.diff(bounded[70])).max() < 0.25
    np.testing.assert_array_equal(bounded, outline_mask(mask, points[[2, 4, 0, 3, 1]]))
