"""Paste-back into YUV planes, and the colour arithmetic around it."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from postprocess.mask import paste_mask
from postprocess.paste import MouthChange, mouth_change, paste_back
from preprocess.hdr import sdr_curve
from preprocess.yuv import YuvImage, colour_matrix, crop_face

SIZE_PX = 128
BT709 = colour_matrix(0.2126, 0.0722, full_range=False)
MASK = paste_mask(SIZE_PX, (0.25, 0.25, 0.75, 0.75))


def flat_frame(value: tuple[int, int, int] = (100, 120, 140), subsampling: tuple[int, int] = (2, 2)) -> YuvImage:
    sx, sy = subsampling
    shapes = [(240, 320), (240 // sy, 320 // sx), (240 // sy, 320 // sx)]
    y, u, v = (np.full(shape, level, np.uint8) for shape, level in zip(shapes, value, strict=True))
    return YuvImage((y, u, v), subsampling, BT709)


def textured_frame() -> YuvImage:
    rng = np.random.default_rng(5)
    y, u, v = (rng.integers(60, 200, shape, np.uint8) for shape in ((240, 320), (120, 160), (120, 160)))
    return YuvImage((y, u, v), (2, 2), BT709)


def placement(scale: float, angle_deg: float, centre: tuple[float, float]) -> NDArray[np.float64]:
    """Return frame_to_crop with the crop's middle at `centre`."""
    c, s = scale * np.cos(np.deg2rad(angle_deg)), scale * np.sin(np.deg2rad(angle_deg))
    linear = np.array([[c, -s], [s, c]])
    return np.hstack([linear, (np.array([SIZE_PX / 2, SIZE_PX / 2]) - linear @ centre)[:, None]])


@pytest.mark.parametrize(("kr", "kb", "space"), [(0.2126, 0.0722, "ITU709"), (0.299, 0.114, "ITU601")])
def test_colours_are_swscales(kr: float, kb: float, space: str) -> None:
    levels = np.random.default_rng(2).integers(0, 256, (64, 3), np.uint8)
    blocks = np.repeat(np.repeat(levels.reshape(8, 8, 3), 8, 0), 8, 1)
    frame = av.VideoFrame.from_ndarray(blocks, format="rgb24").reformat(format="yuv444p", dst_colorspace=space)
    yuv = frame.to_ndarray()[:, 4::8, 4::8].reshape(3, 64).astype(np.float32)
    matrix = colour_matrix(kr, kb, full_range=False).yuv_to_rgb
    np.testing.assert_allclose(matrix[:, :3] @ yuv + matrix[:, 3:], levels.T, atol=4)


def test_crop_of_a_flat_frame_has_its_colour() -> None:
    crop = crop_face(flat_frame(), placement(0.5, 20, (160, 120)), SIZE_PX)
    assert np.ptp(crop.image, axis=(0, 1)).max() == 0
    expected = BT709.yuv_to_rgb[:, :3] @ [100, 120, 140] + BT709.yuv_to_rgb[:, 3]
    np.testing.assert_allclose(crop.image[0, 0], expected, atol=1)


def test_model_that_changes_nothing_has_no_difference() -> None:
    crop = crop_face(textured_frame(), placement(1, 0, (160, 120)), SIZE_PX)
    assert mouth_change(crop, crop.image.copy(), MASK) is None
    outside = crop.image.copy()
    outside[:10] ^= 255
    assert mouth_change(crop, outside, MASK) is None, "outside the mask a model may do what it likes"


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0])
def test_change_arrives_in_its_place_and_everything_else_stays_to_the_bit(scale: float, angle_deg: float) -> None:
    frame, before = textured_frame(), textured_frame()
    matrix = placement(scale, angle_deg, (150, 110))
    crop = crop_face(frame, matrix, SIZE_PX)
    change = mouth_change(crop, np.clip(crop.image.astype(int) + 60, 0, 255).astype(np.uint8), MASK)
    assert change is not None
    paste_back(frame, crop, change)
    y, x = np.mgrid[:240, :320]
    in_crop = np.einsum("ij,jhw->ihw", matrix[:, :2], np.stack([x, y]).astype(float)) + matrix[:, 2][:, None, None]
    margin = 1 + scale  # crop px: what resampling to the frame's pixels reaches
    outside = (in_crop < 0.25 * SIZE_PX - margin).any(0) | (in_crop > 0.75 * SIZE_PX + margin).any(0)
    assert np.array_equal(frame.planes[0][outside], before.planes[0][outside])
    inside = ((in_crop > 0.4 * SIZE_PX) & (in_crop < 0.6 * SIZE_PX)).all(0)
    change = frame.planes[0][inside].astype(int) - before.planes[0][inside]
    assert 25 < change.mean() < 60 * 219 / 255 + 3


def test_colour_of_the_change_is_right_in_each_plane() -> None:
    for subsampling in ((2, 2), (2, 1), (1, 1)):
        frame = flat_frame(subsampling=subsampling)
        crop = crop_face(frame, placement(1, 0, (160, 120)), SIZE_PX)
        wanted = np.array([180, 60, 50])
        change = mouth_change(crop, np.broadcast_to(wanted, crop.image.shape).astype(np.uint8), MASK)
        assert change is not None
        paste_back(frame, crop, change)
        # BT.709, limited range, by the formula of the recommendation.
        luma = 0.2126 * 180 + 0.7152 * 60 + 0.0722 * 50
        expected = (16 + 219 * luma / 255, 128 + 224 * (50 - luma) / 1.8556 / 255, 128 + 224 * (180 - luma) / 1.5748 / 255)
        middle = [int(plane[plane.shape[0] // 2, plane.shape[1] // 2]) for plane in frame.planes]
        np.testing.assert_allclose(middle, expected, atol=2)


def test_fine_detail_survives_a_small_change_that_the_crop_could_not_carry() -> None:
    frame, before = textured_frame(), textured_frame()
    crop = crop_face(frame, placement(0.25, 0, (160, 120)), SIZE_PX)
    change = mouth_change(crop, crop.image + np.uint8(2), MASK)
    assert change is not None
    paste_back(frame, crop, change)
    part = np.s_[100:140, 140:180]
    assert frame.planes[0][part].std() > 0.8 * before.planes[0][part].std()


def test_face_half_outside_the_frame_is_pasted_as_far_as_it_is_inside() -> None:
    frame = flat_frame()
    crop = crop_face(frame, placement(1, 10, (0, 239)), SIZE_PX)
    change = mouth_change(crop, np.full_like(crop.image, 250), MASK)
    assert change is not None
    paste_back(frame, crop, change)
    assert frame.planes[0][239, 0] > 200 and frame.planes[0][0, 319] == 100


def test_mask_is_nothing_at_its_edge_everything_inside_and_smooth_between() -> None:
    mask = paste_mask(256, (0.1, 0.2, 0.9, 0.8))
    assert mask[:51].max() == 0 and mask[:, :25].max() == 0
    assert mask[100:150, 100:150].min() == 1
    assert np.abs(np.diff(mask, axis=0)).max() < 0.12
    with pytest.raises(ValueError, match="x1 < x2"):
        paste_mask(256, (0.5, 0.2, 0.4, 0.8))


def changed(frame: YuvImage, before: YuvImage) -> list[NDArray[np.int64]]:
    return [plane.astype(np.int64) - old for plane, old in zip(frame.planes, before.planes, strict=True)]


def odd_frame(subsampling: tuple[int, int]) -> YuvImage:
    rng = np.random.default_rng(6)
    sx, sy = subsampling
    chroma = -(-75 // sy), -(-101 // sx)
    y, u, v = (rng.integers(30, 226, shape, np.uint8) for shape in ((75, 101), chroma, chroma))
    return YuvImage((y, u, v), subsampling, BT709)


@settings(max_examples=60)
@given(
    st.floats(0.3, 3.0),
    st.floats(-180, 180),
    st.tuples(st.floats(-60, 160), st.floats(-60, 140)),
    st.sampled_from([(2, 2), (2, 1), (1, 1)]),
    st.integers(0, 255),
)
def test_no_plane_is_touched_outside_the_mask_wherever_the_face_is(
    scale: float, angle_deg: float, centre: tuple[float, float], subsampling: tuple[int, int], level: int
) -> None:
    frame, before = odd_frame(subsampling), odd_frame(subsampling)
    matrix = placement(scale, angle_deg, centre)
    crop = crop_face(frame, matrix, SIZE_PX)
    change = mouth_change(crop, np.full_like(crop.image, level), MASK)
    if change is None:
        return
    paste_back(frame, crop, change)
    sx, sy = subsampling
    for plane, (divide_x, divide_y) in enumerate(((1, 1), (sx, sy), (sx, sy))):
        y, x = np.mgrid[: frame.planes[plane].shape[0], : frame.planes[plane].shape[1]].astype(float)
        at_luma = np.stack([x * divide_x, y * divide_y + (divide_y - 1) / 2])
        in_crop = np.einsum("ij,jhw->ihw", matrix[:, :2], at_luma) + matrix[:, 2][:, None, None]
        # Crop px: what pooling the difference reaches (DETAIL_BLUR), and what one sample of the plane does.
        margin = 5 + 2 * scale * max(divide_x, divide_y)
        outside = (in_crop < 0.25 * SIZE_PX - margin).any(0) | (in_crop > 0.75 * SIZE_PX + margin).any(0)
        assert np.array_equal(frame.planes[plane][outside], before.planes[plane][outside]), f"plane {plane}"


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("angle_deg", [0.0, 37.0, 180.0])
@pytest.mark.parametrize("subsampling", [(2, 2), (2, 1), (1, 1)])
def test_constant_change_of_colour_has_the_same_value_everywhere_inside(scale: float, angle_deg: float, subsampling: tuple[int, int]) -> None:
    frame, before = flat_frame(subsampling=subsampling), flat_frame(subsampling=subsampling)
    matrix = placement(scale, angle_deg, (160, 120))
    crop = crop_face(frame, matrix, SIZE_PX)
    colour = np.array([30, -20, 10])
    change = mouth_change(crop, (crop.image.astype(int) + colour).astype(np.uint8), MASK)
    assert change is not None
    paste_back(frame, crop, change)
    red, green, blue = colour
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    expected = (219 * luma / 255, 224 * (blue - luma) / 1.8556 / 255, 224 * (red - luma) / 1.5748 / 255)
    reach = round(0.08 * SIZE_PX / scale)  # with its corners and a sample of chroma well inside the mask's plateau, frame px
    for plane, moved in enumerate(changed(frame, before)):
        sx, sy = subsampling if plane else (1, 1)
        inside = moved[(120 - reach) // sy : (120 + reach) // sy, (160 - reach) // sx : (160 + reach) // sx]
        np.testing.assert_allclose(inside, expected[plane], atol=1.5)


def test_large_change_replaces_the_frames_detail_by_the_generated_pixels() -> None:
    """Noise of the frame must not shine through a mouth that is new."""
    frame = textured_frame()
    crop = crop_face(frame, placement(0.5, 0, (160, 120)), SIZE_PX)
    change = mouth_change(crop, np.broadcast_to(np.array([230, 20, 40], np.uint8), crop.image.shape).copy(), MASK)
    assert change is not None
    paste_back(frame, crop, change)
    luma = 0.2126 * 230 + 0.7152 * 20 + 0.0722 * 40
    mouth = frame.planes[0][105:135, 145:175].astype(float)
    assert abs(mouth.mean() - (16 + 219 * luma / 255)) < 2
    assert mouth.std() < 8, "of 40 before"


def test_face_wholly_outside_the_frame_changes_nothing_and_fails_nothing() -> None:
    frame, before = textured_frame(), textured_frame()
    crop = crop_face(frame, placement(1, 0, (2000, -2000)), SIZE_PX)
    change = mouth_change(crop, np.full_like(crop.image, 9), MASK)
    assert change is not None
    paste_back(frame, crop, change)
    assert not any(moved.any() for moved in changed(frame, before))


def test_values_stop_at_the_ends_of_the_scale() -> None:
    for level, patch in ((250, 255), (3, 0)):
        frame = flat_frame((level, 128, 128))
        crop = crop_face(frame, placement(1, 0, (160, 120)), SIZE_PX)
        difference = np.full((SIZE_PX, SIZE_PX, 3), 200.0 if patch else -200.0, np.float32) * MASK[:, :, None]
        paste_back(frame, crop, MouthChange(0, 0, difference, MASK))
        assert frame.planes[0][120, 160] == patch


def test_pasting_what_the_crop_already_shows_is_nothing_to_do() -> None:
    """Resampling alone must not count as a change, at any scale."""
    for scale in (0.3, 1.0, 3.0):
        crop = crop_face(textured_frame(), placement(scale, 15, (160, 120)), SIZE_PX)
        assert mouth_change(crop, crop.image, np.ones((SIZE_PX, SIZE_PX), np.float32)) is None


def test_patch_of_another_size_is_a_programming_error() -> None:
    crop = crop_face(flat_frame(), placement(1, 0, (160, 120)), SIZE_PX)
    with pytest.raises(ValueError, match="128"):
        mouth_change(crop, np.zeros((64, 64, 3), np.uint8), MASK)


@given(st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.6, 1), st.floats(0.6, 1)), st.floats(0.02, 0.2), st.sampled_from([96, 256]))
def test_mask_of_any_region_is_zero_at_the_edge_and_a_cosine_inside(region: tuple[float, float, float, float], feather: float, size_px: int) -> None:
    mask = paste_mask(size_px, region, feather)
    assert mask.dtype == np.float32 and mask.min() >= 0 and mask.max() <= 1
    centre = (np.arange(size_px) + 0.5) / size_px
    x1, y1, x2, y2 = region
    outside_x, outside_y = (centre <= x1) | (centre >= x2), (centre <= y1) | (centre >= y2)
    assert not mask[:, outside_x].any() and not mask[outside_y].any()
    # The steepest slope of a cosine ramp is pi / 2 over its width.
    assert np.abs(np.diff(mask, axis=1)).max() <= np.pi / 2 / feather / size_px + 1e-6
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0] = 1


def ten_bits(frame: YuvImage, low: NDArray[np.uint16] | None = None) -> YuvImage:
    y, u, v = (plane.astype(np.uint16) * 4 for plane in frame.planes)
    return YuvImage((y if low is None else y + low, u, v), frame.subsampling_xy, frame.colour, bits=10)


def test_ten_bits_are_edited_as_eight_are_and_keep_their_low_bits() -> None:
    low = np.random.default_rng(3).integers(0, 4, (240, 320), np.uint16)
    eight, ten = textured_frame(), ten_bits(textured_frame(), low)
    before = [plane.copy() for plane in ten.planes]
    to_crop = placement(0.9, 7.0, (160.0, 120.0))
    crops = [crop_face(frame, to_crop, SIZE_PX) for frame in (eight, ten)]
    assert np.abs(crops[0].image.astype(int) - crops[1].image.astype(int)).max() <= 3
    patch = np.minimum(crops[0].image, 225) + np.uint8(30)
    for frame, crop in zip((eight, ten), crops, strict=True):
        change = mouth_change(crop, patch, MASK)
        assert change is not None
        paste_back(frame, crop, change)
    for plane, other, original, old in zip(ten.planes, eight.planes, before, textured_frame().planes, strict=True):
        assert np.abs(plane.astype(int) / 4 - other.astype(int)).max() <= 2.5
        changed = plane != original
        assert 0.01 < changed.mean() < 0.5 and not changed[:40].any(), "what lies outside keeps its low bits"
        assert (changed | (other == old)).mean() > 0.98


@pytest.mark.parametrize("bits", [8, 10])
def test_what_is_pasted_into_a_noisy_frame_is_as_noisy_in_luma_and_chroma(bits: int) -> None:
    noise, random, unit = (6.0, 3.0, 1.5), np.random.default_rng(4), 1 << (bits - 8)
    planes = [(plane + deviation * random.standard_normal(plane.shape)) * unit for plane, deviation in zip(flat_frame().planes, noise, strict=True)]
    y, u, v = (np.rint(plane).astype(np.uint16) if bits == 10 else np.rint(plane).astype(np.uint8) for plane in planes)
    frame = YuvImage((y, u, v), (2, 2), BT709, bits)
    crop = crop_face(frame, placement(1.0, 7.0, (160.0, 120.0)), SIZE_PX)
    change = mouth_change(crop, np.full_like(crop.image, 90), MASK)
    assert change is not None
    paste_back(frame, crop, change, grain_seed=11)
    added = []
    for plane, deviation, step in zip(frame.planes, noise, (1, 2, 2), strict=True):
        inside = plane[100 // step : 140 // step, 140 // step : 180 // step].astype(float) / unit
        assert inside.std() == pytest.approx(deviation, rel=0.15)
        added.append(inside[:20, :20].ravel())
    assert np.abs(np.corrcoef(added) - np.eye(3)).max() < 0.15, "the planes' noise is not the same"


def test_grey_noise_brings_no_colour() -> None:
    frame = flat_frame((100, 128, 128))
    frame.planes[0][:] = np.rint(100 + 6.0 * np.random.default_rng(4).standard_normal((240, 320)))
    crop = crop_face(frame, placement(1.0, 7.0, (160.0, 120.0)), SIZE_PX)
    change = mouth_change(crop, np.full_like(crop.image, 60), MASK)
    assert change is not None
    paste_back(frame, crop, change, grain_seed=11)
    assert all((plane == 128).all() for plane in frame.planes[1:])


def test_ten_bits_do_not_run_over() -> None:
    frame = ten_bits(flat_frame((250, 128, 128)))
    crop = crop_face(frame, placement(1.0, 0.0, (160.0, 120.0)), SIZE_PX)
    patch = np.zeros_like(crop.image)
    patch[::2] = 255
    change = mouth_change(crop, patch, MASK)
    assert change is not None
    paste_back(frame, crop, change)
    assert int(frame.planes[0].max()) <= 1023 and int(frame.planes[0].min()) < 200


def test_hdr_is_shown_to_the_model_as_sdr_and_changed_in_its_own_signal() -> None:
    curve = sdr_curve("hlg")
    hlg = colour_matrix(0.2627, 0.0593, full_range=False, curve=curve)
    flat = ten_bits(flat_frame((110, 128, 128)))
    frame = YuvImage(flat.planes, flat.subsampling_xy, hlg, bits=10)
    crop = crop_face(frame, placement(1.0, 0.0, (160.0, 120.0)), SIZE_PX)
    signal = (110 - 16) / 219 * 255
    assert int(crop.image[64, 64, 0]) == int(curve.to_sdr(np.array([signal], np.float32))[0]) > signal
    wanted = np.full_like(crop.image, int(crop.image[64, 64, 0]) - 40)
    change = mouth_change(crop, wanted, MASK)
    assert change is not None
    paste_back(frame, crop, change)
    again = crop_face(frame, placement(1.0, 0.0, (160.0, 120.0)), SIZE_PX)
    assert abs(int(again.image[64, 64, 0]) - int(wanted[64, 64, 0])) <= 2
