"""Colour matrices against the recommendations and swscale; crops out of planes whose chroma sits where MPEG puts it."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from preprocess.yuv import YuvImage, colour_matrix, crop_face

WEIGHTS = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}

PUBLISHED = {
    # R from V, G from U, G from V, B from U, for signals scaled to -0.5..0.5.
    "BT.601": (1.402, -0.344136, -0.714136, 1.772),  # ITU-R BT.601-7, JFIF 1.02
    "BT.709": (1.5748, -0.187324, -0.468124, 1.8556),  # ITU-R BT.709-6
    "BT.2020": (1.4746, -0.164553, -0.571353, 1.8814),  # ITU-R BT.2020-2
}

BARS_601 = {
    # 100 % colour bars in 8 bits, limited range (ITU-R BT.801, SMPTE EG 1).
    (255, 255, 255): (235, 128, 128),
    (255, 255, 0): (210, 16, 146),
    (0, 255, 255): (170, 166, 16),
    (0, 255, 0): (145, 54, 34),
    (255, 0, 255): (106, 202, 222),
    (255, 0, 0): (81, 90, 240),
    (0, 0, 255): (41, 240, 110),
    (0, 0, 0): (16, 128, 128),
}

BARS_709 = {
    # The same in high definition (ITU-R BT.709, SMPTE RP 177).
    (255, 255, 255): (235, 128, 128),
    (255, 255, 0): (219, 16, 138),
    (0, 255, 255): (188, 154, 16),
    (0, 255, 0): (173, 42, 26),
    (255, 0, 255): (78, 214, 230),
    (255, 0, 0): (63, 102, 240),
    (0, 0, 255): (32, 240, 118),
    (0, 0, 0): (16, 128, 128),
}

ACCURATE = 4 | 0x2000 | 0x4000 | 0x40000
"""swscale's BICUBIC, FULL_CHR_H_INT, FULL_CHR_H_INP and ACCURATE_RND (swscale.h)."""

SUBSAMPLINGS = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1)}


@pytest.mark.parametrize("name", WEIGHTS)
def test_full_range_matrix_is_the_recommendations(name: str) -> None:
    matrix = colour_matrix(*WEIGHTS[name], full_range=True).yuv_to_rgb
    r_v, g_u, g_v, b_u = PUBLISHED[name]
    np.testing.assert_allclose(matrix[:, :3], [[1, 0, r_v], [1, g_u, g_v], [1, b_u, 0]], atol=2e-5)
    np.testing.assert_allclose(matrix[:, 3], -128 * matrix[:, 1:3].sum(1), rtol=1e-5)


@pytest.mark.parametrize(("name", "bars"), [("BT.601", BARS_601), ("BT.709", BARS_709)])
def test_colour_bars_are_those_of_the_standard(name: str, bars: dict[tuple[int, int, int], tuple[int, int, int]]) -> None:
    colour = colour_matrix(*WEIGHTS[name], full_range=False)
    for rgb, yuv in bars.items():
        np.testing.assert_allclose(colour.yuv_to_rgb[:, :3] @ yuv + colour.yuv_to_rgb[:, 3], rgb, atol=1.5)
        # Differences: against black, which is 16, 128, 128.
        np.testing.assert_allclose(colour.rgb_to_yuv @ rgb + [16, 128, 128], yuv, atol=0.6)


@pytest.mark.parametrize(("name", "space"), [("BT.601", Colorspace.ITU601), ("BT.709", Colorspace.ITU709)])
@pytest.mark.parametrize("full_range", [False, True])
def test_conversion_is_swscales(name: str, space: Colorspace, full_range: bool) -> None:
    levels = np.random.default_rng(9).integers(40, 216, (3, 64, 64)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(levels, format="yuv444p")
    source = ColorRange.JPEG if full_range else ColorRange.MPEG
    expected = frame.reformat(
        format="rgb24", src_colorspace=space, dst_colorspace=space, src_color_range=source, dst_color_range=ColorRange.JPEG, interpolation=ACCURATE
    )
    matrix = colour_matrix(*WEIGHTS[name], full_range=full_range).yuv_to_rgb
    actual = np.clip(np.einsum("ij,jhw->hwi", matrix[:, :3], levels.astype(np.float32)) + matrix[:, 3], 0, 255)
    assert np.abs(actual - expected.to_ndarray()).max() <= 2


def gradient_frame(subsampling_xy: tuple[int, int], size_wh: tuple[int, int]) -> YuvImage:
    """Return a frame whose Y, U and V rise linearly over luma positions, sampled where each plane's samples sit.

    Left-sited chroma (H.264 table E-2, chroma_sample_loc_type 0): chroma column i lies on luma column i * sx; chroma row j lies in the
    middle of its sy luma rows.
    """
    width, height = size_wh
    planes = []
    for plane in range(3):
        sx, sy = subsampling_xy if plane else (1, 1)
        x = np.arange(-(-width // sx), dtype=np.float64) * sx
        y = np.arange(-(-height // sy), dtype=np.float64) * sy + (sy - 1) / 2
        planes.append(np.round(ramp(plane, x[None, :], y[:, None])).astype(np.uint8))
    y_plane, u_plane, v_plane = planes
    return YuvImage((y_plane, u_plane, v_plane), subsampling_xy, colour_matrix(*WEIGHTS["BT.709"], full_range=False))


def ramp(plane: int, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the level of a plane at luma positions; steep enough for half a pixel to show."""
    along_x, along_y, level = ((1.3137, 0.9171, 40), (-1.2179, 1.1313, 120), (0.8737, -1.3711, 130))[plane]
    return np.asarray(level + along_x * x + along_y * y)


@pytest.mark.parametrize("pix_fmt", SUBSAMPLINGS)
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("angle_deg", [0.0, 25.0, 180.0])
def test_crop_reads_every_plane_at_the_same_place(pix_fmt: str, scale: float, angle_deg: float) -> None:
    frame = gradient_frame(SUBSAMPLINGS[pix_fmt], (96, 80))
    size_px = round(24 * scale)
    c, s = scale * np.cos(np.deg2rad(angle_deg)), scale * np.sin(np.deg2rad(angle_deg))
    linear = np.array([[c, -s], [s, c]])
    matrix = np.hstack([linear, (np.array([size_px / 2, size_px / 2]) - linear @ [46.3, 39.8])[:, None]])
    crop = crop_face(frame, matrix, size_px)
    assert crop.yuv.shape == crop.image.shape == (size_px, size_px, 3)
    y, x = np.mgrid[:size_px, :size_px]
    inverse = np.linalg.inv(linear)
    at = np.einsum("ij,jhw->ihw", inverse, np.stack([x, y]) - matrix[:, 2][:, None, None])
    for plane in range(3):
        error = crop.yuv[:, :, plane] - ramp(plane, at[0], at[1])
        assert abs(error.mean()) < 0.4, f"plane {plane} is shifted"  # half a pixel is 0.45 or more, rounding up to 0.35
        assert np.abs(error).max() <= 1.3


def test_crop_beyond_the_frame_repeats_its_edge() -> None:
    frame = gradient_frame((2, 2), (96, 80))
    crop = crop_face(frame, np.array([[1.0, 0.0, 40.0], [0.0, 1.0, 0.0]]), 64)
    assert np.array_equal(crop.yuv[:, 10, 0], crop.yuv[:, 40, 0])
    assert (crop.yuv[:, :41, 0] == frame.planes[0][:64, :1]).all()


def test_crop_leaves_the_frame_alone_and_keeps_its_own_pixels() -> None:
    frame = gradient_frame((2, 2), (96, 80))
    before = [plane.copy() for plane in frame.planes]
    crop = crop_face(frame, np.eye(2, 3), 64)
    crop.yuv[:] = 0
    crop.image[:] = 0
    assert all(np.array_equal(plane, copy) for plane, copy in zip(frame.planes, before, strict=True))


def test_odd_planes_are_cropped_to_their_last_sample() -> None:
    frame = gradient_frame((2, 2), (97, 65))
    assert frame.planes[1].shape == (33, 49)
    crop = crop_face(frame, np.array([[1.0, 0.0, -64.0], [0.0, 1.0, -32.0]]), 33)
    for plane in range(3):
        y, x = np.mgrid[32:65, 64:97].astype(float)
        np.testing.assert_allclose(crop.yuv[:31, :31, plane], ramp(plane, x, y)[:31, :31], atol=1.3)
