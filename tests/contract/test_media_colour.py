"""Pictures that are not YUV: the colours that a player will show are the picture's."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from orchestrator.media.encoding import Encoding
from orchestrator.media.output import choose_output
from orchestrator.media.planes import sample_views
from orchestrator.media.probe import ColourTags, probe_video
from orchestrator.media.reader import VideoReader, plane_views, stream_colour
from tests.clips import Clip, in_colour, make_clip, write_video

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


@pytest.mark.parametrize(
    ("pix_fmt", "working"),
    [("yuv420p10le", "yuv420p10le"), ("yuv422p10le", "yuv422p10le"), ("yuv420p12le", "yuv420p10le"), ("yuv422p12le", "yuv422p10le")],
)
def test_more_than_eight_bits_stay_ten(pix_fmt: str, working: str, tmp_path: Path) -> None:
    """A ramp finer than 8 bits, in HDR10's tags."""
    path, shift = tmp_path / "ramp.mkv", 2 if "12" in pix_fmt else 0
    ramp = np.tile(np.linspace(200, 800, 192).astype(np.uint16), (64, 1))
    picture = av.VideoFrame(192, 64, pix_fmt)
    for view, samples in zip(sample_views(picture), (ramp, None, None), strict=True):
        view[:] = (512 if samples is None else samples) << shift
    write_video(path, [picture] * 2, {}, codec="ffv1", pix_fmt=pix_fmt, set_up=in_colour((1, 9, 16, 9)))
    info = probe_video(path)
    assert (info.pix_fmt, info.working_pix_fmt, info.hdr) == (pix_fmt, working, "pq")
    assert (info.colour.range, info.colour.primaries, info.colour.transfer, info.colour.matrix) == (1, 9, 16, 9)
    with VideoReader(info) as reader:
        y, u, v = sample_views(next(reader.decode_from_start()).picture)
    assert np.abs(y.astype(int) - ramp).max() <= (1 if shift else 0)
    assert (u == 512).all() and (v == 512).all()
    assert choose_output(Encoding(), info).pix_fmt == working and choose_output(Encoding(codec="hevc"), info).pix_fmt == working


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "tags"),
    [
        ("clip.mp4", "libx265", "yuv420p10le", (1, 9, 16, 9)),
        ("clip.mkv", "libx265", "yuv420p10le", (1, 9, 18, 9)),
        ("clip.mov", "prores_ks", "yuv422p10le", (1, 1, 1, 1)),
        ("clip.mkv", "libx264", "yuv420p", (1, 1, 13, 1)),
    ],
)
def test_colour_that_only_the_container_names_is_kept(name: str, codec: str, pix_fmt: str, tags: tuple[int, int, int, int], tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    plain = make_clip(tmp_path / "plain.mov", Clip(codec=codec, pix_fmt=pix_fmt, options=options, frame_count=3))
    with av.open(str(plain)) as source, av.open(str(tmp_path / name), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        context = stream.codec_context
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = tags
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert probe_video(tmp_path / name).colour == ColourTags(*tags)


def test_hdr_of_eight_bits_in_full_range_becomes_sdr_in_limited_range(tmp_path: Path) -> None:
    info = probe_video(make_clip(tmp_path / "clip.mp4", Clip(pix_fmt="yuvj420p", colour=(2, 9, 18, 9), frame_count=3)))
    assert info.hdr == "hlg" and info.is_full_range
    assert not info.as_sdr.is_full_range
    assert info.as_sdr.as_hdr == info
