"""How the lips of real presenters follow real speech, measured from outside with published networks.

Needs the media and the measuring tool that lie beside the checkout in `../shared`; they are not part of it.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.inference.client import TritonClient
from orchestrator.pipeline.render import plan_render, render

SHARED = Path(__file__).resolve().parents[3] / "shared"

pytestmark = pytest.mark.skipif(not (SHARED / "tools" / "lips.py").exists(), reason="there is no ../shared with media and lips.py")


def lips(video: Path, audio: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, SHARED / "tools" / "lips.py", video, "--audio", audio], capture_output=True, text=True, check=True, timeout=120
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("presenter", "speech", "least_correlation"),
    [
        ("presenter_man_idle.mp4", "speech_jfk_en.flac", 0.8),
        ("presenter_woman_idle.mp4", "speech_zh.wav", 0.8),
    ],
)
def test_lips_follow_the_speech_without_delay_and_open_as_far_as_peoples_do(
    presenter: str, speech: str, least_correlation: float, client: TritonClient, tmp_path: Path
) -> None:
    audio = SHARED / "media" / speech
    render(plan_render(SHARED / "media" / presenter, audio, tmp_path / "out.mp4"), client)
    measured = lips(tmp_path / "out.mp4", audio)
    assert measured["best_lag_frames"] == 0
    assert measured["corr_lag0"] >= least_correlation
    assert 0.04 <= measured["range_p5_p95"] <= 0.15
