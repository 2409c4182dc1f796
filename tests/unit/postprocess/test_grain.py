"""Grain: as much noise after an edit as before it, where there was noise at all, and nowhere else."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from postprocess.grain import grain_of, match_grain

EDITED = np.zeros((120, 160), np.bool_)
EDITED[30:90, 40:120] = True


def face(seed: int, noise: float, blur_px: float = 0.0) -> NDArray[np.float64]:
    """Return a shaded (120, 160) picture with an edge in it and noise of a standard deviation, levels."""
    y, x = np.mgrid[:120, :160]
    grain: NDArray[Any] = np.random.default_rng(seed).standard_normal((120, 160))
    if blur_px:
        grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), blur_px))
        grain /= grain.std()
    return np.asarray(90 + 0.3 * x + 0.2 * y + 40.0 * (y > 60) + noise * grain)


def edit(noise: float, unit: int = 1, blur_px: float = 0.0, seed: int = 3) -> tuple[NDArray[Any], ...]:
    """Return a source, what an edit made of it that took all its noise, and that with its grain matched."""
    dtype = np.uint8 if unit == 1 else np.uint16
    source: NDArray[Any] = np.clip(np.rint(face(1, noise, blur_px) * unit), 0, 256 * unit - 1).astype(dtype)
    smooth = source.copy()
    smooth[EDITED] = np.rint(face(1, 0.0) * unit).astype(dtype)[EDITED]
    matched = smooth.copy()
    match(source, matched, unit, seed)
    return source, smooth, matched


def match(source: NDArray[Any], edited: NDArray[Any], unit: int, seed: int) -> None:
    """Measure the source's grain and match an edit's to it, in place."""
    grain = grain_of(source, unit)
    if grain is not None:
        match_grain(grain, edited, EDITED, unit, (seed, 0))


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("noise", [4.0, 8.0])
def test_edited_region_has_the_sources_noise_right_up_to_an_edge(noise: float, unit: int) -> None:
    source, smooth, matched = edit(noise, unit)
    added = (matched.astype(float) - smooth)[40:80, 50:110] / unit
    assert added.std() == pytest.approx(noise, rel=0.05)
    assert abs(added[19:23].std() - added[:10].std()) < 0.25 * noise, "also beside the edge"
    assert abs(added.mean()) < 0.3 and np.array_equal(matched[~EDITED], source[~EDITED])
    correlation = np.corrcoef(added.ravel(), (source.astype(float) - face(1, 0.0) * unit)[40:80, 50:110].ravel())[0, 1]
    assert abs(correlation) < 0.1, "it is new noise"


@pytest.mark.parametrize(("noise", "blur_px"), [(0.0, 0.0), (1.4, 0.0), (8.0, 0.9)], ids=["none", "a clean camera's", "texture"])
def test_clean_sources_and_texture_are_left_as_they_are(noise: float, blur_px: float) -> None:
    _, smooth, matched = edit(noise, blur_px=blur_px)
    assert np.array_equal(matched, smooth)


def test_skins_own_texture_is_not_made_up_as_noise() -> None:
    skin = face(1, 3.0, blur_px=1.5)
    source = np.rint(skin + 4.0 * np.random.default_rng(8).standard_normal(skin.shape)).astype(np.uint8)
    matched = source.copy()
    matched[EDITED] = np.rint(skin)[EDITED]
    match(source, matched, 1, 3)
    inside, around = (np.diff(picture[70:88, 45:115].astype(float), n=2, axis=1).std() for picture in (matched, source))
    assert inside == pytest.approx(around, rel=0.05)


def test_noise_depends_on_the_source_frame_alone() -> None:
    assert np.array_equal(edit(6.0, seed=7)[2], edit(6.0, seed=7)[2]) and not np.array_equal(edit(6.0, seed=7)[2], edit(6.0, seed=8)[2])


def test_region_that_kept_its_noise_gets_no_more() -> None:
    source = np.clip(np.rint(face(1, 6.0)), 0, 255).astype(np.uint8)
    shifted = source.copy()
    shifted[EDITED] = np.roll(source, 5, axis=1)[EDITED]
    matched = shifted.copy()
    match(source, matched, 1, 3)
    assert np.abs(matched.astype(float) - shifted).std() < 0.4 * 6.0


def test_edges_of_the_chin_and_what_lies_above_it_do_not_hide_the_grain() -> None:
    plain, lined, bearded = face(1, 6.0), face(1, 6.0), face(1, 6.0)
    lined[100:] += 90.0
    bearded[:80] += 3.0 * (face(2, 6.0, blur_px=1.5)[:80] - face(2, 0.0)[:80])
    shares = [None if grain is None else grain.share for grain in (grain_of(np.rint(source), 1) for source in (plain, lined, bearded))]
    assert shares == [1.0, 1.0, 1.0]


def test_soft_grain_gets_softer_noise_than_a_sensors_own() -> None:
    def alike(blur_px: float) -> float:
        _, smooth, matched = edit(8.0, blur_px=blur_px)
        added = (matched.astype(float) - smooth)[40:80, 50:110]
        return float(np.corrcoef(added[:, :-1].ravel(), added[:, 1:].ravel())[0, 1])

    assert alike(0.6) > alike(0.0) + 0.1


def test_chroma_gets_grain_where_luma_has_it() -> None:
    chroma, luma = np.rint(face(1, 1.4)), grain_of(np.rint(face(1, 8.0)), 1)
    assert luma is not None and grain_of(chroma, 1) is None and grain_of(chroma, 1, luma) is not None


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (2, 40), (40, 2), (3, 3)])
def test_little_that_the_edge_of_the_frame_leaves_of_a_face_can_be_matched(shape: tuple[int, int]) -> None:
    noisy = np.clip(np.random.default_rng(1).normal(128, 8, shape), 0, 255).astype(np.uint8)
    grain = grain_of(noisy, 1)
    assert grain is None or min(shape) > 1
    if grain is not None:
        smooth = np.full(shape, 128, np.uint8)
        match_grain(grain, smooth, np.ones(shape, np.bool_), 1, (3, 0))
        assert smooth.std() > 0
