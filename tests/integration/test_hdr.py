"""A source in HDR with 10 bits: kept so to the bit where nothing is edited, and edited as an SDR one is."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.media.planes import sample_views
from orchestrator.media.probe import probe_video
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from preprocess.hdr import sdr_curve
from tests.clips import frames_of, in_colour, write_speech, write_video

HLG = (1, 9, 18, 9)


def luma_of(path: Path) -> NDArray[np.uint16]:
    return np.stack([sample_views(frame)[0].astype(np.uint16) for frame in frames_of(path)])


def levels(luma: NDArray[np.uint16]) -> NDArray[np.float32]:
    return np.asarray((luma.astype(np.float32) - 64) * np.float32(255 / 876), np.float32)


@pytest.fixture(scope="module")
def hdr(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip as an HLG camera would have it: its light on HLG's curve, with noise in the bits that 8 do not hold."""
    path = tmp_path_factory.mktemp("hdr") / "hdr.mp4"
    to_hlg, noise = sdr_curve("hlg").from_sdr(np.arange(256, dtype=np.float32)), np.random.default_rng(2)

    def as_hlg(frame: av.VideoFrame) -> av.VideoFrame:
        rgb = to_hlg[frame.to_ndarray(format="rgb24")] / 255
        luma = rgb @ np.array([0.2627, 0.678, 0.0593])
        planes = luma, (rgb[:, :, 2] - luma) / 1.8814, (rgb[:, :, 0] - luma) / 1.4746
        picture = av.VideoFrame(256, 256, "yuv420p10le")
        for view, plane, scale, offset in zip(sample_views(picture), planes, (876, 896, 896), (64, 512, 512), strict=True):
            step = 256 // view.shape[0]
            view[:] = np.rint(plane.reshape(view.shape[0], step, view.shape[1], step).mean((1, 3)) * scale + offset)
        sample_views(picture)[0][:] += noise.integers(0, 3, (256, 256), np.uint16)
        return picture

    return write_video(path, map(as_hlg, frames_of(small_clip)), pix_fmt="yuv420p10le", set_up=in_colour(HLG))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_ten_bit_hdr_is_kept_and_its_mouth_moves_as_in_sdr(codec: str, hdr: Path, small_clip: Path, client: TritonClient, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav", 0.6)
    options = RenderOptions.model_validate({"lossless": True, "preset": "ultrafast", "codec": codec})
    out = tmp_path / "out.mp4"
    report = render(plan_render(hdr, speech, out, options), client)
    info = probe_video(out)
    assert info.pix_fmt == "yuv420p10le" and info.hdr == "hlg"
    assert (info.colour.range, info.colour.primaries, info.colour.transfer, info.colour.matrix) == HLG
    assert any("HLG" in note for note in report.notes) and report.face_frame_count == 15
    source, result = luma_of(hdr)[:15], luma_of(out)
    assert np.array_equal(result[:, :60], source[:, :60]), "what is not edited is the same to the bit"
    changed = result[5] != source[5]
    assert changed.any() and changed[120:].any() and not changed[:60].any()
    if codec == "h264":
        sdr = tmp_path / "sdr.mp4"
        render(plan_render(small_clip, speech, sdr, options), client)
        curve = sdr_curve("hlg")
        as_sdr = curve.to_sdr(levels(result)).astype(int)
        original = curve.to_sdr(levels(source)).astype(int)
        moved, expected = as_sdr - original, (luma_of(sdr).astype(int) - luma_of(small_clip)[:15].astype(int)) * 255 / 219
        assert np.abs(moved - expected).mean() < 0.5 and np.corrcoef(moved.ravel(), expected.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("asked", [{"hdr": "sdr", "preset": "ultrafast", "crf": 10}, {"codec": "vp9", "preset": "ultrafast", "crf": 10}])
def test_hdr_becomes_sdr_where_asked_for_and_where_the_output_has_eight_bits(
    asked: dict[str, object], hdr: Path, small_clip: Path, client: TritonClient, tmp_path: Path
) -> None:
    speech = write_speech(tmp_path / "speech.wav", 0.4)
    out = tmp_path / ("out.webm" if "codec" in asked else "out.mp4")
    report = render(plan_render(hdr, speech, out, RenderOptions.model_validate(asked)), client)
    info = probe_video(out)
    assert info.pix_fmt == "yuv420p" and info.hdr is None
    assert (info.colour.range, info.colour.transfer, info.colour.matrix) == (1, 1, 1)
    assert any("converted to SDR" in note for note in report.notes) and report.face_frame_count == 10

    def rgb_of(path: Path) -> NDArray[np.float64]:
        with av.open(str(path)) as container:
            return np.asarray(
                next(container.decode(video=0)).reformat(format="rgb24", src_colorspace="ITU709" if path == out else None).to_ndarray(), float
            )

    # The clip was put on HLG's curve with its own RGB as BT.2020's: grey comes back, colours are BT.2020's.
    found, original = rgb_of(out)[:60], rgb_of(small_clip)[:60]
    assert abs(found.mean() - original.mean()) < 6 and np.corrcoef(found.ravel(), original.ravel())[0, 1] > 0.98
