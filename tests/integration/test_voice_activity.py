"""The mouth moves when somebody speaks and rests in music and noise, on the real Triton with the network `make setup` installs."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from orchestrator.inference.client import TritonClient
from orchestrator.inference.voice import VoiceActivity
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from preprocess.voice import SPEECH_BEGINS_AT, SPEECH_ENDS_BELOW
from tests.clips import SPEECH_RATE_HZ, pictures_in, speech_like, write_wav

RATE = 25
"""Frames a second of the clip."""


def music(duration_s: float) -> NDArray[np.float32]:
    """Return four chords and eight drum beats a second, as loud as the speech."""
    time = np.arange(int(duration_s * SPEECH_RATE_HZ)) / SPEECH_RATE_HZ
    roots_hz = np.array([220.0, 174.6, 261.6, 196.0])[(time * 2).astype(int) % 4]
    chords = sum(np.sin(2 * np.pi * roots_hz * ratio * k * time) / k for ratio in (1, 1.26, 1.5) for k in (1, 2, 3))
    noise = np.random.default_rng(5).standard_normal(len(time))
    samples = np.asarray(0.2 * chords * np.exp(-3 * (time * 2 % 1)) + 0.3 * noise * np.exp(-30 * (time * 8 % 1)))
    return np.asarray(0.5 * samples / np.abs(samples).max(), np.float32)


def noise(duration_s: float) -> NDArray[np.float32]:
    return np.asarray(0.1 * np.random.default_rng(6).standard_normal(int(duration_s * SPEECH_RATE_HZ)), np.float32)


def test_speech_is_told_from_music_and_noise_however_the_track_was_cut(client: TritonClient) -> None:
    """40 s, three windows: the answer depends on the track alone, and has one value for each 32 ms."""
    track = np.concatenate([music(8.0), speech_like(10.0), noise(12.0), speech_like(9.99), np.zeros(160, np.float32)])
    model = VoiceActivity(client)
    voice = model.listen([track])
    assert len(voice) == -(-len(track) // 512)
    chunk = np.arange(len(voice)) * 0.032
    spoken = ((chunk > 8.2) & (chunk < 17.8)) | ((chunk > 30.2) & (chunk < 39.8))
    silent = (chunk < 7.9) | ((chunk > 20) & (chunk < 29.9))  # the network forgets a voice slowly where loud noise follows it
    assert np.mean(voice[spoken] > SPEECH_BEGINS_AT) > 0.95 and voice[silent].max() < SPEECH_ENDS_BELOW
    for size in (1000, 262_208):
        again = model.listen(track[start : start + size] for start in range(0, len(track), size))
        assert np.array_equal(again, voice), f"read in pieces of {size}"
    assert model.listen([]).shape == (0,)


def mouths(client: TritonClient, clip: Path, track: NDArray[np.float32], out: Path, **options: bool) -> tuple[RenderReport, NDArray[np.uint8]]:
    """Render the clip to a track; return the report and the luma of every frame, losslessly."""
    speech = write_wav(out.with_suffix(".wav"), track, SPEECH_RATE_HZ)
    report = render(plan_render(clip, speech, out, RenderOptions(lossless=True, preset="ultrafast", **options)), client)
    return report, pictures_in(out)[:, :640]


def test_mouth_rests_in_music_and_follows_the_speech_behind_it(client: TritonClient, clip: Path, tmp_path: Path) -> None:
    track = np.concatenate([music(1.0), speech_like(0.6)])
    _, at_rest = mouths(client, clip, np.zeros_like(track), tmp_path / "silence.mp4")
    report, heard = mouths(client, clip, track, tmp_path / "heard.mp4")
    assert report.speech_s == pytest.approx(0.6, abs=0.15) and report.models["voice_activity"].inference_count == 1
    moves = [not np.array_equal(one, other) for one, other in zip(heard, at_rest, strict=True)]
    begins = moves.index(True)
    assert 0.5 * RATE < begins <= 1.0 * RATE, "in music the mouth is as in silence, until shortly before the voice"
    report, all_heard = mouths(client, clip, track, tmp_path / "all.mp4", voice_activity=False)
    assert report.speech_s is None and "voice_activity" not in report.models
    assert not np.array_equal(all_heard[begins - 1], at_rest[begins - 1]), "without it, music moves the mouth"


def test_track_without_speech_is_as_silence_and_the_report_says_so(client: TritonClient, clip: Path, tmp_path: Path) -> None:
    _, at_rest = mouths(client, clip, np.zeros(3200, np.float32), tmp_path / "silence.mp4")
    report, heard = mouths(client, clip, noise(0.2), tmp_path / "noise.mp4")
    assert np.array_equal(heard, at_rest)
    assert report.speech_s == 0 and any("Nobody speaks" in note for note in report.notes)
