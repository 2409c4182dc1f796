"""Renders in which somebody speaks in parts of the video alone: the rest is the source's, pictures and sound."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.errors import InvalidOption
from orchestrator.inference.client import TritonClient
from orchestrator.media.audio import read_samples
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.speakers import SpeakerAudio
from tests.clips import Sound, decoded, frames_of, pictures_in, with_sound, write_speech, write_video

RATE_HZ = 48_000


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", 3.0)


@pytest.fixture(scope="module")
def film(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of the clip, there and back, with a tone of its own."""
    folder = tmp_path_factory.mktemp("film")
    pictures = decoded(small_clip)
    write_video(folder / "silent.mp4", [*pictures, *pictures[::-1]], {"crf": "10", "preset": "veryfast"})
    return with_sound(folder / "film.mov", folder / "silent.mp4", Sound(sample_rate_hz=RATE_HZ, duration_s=Fraction(2)))


def rendered(client: TritonClient, film: Path, speech: Path, out: Path, *segments: dict[str, Any], **others: Any) -> RenderReport:
    options = RenderOptions.model_validate({"segments": segments, "lossless": True, "preset": "ultrafast", **others})
    return render(plan_render(film, speech, out, options), client)


def heard(path: Path) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = np.concatenate(list(read_samples(path, "mono", RATE_HZ)), axis=1)[0]
    return samples


@pytest.mark.parametrize(("said_s", "cut_s"), [(3.0, 1.8), (2.2, 1.0)])
def test_speech_that_goes_on_behind_the_end_of_the_video_is_told(
    said_s: float, cut_s: float, film: Path, speech: Path, client: TritonClient, tmp_path: Path
) -> None:
    report = rendered(client, film, speech, tmp_path / "out.mkv", {"start": 0.8, "end": 30, "audio_end": said_s})
    assert report.duration_s == 2.0
    (note,) = (note for note in report.notes if "segment" in note)
    assert note == f"The speech of the segment from 0.8 s on is {cut_s:.2f} s longer than that, which ends with the video; it was cut."


def test_pictures_and_sound_outside_segments_are_the_sources(film: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    asked = [{"start": 0.4, "end": 0.8, "audio_start": 0.2}, {"start": 1.2, "end": 1.6, "audio_start": 1, "audio_end": 1.3}]
    report = rendered(client, film, speech, tmp_path / "out.mkv", *asked, codec="ffv1", preset=None)
    assert (report.frame_count, report.duration_s) == (50, 2.0)
    assert report.passed_through_because["outside_segments"] == ((0, 10), (20, 30), (40, 50))
    assert [note for note in report.notes if "segment" in note] == ["The speech of the segment from 0.4 s on is 2.40 s longer than that; it was cut."]
    changed = (pictures_in(tmp_path / "out.mkv") != pictures_in(film)).any(axis=(1, 2))
    assert changed[10:20].all() and changed[30:37].all() and not changed[[*range(10), *range(20, 30), *range(40, 50)]].any()
    sound, own, said = heard(tmp_path / "out.mkv"), heard(film), heard(speech)
    for first, stop in ((0.0, 0.38), (0.82, 1.18), (1.62, 2.0)):
        part = slice(round(first * RATE_HZ), round(stop * RATE_HZ))
        np.testing.assert_allclose(sound[part], own[part], atol=2**-20)
    for place, start, length in ((0.4, 0.2, 0.4), (1.2, 1.0, 0.3)):
        first, from_, count = (round(time * RATE_HZ) for time in (place + 0.02, start + 0.02, length - 0.04))
        np.testing.assert_allclose(sound[first : first + count], said[from_ : from_ + count], atol=2**-20)
    assert not sound[round(1.51 * RATE_HZ) : round(1.58 * RATE_HZ)].any(), "behind shorter speech there is silence"


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    [
        ("bounce", [*range(10, 20), *range(18, 10, -1), *range(10, 17)], range(30, 35)),
        ("remap", [10 + (2 * place + 1) * 10 // 50 for place in range(25)], range(31, 40, 2)),
        ("silence", [*range(10, 20), *[19] * 15], range(30, 40)),
    ],
)
def test_segment_becomes_as_long_as_its_speech(
    mode: str, first: list[int], second: range, film: Path, speech: Path, client: TritonClient, tmp_path: Path
) -> None:
    """Of two seconds, 0.4 s with a second of speech, and 0.4 s with 0.2 s of it."""
    asked = [
        {"start": 0.4, "end": 0.8, "audio_start": 0.2, "audio_end": 1.2, "sync_mode": mode},
        {"start": 1.2, "end": 1.6, "audio_start": 1.5, "audio_end": 1.7, "sync_mode": mode},
    ]
    report = rendered(client, film, speech, tmp_path / "out.mkv", *asked, codec="ffv1", preset=None, voice_activity=False)
    source = [*range(10), *first, *range(20, 30), *second, *range(40, 50)]
    assert (report.frame_count, report.duration_s) == (len(source), len(source) / 25)
    assert not [note for note in report.notes if "segment" in note], "nothing was cut"
    result = pictures_in(tmp_path / "out.mkv")
    changed = (result != pictures_in(film)[source]).any(axis=(1, 2))
    outside = [*range(10), *range(35, 45), *range(len(source) - 10, len(source))]
    assert not changed[outside].any() and changed[11:34].all()
    sound, own, said = heard(tmp_path / "out.mkv"), heard(film), heard(speech)
    later_s = 1.0 - 0.4
    for place, start, length, track in (
        (0.0, 0.0, 0.4, own),
        (0.4, 0.2, 1.0, said),
        (0.8 + later_s, 0.8, 0.4, own),
        (1.2 + later_s, 1.5, 0.2, said),
        (len(source) / 25 - 0.4, 1.6, 0.4, own),
    ):
        at, from_, count = (round(time * RATE_HZ) for time in (place + 0.02, start + 0.02, length - 0.04))
        np.testing.assert_allclose(sound[at : at + count], track[from_ : from_ + count], atol=2**-20)


def test_groups_outside_segments_are_copied_when_that_is_asked_for(film: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    every_ten = {"preset": "fast", "x264-params": "keyint=10:min-keyint=10:scenecut=0:open-gop=0"}
    write_video(tmp_path / "film.mp4", frames_of(film), every_ten)
    report = rendered(client, tmp_path / "film.mp4", speech, tmp_path / "out.mp4", {"start": 0.8, "end": 1.2}, lossless=False, smart=True)
    assert report.copied == ((0, 20), (30, 50))


def test_segment_may_reach_behind_the_end_but_not_begin_there(film: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    report = rendered(client, film, speech, tmp_path / "out.mp4", {"start": 1.5, "end": 2.7}, lossless=False)
    assert (report.frame_count, report.audio_duration_s) == (50, 2.0)
    assert len(heard(tmp_path / "out.mp4")) == pytest.approx(2 * RATE_HZ, abs=1024)
    with pytest.raises(InvalidOption, match=r"begins at 2\.2 s, and the video ends at 2\.00 s"):
        rendered(client, film, speech, tmp_path / "out.mp4", {"start": 2.2, "end": 2.7})


def test_two_speakers_have_segments_of_their_own(pair: Path, speech: Path, client: TritonClient, tmp_path: Path) -> None:
    asked = [{"start": 0.0, "end": 0.4}, {"start": 0.4, "end": 0.6, "audio": 3}, {"start": 0.2, "end": 0.6, "audio": 2}]
    options = RenderOptions.model_validate({"segments": asked, "codec": "ffv1", "speaker": "128,110", "voice_activity": False})
    others = [SpeakerAudio(speech, "390,110"), SpeakerAudio(speech, "")]
    render(plan_render(pair, speech, tmp_path / "out.mkv", options, others=others), client)
    changed = (pictures_in(tmp_path / "out.mkv") != pictures_in(pair))[:, :256]
    left, right = (changed[:, :, half].any((1, 2)) for half in (slice(256), slice(256, None)))
    assert left[:14].all() and not left[15:].any(), "both of his tracks, without a gap"
    assert right[6:14].all() and not right[:5].any() and not right[15:].any()
