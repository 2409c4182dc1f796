"""Cuts, jumps, flashes and movement, told apart by thumbnails."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocess.cuts import REACH, ChangeMeter, CutFinder, Seam, first_changes, thumbnail

Pictures = list[NDArray[np.uint8]]


def scene(seed: int) -> NDArray[np.uint8]:
    """Return a smooth picture of 192 x 108."""
    coarse = np.random.default_rng(seed).integers(20, 220, (6, 9, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (192, 108), interpolation=cv2.INTER_CUBIC), np.uint8)


def shot(seed: int, count: int, speed: float = 0.2, start: float = 0.0) -> Pictures:
    """Return a scene that moves to the side, px a frame."""
    moves = [np.array([[1, 0, start + speed * frame], [0, 1, 0]]) for frame in range(count)]
    return [np.asarray(cv2.warpAffine(scene(seed), move, (192, 108), borderMode=cv2.BORDER_REFLECT), np.uint8) for move in moves]


def changes_of(pictures: Pictures) -> NDArray[np.float32]:
    meter = ChangeMeter()
    rows = [changes for picture in pictures for changes in meter.push(thumbnail(picture))]
    return np.stack([*rows, *meter.finish()])


def seams(pictures: Pictures) -> dict[int, Seam]:
    """Return what lies before frames, but for nothing."""
    finder = CutFinder()
    found = [seam for changes in changes_of(pictures) for seam in finder.push(changes)]
    found.extend(finder.finish())
    assert len(found) == len(pictures)
    return {index: seam for index, seam in enumerate(found) if seam}


def test_cut_is_found_at_its_frame() -> None:
    assert seams(shot(1, 20) + shot(2, 12) + shot(3, 9)) == {20: Seam.CUT, 32: Seam.CUT}


def test_jump_in_a_shot_is_no_cut() -> None:
    assert seams(shot(1, 20) + shot(1, 20, start=6.5)) == {20: Seam.JUMP}


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("flash", [(1.0, 110), (0.1, 230), (0.2, 0)])
def test_flash_is_no_cut(length: int, flash: tuple[float, int]) -> None:
    gain, offset = flash
    pictures = shot(1, 40)
    for index in range(20, 20 + length):
        pictures[index] = np.clip(pictures[index] * gain + offset, 0, 255).astype(np.uint8)
    assert seams(pictures) == {}


def test_thrown_camera_is_no_cut() -> None:
    assert seams(shot(1, 15) + shot(1, 30, speed=9.0, start=3.0) + shot(1, 15, start=273.0)) == {}


def test_light_that_is_switched_is_no_cut() -> None:
    pictures = shot(1, 40)
    assert seams(pictures[:20] + [(picture * 0.5 + 60).astype(np.uint8) for picture in pictures[20:]]) == {}


def test_black_and_still_pictures_have_no_cuts() -> None:
    assert seams([np.zeros((108, 192, 3), np.uint8)] * 12) == {}
    assert seams([scene(4)] * 12) == {}


def test_change_is_0_of_the_same_and_1_of_pictures_without_anything_in_common() -> None:
    changes = changes_of([scene(1), scene(1), scene(2), scene(2), scene(2), scene(2)])
    assert np.isnan(changes[0][0]) and changes[1][0] == 0
    different = np.mean([changes_of([scene(seed), scene(seed + 100)])[1][0] for seed in range(40)])
    assert different == pytest.approx(1, abs=0.15)
    assert changes[2].tolist() == [changes[2][0]] * REACH


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_changes_of_the_first_frames_do_not_know_of_the_others(count: int, seed: int) -> None:
    noise = np.random.default_rng(seed)
    pictures = [noise.integers(0, 255, (8, 8, 3)).astype(np.uint8) for _ in range(30)]
    np.testing.assert_array_equal(first_changes(changes_of(pictures), count), changes_of(pictures[:count]))
