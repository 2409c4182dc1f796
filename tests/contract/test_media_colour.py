"""Pictures that are not YUV: the colours that a player will show are the picture's."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from orchestrator.media.probe import probe_video
from orchestrator.media.reader import VideoReader, plane_views, stream_colour

RGB = np.array([[200, 40, 60], [30, 160, 90], [50, 70, 210], [128, 128, 128]], np.uint8)


@pytest.mark.parametrize("name", ["face.png", "face.bmp"])
def test_rgb_source_becomes_bt709_limited_and_says_so(name: str, tmp_path: Path) -> None:
    blocks = np.repeat(np.repeat(RGB.reshape(2, 2, 3), 64, 0), 64, 1)
    cv2.imwrite(str(tmp_path / name), blocks[:, :, ::-1])
    info = probe_video(tmp_path / name)
    assert (info.colour.range, info.colour.primaries, info.colour.transfer, info.colour.matrix) == (1, 1, 1, 1)
    with VideoReader(info) as reader:
        frame = next(reader.decode_from_start())
    y, u, v = plane_views(frame.picture, stream_colour(info)).planes
    for (row, column), (red, green, blue) in zip(((32, 32), (32, 96), (96, 32), (96, 96)), RGB.astype(float), strict=True):
        # By the formula of ITU-R BT.709.
        luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        expected = 16 + 219 * luma / 255, 128 + 224 * (blue - luma) / 1.8556 / 255, 128 + 224 * (red - luma) / 1.5748 / 255
        found = y[row, column], u[row // 2, column // 2], v[row // 2, column // 2]
        np.testing.assert_allclose(found, expected, atol=2)


def test_grey_source_does_not_claim_to_be_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64), 120, np.uint8))
    info = probe_video(tmp_path / "grey.png")
    assert info.working_pix_fmt == "yuv420p"
    assert info.colour.matrix == 2, "unspecified; 0 would be RGB (ITU-T H.273), which no 4:2:0 stream may say"
