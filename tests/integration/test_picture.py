"""Whole renders with a generator that blurs, tints and paints a dark mouth, and with something before that mouth, on the real Triton.

The networks are stand-ins of published shapes; only what is done to their answers is tested here.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.local.server import LocalTriton
from orchestrator.inference.client import TritonClient
from orchestrator.models.install import install_pack
from orchestrator.models.packs import find_pack
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.settings import Settings
from tests.clips import frames_of, write_speech, write_video
from tests.networks import save_dull_wav2lip, save_xseg

HOME = Settings().triton_home
FRAMES = 8
MICROPHONE = np.s_[246:360, 288:328]
"""A green bar before the middle of the mouth, px of the clip."""


@pytest.fixture(scope="module")
def dull(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonClient]:
    folder = tmp_path_factory.mktemp("dull")
    repository = folder / "models"
    install_pack(find_pack("centerface"), repository, HOME, None)
    install_pack(find_pack("wav2lip"), repository, HOME, str(save_dull_wav2lip(folder / "wav2lip.onnx")))
    install_pack(find_pack("xseg"), repository, HOME, str(save_xseg(folder / "xseg.onnx")))
    with LocalTriton.start(HOME, repository, config_name="cpu") as server, TritonClient(server.grpc_address) as client:
        yield client


def pictures(path: Path) -> NDArray[np.float32]:
    """Return (n, h, w, 3) YUV, each plane at full size."""
    return np.stack([frame.reformat(format="yuv444p").to_ndarray().transpose(1, 2, 0) for frame in frames_of(path)]).astype(np.float32)


def rendered(client: TritonClient, video: Path, out: Path, **options: bool) -> NDArray[np.float32]:
    speech = write_speech(out.with_suffix(".wav"), FRAMES / 25)
    report = render(plan_render(video, speech, out, RenderOptions(lossless=True, preset="ultrafast", **options)), client)
    assert ("face_occluder" in report.models) == options.get("face_occluder", True)
    return pictures(out)


def fine(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    return luma - cv2.GaussianBlur(luma, (0, 0), 2)


def slope(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.hypot(*np.gradient(cv2.GaussianBlur(luma, (0, 0), 3))), np.float32)


def test_skin_around_a_generated_mouth_keeps_colour_and_detail_and_no_seam_shows(dull: TritonClient, clip: Path, tmp_path: Path) -> None:
    source = pictures(clip)[:FRAMES]
    out = rendered(dull, clip, tmp_path / "out.mp4", face_occluder=False)
    change = out - source
    edited = np.abs(change).max(3) > 0
    assert edited.any((1, 2)).all()
    # Where the mouth is dark, well around it, and what is left of the edited part: skin.
    dark = cv2.dilate((change[..., 0].min(0) < -25).astype(np.uint8), np.ones((31, 31), np.uint8)) > 0
    for index in range(FRAMES):
        skin = edited[index] & ~dark
        assert skin.sum() > 5000
        np.testing.assert_allclose(change[index][skin].mean(0), 0, atol=0.7, err_msg="the tint is 4 levels of luma, and red")
        kept = fine(out[index, ..., 0])[skin].std() / fine(source[index, ..., 0])[skin].std()
        assert 0.75 < kept < 1.15, "the generator keeps half of it"
        # The seam: what the edit adds to the gradients of the skin, its own edge included.
        added, own = (slope(luma[index, ..., 0])[skin].mean() for luma in (change, source))
        assert added < 0.12 * own
    assert (change[..., 0].min((1, 2)) < -40).all(), "there is a new mouth"


def test_what_lies_before_the_mouth_stays_before_it(dull: TritonClient, clip: Path, tmp_path: Path) -> None:
    images = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames_of(clip)]
    for image in images:
        image[MICROPHONE] = (0, 255, 0)
    video = write_video(tmp_path / "microphone.mp4", images)
    source_pictures = pictures(video)[:FRAMES]
    inner = np.s_[:, MICROPHONE[0].start + 8 : MICROPHONE[0].stop, MICROPHONE[1].start + 8 : MICROPHONE[1].stop - 8]
    covered, uncovered = (rendered(dull, video, tmp_path / f"{name}.mp4", face_occluder=name == "with") for name in ("with", "without"))
    assert np.array_equal(covered[inner], source_pictures[inner]), "to the bit"
    assert np.abs(uncovered[inner] - source_pictures[inner]).max() > 40, "without the role the mouth is painted over it"
    beside = np.abs(covered - source_pictures)[:, :, : MICROPHONE[1].start].max()
    assert beside > 25, "and beside it the mouth moves"
