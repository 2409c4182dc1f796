"""How the lips of real presenters follow real speech, measured from outside with published networks.

Needs the media and the measuring tool that lie beside the checkout in `../shared`; they are not part of it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from tests.clips import SPEECH_RATE_HZ, frames_of, write_speech, write_wav
from tests.integration.test_voice_activity import music

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
        ("presenter_woman_idle.mp4", "speech_zh.wav", 0.7),  # many of its loud vowels are narrow
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
    if presenter == "presenter_man_idle.mp4":  # its camera stands still
        source, rendered = (movement(path, 60) for path in (SHARED / "media" / presenter, tmp_path / "out.mp4"))
        assert jitter(rendered) <= 1.02 * jitter(source), "what is not edited does not shake"


EYES_AND_BROWS = ((272, 354), (320, 358), (381, 357), (428, 354), (351, 362), (253, 329), (448, 329), (351, 322))
"""Points of the presenter's upper face in his first frame, px."""


def grey(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    for frame in islice(frames_of(path), count):
        yield np.asarray(frame.to_ndarray(format="gray8"), np.uint8)


def movement(path: Path, count: int) -> NDArray[np.float32]:
    """Follow the points through a video by optical flow; return how far each goes from frame to frame, (count - 1, n, 2) px."""
    points = np.array(EYES_AND_BROWS, np.float32)[:, None]
    moves = []
    for one, other in pairwise(grey(path, count)):
        found, status, _ = cv2.calcOpticalFlowPyrLK(one, other, points, np.empty_like(points), winSize=(21, 21))
        assert status.all()
        moves.append(found - points)
        points = np.asarray(found, np.float32)
    return np.asarray(np.stack(moves)[:, :, 0], np.float32)


def jitter(moves: NDArray[np.float32]) -> float:
    return float(np.abs(np.diff(moves, axis=0)).mean())


def test_what_is_not_a_presenters_mouth_is_the_sources_to_the_bit(client: TritonClient, tmp_path: Path) -> None:
    source, audio = SHARED / "media" / "presenter_man_idle.mp4", write_speech(tmp_path / "speech.wav", 0.48)
    render(plan_render(source, audio, tmp_path / "out.mkv", RenderOptions(codec="ffv1")), client)
    changed = np.zeros((1080 * 3 // 2, 720), np.bool_)
    frames = list(zip(frames_of(tmp_path / "out.mkv"), frames_of(source), strict=False))
    for edited, untouched in frames:
        changed |= edited.to_ndarray() != untouched.to_ndarray()
    assert len(frames) == 12
    rows, columns = np.flatnonzero(changed[:1080].any(1)), np.flatnonzero(changed[:1080].any(0))
    assert rows.min() > 360 and rows.max() < 600, "below the eyes and above the collar"
    assert columns.min() > 220 and columns.max() < 480
    chroma_rows = np.flatnonzero(changed[1080:].reshape(2, 540, 360).any((0, 2)))
    assert chroma_rows.min() > 180 and chroma_rows.max() < 300


def test_mouth_of_a_presenter_rests_in_music(client: TritonClient, tmp_path: Path) -> None:
    """A closed mouth at rest is the source's own, so every frame passes through."""
    track = write_wav(tmp_path / "music.wav", music(1.2), SPEECH_RATE_HZ)
    report = render(plan_render(SHARED / "media" / "presenter_man_idle.mp4", track, tmp_path / "out.mp4"), client)
    assert report.passed_through == ((0, report.frame_count),)
