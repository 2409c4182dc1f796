"""Speech and video of different length: which frames are shown, how long the output lasts, and what is heard."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.timeline import SyncMode
from tests.clips import SPEECH_RATE_HZ, pictures_in, write_speech

LOSSLESS = RenderOptions(lossless=True, preset="ultrafast")
SHORT, LONG = Fraction(3, 5), Fraction(12, 5)
"""Speech of 15 and of 60 frames beside a video of 25, s."""

HEADROOM = slice(0, 150)
"""Rows above the face, which no lip model edits: they tell which source frame is shown."""


def sound_of(path: Path) -> NDArray[np.float32]:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.fixture(scope="module")
def source(clip: Path) -> NDArray[np.uint8]:
    return pictures_in(clip)


def shown(source: NDArray[np.uint8], output: NDArray[np.uint8]) -> list[int]:
    """Return which source frame each output frame is."""
    numbers = [[n for n, frame in enumerate(source) if np.array_equal(frame[HEADROOM], picture[HEADROOM])] for picture in output]
    assert all(len(candidates) == 1 for candidates in numbers), numbers
    return [candidates[0] for candidates in numbers]


@pytest.mark.parametrize(
    ("mode", "speech_s", "expected"),
    [
        ("bounce", LONG, [*range(25), *range(23, -1, -1), *range(1, 12)]),
        ("bounce", SHORT, list(range(15))),
        ("loop", LONG, [k % 25 for k in range(60)]),
        ("loop", SHORT, list(range(15))),
        ("cut_off", LONG, list(range(25))),
        ("cut_off", SHORT, list(range(15))),
        ("silence", LONG, [*range(25), *([24] * 35)]),
        ("silence", SHORT, list(range(25))),
        ("remap", LONG, [int((2 * k + 1) * 25 / 120) for k in range(60)]),
        ("remap", SHORT, [int((2 * k + 1) * 25 / 30) for k in range(15)]),
    ],
)
def test_each_mode_shows_its_frames_and_lasts_as_long_as_it_says(
    mode: SyncMode, speech_s: Fraction, expected: list[int], clip: Path, source: NDArray[np.uint8], client: TritonClient, tmp_path: Path
) -> None:
    speech = write_speech(tmp_path / "speech.wav", float(speech_s))
    out = tmp_path / "out.mp4"
    report = render(plan_render(clip, speech, out, LOSSLESS.model_copy(update={"sync_mode": mode})), client)
    output = pictures_in(out)
    assert shown(source, output) == expected
    assert report.frame_count == len(expected)
    assert abs(len(sound_of(out)) / SPEECH_RATE_HZ - len(expected) / 25) <= 1024 / SPEECH_RATE_HZ, "sound and pictures end together"
    assert not np.array_equal(output[5], source[expected[5]]), "the mouth moves"


def test_what_lies_behind_the_speech_is_the_source_s_own_and_silent(
    clip: Path, source: NDArray[np.uint8], client: TritonClient, tmp_path: Path
) -> None:
    speech = write_speech(tmp_path / "speech.wav", float(SHORT))
    out = tmp_path / "out.mp4"
    report = render(plan_render(clip, speech, out, LOSSLESS.model_copy(update={"sync_mode": "silence"})), client)
    assert np.array_equal(pictures_in(out)[15:], source[15:])
    assert report.passed_through[-1] == (15, 25)
    behind = sound_of(out)[int(SHORT * SPEECH_RATE_HZ) + 2048 :]
    assert len(behind) and abs(behind).max() < 1e-3
