"""Models and decoding on a real GPU. Runs where an NVIDIA GPU shows, and only there: nothing can stand in for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.local.gpu import gpu_expected
from orchestrator.embedded import open_triton
from orchestrator.inference.selftest import self_test
from orchestrator.media.nvdec import nvdec_problem
from orchestrator.media.probe import probe_video
from orchestrator.media.reader import VideoReader
from orchestrator.settings import Settings
from tests.clips import Clip, make_clip, planes_of

pytestmark = pytest.mark.skipif(gpu_expected() is None, reason="no NVIDIA GPU shows on this machine (no /dev/nvidiactl, no card on the PCI bus)")


def test_every_role_runs_on_the_gpu_and_triton_proves_it() -> None:
    with open_triton(Settings(device="gpu")) as client:
        found = self_test(client, "gpu")
    for status in found.roles.values():
        assert set(status.instance_kinds) == {"KIND_GPU"}
        assert status.execution_provider == "CUDAExecutionProvider"
        assert status.execution_count > 0
    assert not found.gpu_utilisation or max(found.gpu_utilisation.values()) > 0


def test_auto_takes_the_gpu() -> None:
    with open_triton(Settings(device="auto")) as client:
        assert {status.device for status in self_test(client).roles.values()} == {"GPU"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.mp4", "libx264", {"preset": "medium", "crf": "20"}),
        ("clip.mp4", "libx265", {"preset": "medium", "crf": "20", "x265-params": "log-level=none"}),
        ("clip.webm", "libvpx-vp9", {"crf": "30", "cpu-used": "5"}),
    ],
)
def test_nvdec_gives_the_pictures_of_software(
    name: str, codec: str, options: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problem = nvdec_problem()
    if problem is not None and "are not there" in problem:
        pytest.skip(problem)
    assert problem is None
    info = probe_video(make_clip(tmp_path / name, Clip(codec=codec, options=options, size_wh=(640, 362), b_frames=3)))
    with VideoReader(info) as software, VideoReader(replace(info, decoder="nvdec")) as gpu:
        for expected, found in zip(software.decode_from_start(), gpu.decode_from_start(), strict=True):
            assert (found.index, found.is_key, found.picture.pts) == (expected.index, expected.is_key, expected.picture.pts)
            assert all(map(np.array_equal, planes_of(found.picture), planes_of(expected.picture)))
    assert not caplog.records, "or software went on"
