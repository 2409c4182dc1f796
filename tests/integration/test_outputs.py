"""Whole renders into other formats and with other sound than usual."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from orchestrator.errors import InvalidOption, MissingStream
from orchestrator.inference.client import TritonClient
from orchestrator.media.planes import plane_view
from orchestrator.media.probe import probe_video
from orchestrator.media.reader import VideoReader
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from tests.clips import SPEECH_RATE_HZ, Sound, frames_of, pictures_in, planes_of, with_sound, write_speech, write_video, write_wav


@pytest.fixture(scope="module")
def short_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("short") / "speech.wav", 0.6)


@pytest.fixture(scope="module")
def sounding_clip(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip with a second of 440 Hz."""
    sound = Sound("aac", 48_000, sample_format="fltp")
    return with_sound(tmp_path_factory.mktemp("sounding") / "clip.mp4", small_clip, sound)


def test_pictures_handed_to_every_lossless_encoder_are_the_same(small_clip: Path, short_speech: Path, client: TritonClient, tmp_path: Path) -> None:
    found = []
    for name in ("h264.mp4", "hevc.mov", "vp9.webm", "ffv1.mkv"):
        codec = name.partition(".")[0]
        options = RenderOptions.model_validate({"codec": codec, "lossless": True, "preset": None if codec == "ffv1" else "ultrafast"})
        report = render(plan_render(small_clip, short_speech, tmp_path / name, options), client)
        assert report.encoding.endswith(f"in {name.partition('.')[2]}")
        found.append(pictures_in(tmp_path / name))
    assert all(np.array_equal(found[0], other) for other in found[1:])
    edited, source = found[0], pictures_in(small_clip)[: len(found[0])]
    changed = (edited != source).any(0)
    assert 0 < changed.mean() < 0.2, "a part of the face, and nothing else"


def test_keyed_presenter_keeps_the_alpha_to_the_bit(small_clip: Path, short_speech: Path, client: TritonClient, tmp_path: Path) -> None:
    """A disc of the clip, soft at its edge; 15 frames, of which the source has 10."""
    distance = np.hypot(*(np.mgrid[:256, :256] - 128.0))
    alpha = np.clip(255 * (125 - distance) / 20, 0, 255).astype(np.uint8)
    keyed = [frame.reformat(format="yuva420p") for frame in islice(frames_of(small_clip), 10)]
    for number, picture in enumerate(keyed):
        plane_view(picture.planes[3])[:] = np.roll(alpha, number, 1)
    write_video(
        tmp_path / "keyed.webm",
        keyed,
        {"lossless": "1", "auto-alt-ref": "0", "cpu-used": "8", "deadline": "realtime"},
        codec="libvpx-vp9",
        pix_fmt="yuva420p",
        set_up=lambda stream: stream.metadata.update(alpha_mode="1"),
    )
    options = RenderOptions(lossless=True, preset="ultrafast", alpha="keep")
    report = render(plan_render(tmp_path / "keyed.webm", short_speech, tmp_path / "out.webm", options), client)
    assert report.frame_count == 15 and "yuva420p" in report.encoding
    found = replace(probe_video(tmp_path / "out.webm"), keeps_alpha=True)
    with VideoReader(found) as reader:
        planes = [planes_of(frame.picture) for frame in reader.decode_from_start()]
    with VideoReader(replace(found, path=tmp_path / "keyed.webm")) as reader:
        before = [planes_of(frame.picture) for frame in reader.decode_from_start()]
    shown = [*range(10), *range(8, 3, -1)]
    assert all(np.array_equal(after[3], np.roll(alpha, number, 1)) for after, number in zip(planes, shown, strict=True))
    changed = np.stack([after[0] != before[number][0] for after, number in zip(planes, shown, strict=True)])
    assert 0 < changed.mean() < 0.2 and changed.any((1, 2)).sum() > 8


def test_what_nobody_says_anything_in_is_copied(small_clip: Path, short_speech: Path, client: TritonClient, tmp_path: Path) -> None:
    """The speech ends with frame 15, and the source has a key frame every 8."""
    write_video(tmp_path / "clip.mp4", frames_of(small_clip), {"preset": "fast", "x264-params": "keyint=8:min-keyint=8:scenecut=0"})
    reports = {}
    for smart in (True, False):
        out = tmp_path / f"{smart}.mp4"
        options = RenderOptions(sync_mode="silence", smart=smart, preset="veryfast", crf=12)
        reports[smart] = render(plan_render(tmp_path / "clip.mp4", short_speech, out, options), client)
    assert (reports[True].copied, reports[False].copied) == (((16, 25),), ())
    assert reports[True].frame_count == 25 and reports[True].passed_through[-1][1] == 25
    copied, encoded, source_pictures = pictures_in(tmp_path / "True.mp4"), pictures_in(tmp_path / "False.mp4"), pictures_in(tmp_path / "clip.mp4")
    assert np.array_equal(copied[16:], source_pictures[16:])
    assert not np.array_equal(encoded[16:], source_pictures[16:])
    assert np.abs(copied[:16].astype(int) - encoded[:16]).mean() < 1, "the rest is rendered as it would be"


def test_output_that_cannot_be_is_refused_before_anything_is_read(small_clip: Path, tmp_path: Path) -> None:
    for name, options in (
        ("out.webm", RenderOptions(codec="h264")),
        ("out.mp4", RenderOptions(container="webm")),
        ("out.mkv", RenderOptions(crf=60)),
    ):
        with pytest.raises(InvalidOption):
            plan_render(small_clip, tmp_path / "not there", tmp_path / name, options)


def test_sources_own_sound_lies_under_the_speech(sounding_clip: Path, small_clip: Path, client: TritonClient, tmp_path: Path) -> None:
    silence = write_wav(tmp_path / "silence.wav", np.zeros(32_000, np.float32), SPEECH_RATE_HZ)
    render(plan_render(sounding_clip, silence, tmp_path / "out.mkv", RenderOptions(codec="ffv1", background_audio=-20)), client)
    with av.open(str(tmp_path / "out.mkv")) as container:
        heard = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)]) / 2.0**31
    assert len(heard) == 96_000
    tone = np.exp(-2j * np.pi * 440 / 48_000 * np.arange(96_000))
    for start in (5_000, 60_000):  # the clip is a second long: its sound begins again with the second one
        part = slice(start, start + 30_000)
        assert 2 * abs((heard[part] * tone[part]).mean()) == pytest.approx(0.05, rel=0.05)
    with pytest.raises(MissingStream, match="background_audio"):
        plan_render(small_clip, silence, tmp_path / "out.mp4", RenderOptions(background_audio=-20))
