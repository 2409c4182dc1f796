"""Tint and blur of a generated patch go; what is new stays; a patch that is the source's own in the ring comes back to the bit."""

import cv2
import numpy as np
from numpy.typing import NDArray

from postprocess.mask import paste_mask
from postprocess.match import MAX_ADDED, MAX_OFFSET, matched_patch

SIZE_PX = 192
MASK = paste_mask(SIZE_PX, (0.05, 0.4, 0.95, 0.98))
SKIN = np.s_[90:115, 60:135]
"""Inside the mask, away from its edge and from the mouth."""
MOUTH = np.s_[140:150, 86:106]
TINT = np.array([7, 4, -3])


def face(seed: int = 1) -> NDArray[np.uint8]:
    """Skin with pores and shading."""
    random = np.random.default_rng(seed)
    pores = cv2.GaussianBlur(random.standard_normal((SIZE_PX, SIZE_PX, 1)).astype(np.float32), (0, 0), 0.8)[:, :, None] * 25
    shading = np.linspace(-30, 30, SIZE_PX, dtype=np.float32)[None, :, None]
    return np.asarray(np.clip(np.array([190, 140, 120]) + pores + shading, 0, 255), np.uint8)


def generated(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what a small generator makes of it: blurred, tinted, with an open mouth."""
    small = cv2.resize(image, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC) + TINT
    patch = np.ascontiguousarray(np.clip(large, 0, 255), np.uint8)
    cv2.ellipse(patch, (96, 145), (24, 12), 0, 0, 360, (60, 25, 30), -1)
    return patch


def fine(picture: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    values = picture.astype(np.float32)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), 2), np.float32)


def test_patch_that_equals_the_source_around_the_mouth_comes_back_to_the_bit() -> None:
    image = face()
    patch = image.copy()
    patch[110:170, 70:130] = (60, 25, 30)
    patch[175:] += np.uint8(9)  # a jaw that moves at the ring's lower side
    assert matched_patch(image, patch, MASK) is patch
    assert matched_patch(image, patch, np.zeros_like(MASK)) is patch


def test_skin_gets_the_sources_colour_and_detail_back() -> None:
    image = face()
    patch = generated(image)
    matched = matched_patch(image, patch, MASK)
    before, after = (picture[SKIN].astype(float) - image[SKIN] for picture in (patch, matched))
    np.testing.assert_allclose(before.mean((0, 1)), TINT, atol=1)
    np.testing.assert_allclose(after.mean((0, 1)), 0, atol=0.5)
    source = fine(image)[SKIN].std()
    assert fine(patch)[SKIN].std() < 0.35 * source
    assert 0.85 * source < fine(matched)[SKIN].std() < 1.1 * source
    assert np.corrcoef(fine(matched)[SKIN].ravel(), fine(image)[SKIN].ravel())[0, 1] > 0.95, "the source's own pores, not others"


def test_new_mouth_stays_without_a_bright_rim() -> None:
    image = face()
    patch = generated(image)
    matched = matched_patch(image, patch, MASK)
    np.testing.assert_allclose(matched[MOUTH].mean((0, 1)), np.array([60, 25, 30]) - TINT, atol=2)
    around = np.s_[120:170, 60:132]
    added = np.abs(matched[around] - (patch[around] - TINT))
    is_new = np.abs(patch[around].astype(int) - image[around]).max(2) > 80
    assert added[is_new].max() <= MAX_ADDED + 1.5, "the tint is estimated to a level"


def test_match_is_bounded_and_outside_the_mask_nothing_is_touched() -> None:
    image = face()
    matched = matched_patch(image, np.asarray(255 - image, np.uint8), MASK)
    moved = matched - (255.0 - image)
    assert np.abs(moved[SKIN]).max() <= MAX_OFFSET + MAX_ADDED + 1e-3
    assert not moved[: int(0.4 * SIZE_PX) - 1].any()


def test_match_does_not_flicker_with_the_noise_of_the_frames() -> None:
    random = np.random.default_rng(4)
    levels = []
    for _ in range(8):
        image = np.asarray(np.clip(face() + random.normal(0, 3, (SIZE_PX, SIZE_PX, 3)), 0, 255), np.uint8)
        levels.append((matched_patch(image, generated(image), MASK)[SKIN].astype(float) - image[SKIN]).mean((0, 1)))
    assert np.std(levels, axis=0).max() < 0.25
