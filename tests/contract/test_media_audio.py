"""Sound in: every common codec, rate and channel count gives the same speech, in its place and of its length."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import resample_poly

from orchestrator.errors import UnreadableMedia
from orchestrator.media import audio as audio_module
from orchestrator.media.audio import AudioInfo, Passage, mel_blocks, put_together, read_samples, read_speech, speech_samples
from orchestrator.media.audio import channel_count as channel_count_of
from preprocess.mel import clipped, levels_db
from tests.clips import Clip, Sound, make_clip, make_sound, mel_of, write_wav
from tests.debian import run_ffmpeg

CLICKS_S = (Fraction(1, 4), Fraction(3, 4))

FILES = {
    "wav.wav": Sound(),
    "flac.flac": Sound("flac"),
    "mp3.mp3": Sound("libmp3lame", sample_format="s16p"),
    "aac.mp4": Sound("aac", sample_format="fltp"),
    "aac.mkv": Sound("aac", sample_format="fltp"),
    "alac.m4a": Sound("alac", sample_format="s16p"),
    "opus.ogg": Sound("libopus"),
    "opus.webm": Sound("libopus"),
    "aiff.aiff": Sound("pcm_s16be"),
    "g722.g722": Sound("g722"),
    "voc.voc": Sound("pcm_s16le"),
}
RATES_HZ = {
    "mp3.mp3": (8_000, 16_000, 44_100, 48_000),
    "opus.ogg": (8_000, 16_000, 24_000, 48_000),
    "opus.webm": (48_000,),
    "g722.g722": (16_000,),
}
LAYOUTS = {
    "mp3.mp3": ("mono", "stereo"),
    "alac.m4a": ("mono", "stereo"),
    "g722.g722": ("mono",),
    "voc.voc": ("mono", "stereo"),
    "aiff.aiff": ("mono", "stereo"),
    "opus.webm": ("mono", "stereo"),
}
CODEC_FRAME = {"mp3.mp3": 1152, "aac.mp4": 1024, "aac.mkv": 1024}
"""Samples a codec rounds a track up to; the others keep its length exactly."""

CASES = [
    (file, rate_hz, layout)
    for file in FILES
    for rate_hz in RATES_HZ.get(file, (8_000, 16_000, 22_050, 44_100, 48_000))
    for layout in LAYOUTS.get(file, ("mono", "stereo", "5.1"))
    if layout != "5.1" or rate_hz == 48_000
]


def samples_of(path: Path, layout: str = "mono", sample_rate_hz: int = 16_000) -> NDArray[np.float32]:
    return np.concatenate(list(read_samples(path, layout, sample_rate_hz)), axis=1)


def onsets_s(samples: NDArray[np.float32], sample_rate_hz: int = 16_000) -> list[float]:
    """Return where clicks begin: loud samples behind a tenth of a second of silence."""
    loud = np.flatnonzero(np.abs(samples) > 0.25)
    return [float(at) / sample_rate_hz for at, gap in zip(loud, np.diff(loud, prepend=-(10**6)), strict=True) if gap > sample_rate_hz // 10]


@pytest.mark.parametrize(("file", "rate_hz", "layout"), CASES)
def test_clicks_are_in_their_place_and_the_length_is_right(tmp_path: Path, file: str, rate_hz: int, layout: str) -> None:
    sound = replace(FILES[file], sample_rate_hz=rate_hz, layout=layout, clicks_s=CLICKS_S, duration_s=Fraction(13, 10))
    path = make_sound(tmp_path / file, sound)
    info = read_speech(path).info
    assert info.channel_count == {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    assert info.sample_rate_hz == (48_000 if file.startswith("opus") else rate_hz), "Opus always decodes to 48 kHz"
    tolerance_s = Fraction(CODEC_FRAME.get(file, 0), rate_hz) + Fraction(1, 16_000)
    assert -Fraction(1, 16_000) <= info.duration_s - Fraction(13, 10) <= tolerance_s
    np.testing.assert_allclose(onsets_s(samples_of(path)[0]), [0.25, 0.75], atol=0.002)
    np.testing.assert_allclose(onsets_s(samples_of(path, "stereo", 48_000)[1], 48_000), [0.25, 0.75], atol=0.002)


@pytest.mark.parametrize("sample_rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("channel_count", [1, 2])
def test_features_are_those_of_librosas_mono_track(tmp_path: Path, sample_rate_hz: int, channel_count: int) -> None:
    """Wav2Lip's own script loads speech with librosa: `to_mono` is the mean, `resample` with "polyphase" is SciPy's.

    librosa's own are not called because the first call compiles for twenty seconds.
    """
    rng = np.random.default_rng(4)
    time = np.arange(sample_rate_hz * 2) / sample_rate_hz
    voice = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20)) * (1.2 + np.sin(2 * np.pi * 3 * time))
    channels = np.stack([voice * (0.12 + 0.03 * k) + rng.normal(0, 0.003, len(time)) for k in range(channel_count)], axis=1)
    path = write_wav(tmp_path / "voice.wav", channels.astype(np.float32), sample_rate_hz)
    mono = channels.T.astype(np.float32).mean(axis=0)
    divisor = gcd(16_000, sample_rate_hz)
    expected = mel_of(resample_poly(mono, 16_000 // divisor, sample_rate_hz // divisor).astype(np.float32))
    speech = read_speech(path)
    actual = clipped(np.concatenate(list(mel_blocks(speech.info)), axis=1))
    assert actual.shape == expected.shape
    np.testing.assert_allclose(speech.levels_db[2:-2], levels_db(expected)[2:-2], atol=1)
    # Two resamplers differ in the last bands below their cut-off, and nowhere else; 0.08 is one decibel.
    np.testing.assert_allclose(actual[:70, 2:-2], expected[:70, 2:-2], atol=0.08)


def test_wav_is_read_in_pieces_of_a_third_of_a_second(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "long.wav", Sound(sample_rate_hz=48_000, layout="stereo", duration_s=Fraction(30)))
    lengths = [samples.shape[1] for samples in read_samples(path, "mono", 16_000)]
    assert len(lengths) <= 90 and max(lengths) < 16_000 // 2


@pytest.mark.parametrize("sample_rate_hz", [16_000, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_passages_of_several_tracks_make_one(tmp_path: Path, layout: str, sample_rate_hz: int) -> None:
    """A track of one channel and one of two, pieces of both, cut in mid-tone."""
    mono = read_speech(make_sound(tmp_path / "mono.wav", Sound(sample_rate_hz=48_000, duration_s=Fraction(2)))).info
    stereo = read_speech(make_sound(tmp_path / "stereo.wav", Sound(sample_rate_hz=48_000, layout="stereo", duration_s=Fraction(1)))).info
    half, third = Fraction(1, 2), Fraction(1, 3)
    made = put_together([Passage(mono, half, Fraction(1), third, half), Passage(stereo, Fraction(3, 2), Fraction(3), Fraction(0), Fraction(1))])
    assert (float(made.info.duration_s), made.info.channel_count, len(made.levels_db)) == (3, 2, 241)
    found = np.concatenate(list(speech_samples(made.info, layout, sample_rate_hz)), axis=1)
    assert found.shape == (2 if layout == "stereo" else 1, 3 * sample_rate_hz)
    first = np.concatenate(list(read_samples(mono.path, "mono", sample_rate_hz)), axis=1)
    second = np.concatenate(list(read_samples(stereo.path, layout, sample_rate_hz)), axis=1)
    at = sample_rate_hz // 2
    from_ = round(third * sample_rate_hz)
    inner = slice(at // 20, at - at // 20)
    for channel in found:
        np.testing.assert_array_equal(channel[at : 2 * at][inner], first[0, from_ : from_ + at][inner])
        assert abs(channel[at]) < 0.01 and abs(channel[2 * at - 1]) < 0.01, "what is cut out of a track does not click"
    np.testing.assert_array_equal(found[:, 3 * at : 5 * at], second[:, : 2 * at])
    for silent in (found[:, :at], found[:, 2 * at : 3 * at], found[:, 5 * at :]):
        assert not silent.any()
    blocks = np.concatenate(list(mel_blocks(made.info)), axis=1)
    np.testing.assert_array_equal(levels_db(blocks), made.levels_db)


@given(places=st.lists(st.tuples(st.integers(0, 24_000), st.integers(0, 9000)), min_size=1, max_size=6))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_stretches_of_a_track_are_read_in_any_order(tmp_path: Path, places: list[tuple[int, int]]) -> None:
    path = tmp_path / "sound.wav"
    info = read_speech(path if path.exists() else make_sound(path, Sound(sample_rate_hz=16_000, duration_s=Fraction(3, 2)))).info
    passages = [
        Passage(info, Fraction(k), Fraction(k + 1), Fraction(first, 16_000), Fraction(count, 16_000)) for k, (first, count) in enumerate(places)
    ]
    whole, found = samples_of(path)[0], np.concatenate(list(speech_samples(put_together(passages).info, "mono", 16_000)), axis=1)[0]
    for k, (first, count) in enumerate(places):
        said = whole[first : first + count]
        heard = found[k * 16_000 : (k + 1) * 16_000]
        inner = slice(160, max(160, len(said) - 160))
        np.testing.assert_array_equal(heard[: len(said)][inner], said[inner])
        assert not heard[len(said) :].any()


def test_passages_whose_places_lie_between_samples_add_up_to_no_more_than_their_time(tmp_path: Path) -> None:
    info = read_speech(make_sound(tmp_path / "sound.wav", Sound(sample_rate_hz=44_100, duration_s=Fraction(1)))).info
    length = Fraction(1009, 100_000)
    starts = [number * Fraction(1011, 100_000) for number in range(300)]
    passages = tuple(Passage(info, start, start + length, Fraction(0), length, Fraction(1)) for start in starts)
    found = [samples.shape[1] for samples in speech_samples(replace(info, passages=passages), "mono", 44_100)]
    assert sum(found) == round(passages[-1].end_s * 44_100)


def test_what_is_cut_out_of_a_long_sound_fades_as_smoothly_as_out_of_a_short_one() -> None:
    class Ones:
        """A track of which it does not matter what is in it."""

        def read(self, first: int, count: int) -> Iterator[NDArray[np.float32]]:
            for start in range(0, count, 480_000):
                yield np.broadcast_to(np.float32(1), (1, min(480_000, count - start)))

    def last_gains(said_s: int) -> NDArray[np.float32]:
        track = AudioInfo(Path("a.wav"), 48_000, 1, "pcm", Fraction(20_000))
        passage = Passage(track, Fraction(0), Fraction(said_s), Fraction(1), Fraction(said_s))
        for samples in audio_module._said(passage, cast(Any, Ones()), 48_000, said_s * 48_000):
            last = samples
        return last[0, -480:]

    np.testing.assert_array_equal(last_gains(1_000), last_gains(10))


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("sample_rate_hz", [16_000, 48_000])
def test_samples_that_are_no_sound_are_silenced(tmp_path: Path, sample_rate_hz: int, fault: float) -> None:
    """As faulty effects of audio editors write them into WAV of floating point; FFmpeg's AAC encoder refuses them."""
    samples = Sound(sample_rate_hz=sample_rate_hz).samples()
    samples[len(samples) // 2] = fault
    chunks = {b"fmt ": struct.pack("<2H2I2H", 3, 1, sample_rate_hz, 4 * sample_rate_hz, 4, 32), b"data": samples.astype("<f4").tobytes()}
    held = b"WAVE" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks.items())
    path = tmp_path / "fault.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(held)) + held)
    assert np.isfinite(read_speech(path).levels_db).all()
    for rate_hz in (16_000, 48_000):
        heard = samples_of(path, "mono", rate_hz)
        assert np.isfinite(heard).all() and np.abs(heard).max() < 100
        tone = Sound(sample_rate_hz=rate_hz).samples()
        around = np.abs(np.arange(rate_hz) - rate_hz // 2) > rate_hz // 100
        around[:16] = around[-16:] = False  # where resampling has nothing to go by
        np.testing.assert_allclose(heard[0, :rate_hz][around], tone[around], atol=0.01)


@pytest.mark.parametrize("channel_count", range(1, 9))
def test_any_number_of_channels_is_mixed(tmp_path: Path, channel_count: int) -> None:
    channels = np.tile(Sound().samples()[:, None], (1, channel_count))
    path = write_wav(tmp_path / "many.wav", channels, 16_000)
    assert read_speech(path).info.duration_s == 1
    assert samples_of(path, "stereo", 48_000).shape == (2, 48_000)


def test_bare_aac_is_read_though_it_does_not_say_what_its_encoder_put_before_it(tmp_path: Path) -> None:
    for file in ("bare.aac", "bare.latm"):
        info = read_speech(make_sound(tmp_path / file, Sound("aac", sample_format="fltp", sample_rate_hz=48_000))).info
        assert 1 <= info.duration_s <= 1 + Fraction(2 * 1024, 48_000)


@pytest.mark.parametrize("channel_count", [9, 32, 64])
@pytest.mark.parametrize("live_count", [1, 9])
def test_tracks_of_a_mixer_are_added_up(tmp_path: Path, channel_count: int, live_count: int) -> None:
    channels = np.zeros((16_000, channel_count), np.float32)
    channels[:, :live_count] = Sound().samples()[:, None]
    path = write_wav(tmp_path / "mixer.wav", channels, 16_000)
    info = read_speech(path).info
    assert info.duration_s == 1
    assert (info.channel_count, info.added_up_count) == (1, channel_count)
    loudest = float(np.abs(Sound().samples()).max()) * live_count
    assert info.gain == pytest.approx(1 / max(1, loudest), rel=1e-3), "it does not clip"
    assert channel_count_of(path) == 1, "as background sound, too"
    packed = samples_of(path)[0]
    np.testing.assert_allclose(packed, live_count * Sound().samples(), atol=live_count * 2**-14)


def test_tracks_in_planes_of_their_own_are_added_up(tmp_path: Path) -> None:
    """PyAV cannot look at more than eight planes."""
    path = tmp_path / "many.opus"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="9 channels", options={"mapping_family": "255"})
        samples = np.tile(np.sin(np.arange(48_000) * 0.05).astype(np.float32)[:, None], (1, 9)) * np.float32(0.05)
        for start in range(0, 48_000, 4_800):
            frame = av.AudioFrame.from_ndarray(samples[start : start + 4_800].reshape(1, -1), format="flt", layout="9 channels")
            frame.sample_rate, frame.pts = 48_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert read_speech(path).info.added_up_count == 9
    assert np.abs(samples_of(path, "mono", 48_000)[0, 10_000:40_000]).max() == pytest.approx(0.45, rel=0.15)


def test_of_a_sphere_of_sound_its_whole_is_heard(tmp_path: Path) -> None:
    """Ambisonics of first order: the whole, then what differs between left and right, up and down, front and back."""
    channels = Sound(sample_rate_hz=48_000).samples()[:, None] * np.array([0.8, -0.5, 0.3, 0.4], np.float32)
    path = tmp_path / "sphere.opus"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="ambisonic 1", options={"mapping_family": "2"})
        frame = av.AudioFrame.from_ndarray(channels.reshape(1, -1), format="flt", layout="ambisonic 1")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert (read_speech(path).info.channel_count, read_speech(path).info.added_up_count) == (1, 4)
    heard = samples_of(path, "mono", 48_000)[0]
    assert np.abs(heard[4800:-4800]).max() == pytest.approx(0.4, abs=0.02)


def test_more_channels_than_ffmpeg_takes_are_refused_with_their_number(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "many.wav", np.zeros((160, 65), np.float32), 16_000)
    with pytest.raises(UnreadableMedia, match="has 65 channels of sound; at most 64"):
        read_speech(path)


def write_caf(path: Path, channels: NDArray[np.float32], layout: bytes) -> Path:
    """Write (n, channels) samples at 16 kHz as editors on a Mac do, with their `chan` chunk."""
    count = channels.shape[1]
    chunks = {
        b"desc": struct.pack(">d4s5I", 16_000, b"lpcm", 0, 2 * count, 1, count, 16),
        b"chan": layout,
        b"data": bytes(4) + (channels * 32767).astype(">i2").tobytes(),
    }
    path.write_bytes(b"caff" + struct.pack(">2H", 1, 0) + b"".join(name + struct.pack(">q", len(held)) + held for name, held in chunks.items()))
    return path


def test_channels_in_an_order_of_their_own_are_mixed_by_what_they_are(tmp_path: Path) -> None:
    """kAudioChannelLayoutTag_MPEG_5_1_D: C, L, R, Ls, Rs, LFE. PyAV ends the process on such layouts."""
    centre_only = np.zeros((16_000, 6), np.float32)
    centre_only[:, 0] = Sound().samples()
    path = write_caf(tmp_path / "mac.caf", centre_only, struct.pack(">3I", 124 << 16 | 6, 0, 0))
    info = read_speech(path).info
    assert info.channel_count == 6 and info.duration_s == 1
    left, right = samples_of(path, "stereo", 16_000)
    np.testing.assert_array_equal(left, right)
    assert np.corrcoef(left, Sound().samples())[0, 1] > 0.99


def test_channels_of_which_some_have_no_place_are_added_up(tmp_path: Path) -> None:
    """Left, right, one for the hard of hearing and a narrator's, by Core Audio's labels."""
    channels = Sound().samples()[:, None] * np.array([0.2, 0.4, 0.6, 0.8], np.float32)
    labels = b"".join(struct.pack(">2I3f", label, 0, 0, 0, 0) for label in (1, 2, 40, 41))
    path = write_caf(tmp_path / "mac.caf", channels, struct.pack(">3I", 0, 0, 4) + labels)
    assert read_speech(path).info.added_up_count == 4
    np.testing.assert_allclose(samples_of(path)[0], channels.sum(1), atol=1e-3)


@pytest.mark.parametrize("file", ["two.mkv", "two.mp4", "two.mov", "two.ts"])
@pytest.mark.parametrize("default", [0, 1])
def test_of_several_tracks_the_default_is_heard(file: str, default: int, tmp_path: Path) -> None:
    """As FFmpeg's own program and players have it; MPEG-TS has no default."""
    tracks = [make_sound(tmp_path / f"{at}.wav", Sound(sample_rate_hz=48_000, clicks_s=[Fraction(at, 4)])) for at in (1, 3)]
    marks = [f"-disposition:a:{default}", "default", f"-disposition:a:{1 - default}", "0"]
    run_ffmpeg("-i", tracks[0], "-i", tracks[1], "-map", 0, "-map", 1, "-c:a", "aac", *marks, tmp_path / file)
    run_ffmpeg("-i", tmp_path / file, "-ar", 16_000, tmp_path / "judge.wav")
    heard = onsets_s(samples_of(tmp_path / file)[0])
    np.testing.assert_allclose(heard, onsets_s(samples_of(tmp_path / "judge.wav")[0]), atol=0.002)
    assert round(heard[0] * 4) == (3 if default and not file.endswith("ts") else 1)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 12_000, 16_000, 22_050])
@pytest.mark.parametrize(
    ("file", "codec"),
    [("a.m4a", "aac"), ("a.aac", "aac"), ("a.mkv", "aac"), ("a.ts", "aac"), ("a.wma", "wmav2"), ("a.mp3", "libmp3lame")],
)
def test_low_rates_are_heard_when_ffmpegs_own_program_has_them(file: str, codec: str, rate_hz: int, tmp_path: Path) -> None:
    """What an encoder puts before the sound is left out where the file says how much that is, and nowhere else."""
    source = make_sound(tmp_path / "source.wav", Sound(sample_rate_hz=rate_hz, clicks_s=CLICKS_S))
    run_ffmpeg("-i", source, "-c:a", codec, "-b:a", "32k", tmp_path / file)
    run_ffmpeg("-i", tmp_path / file, "-ar", 16_000, tmp_path / "judge.wav")
    np.testing.assert_allclose(onsets_s(samples_of(tmp_path / file)[0]), onsets_s(samples_of(tmp_path / "judge.wav")[0]), atol=0.002)
    if file == "a.m4a":
        np.testing.assert_allclose(onsets_s(samples_of(tmp_path / file)[0]), [0.25, 0.75], atol=0.002)


@pytest.mark.parametrize("file", ["delay.mp4", "delay.mkv", "delay.ts", "delay.mov"])
@pytest.mark.parametrize("delay_s", [Fraction(1, 2), Fraction(1, 25)])
def test_sound_that_starts_behind_its_pictures_keeps_its_place(tmp_path: Path, file: str, delay_s: Fraction) -> None:
    sound = Sound("aac", 48_000, sample_format="fltp", clicks_s=CLICKS_S)
    path = make_clip(tmp_path / file, Clip(), sound, sound_delay_s=delay_s)
    np.testing.assert_allclose(onsets_s(samples_of(path)[0]), [0.25 + float(delay_s), 0.75 + float(delay_s)], atol=0.002)
    duration_s = read_speech(path).info.duration_s
    assert 0 <= duration_s - 1 - delay_s <= Fraction(1024, 48_000)


@pytest.mark.parametrize(
    ("file", "codec"), [("off.webm", "libopus"), ("off.mkv", "aac"), ("off.mp4", "aac"), ("off.ts", "aac"), ("off.flv", "aac"), ("off.mpg", "mp2")]
)
def test_pause_in_the_time_stamps_is_silence(tmp_path: Path, file: str, codec: str) -> None:
    """As recorders store a microphone that is off, and speech codecs a pause: with no packets."""
    clicks_s = (Fraction(1, 4), Fraction(7, 4))
    sound = Sound(codec, 48_000, sample_format="s16" if codec != "aac" else "fltp", duration_s=Fraction(2), clicks_s=clicks_s)
    whole, path = make_sound(tmp_path / f"whole.{file[4:]}", sound), tmp_path / file
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        first_s = None
        for packet in source.demux(audio=0):
            if not packet.size or packet.pts is None:
                continue
            time_s = float(packet.pts * packet.time_base)
            first_s = time_s if first_s is None else first_s
            if not 0.5 < time_s - first_s < 1.5:
                packet.stream = stream
                target.mux(packet)
    assert abs(read_speech(path).info.duration_s - read_speech(whole).info.duration_s) < Fraction(1, 100)
    np.testing.assert_allclose(onsets_s(samples_of(path)[0]), onsets_s(samples_of(whole)[0]), atol=0.002)


def test_picture_and_sound_of_one_file_that_starts_late_start_together(tmp_path: Path) -> None:
    sound = Sound("aac", 48_000, sample_format="fltp", clicks_s=CLICKS_S)
    path = make_clip(tmp_path / "late.mkv", Clip(first_tick=40), sound)
    np.testing.assert_allclose(onsets_s(samples_of(path)[0]), [0.25, 0.75], atol=0.002)


def test_joined_files_of_different_kinds_are_read_to_the_end(tmp_path: Path) -> None:
    stereo = make_sound(tmp_path / "a.mp3", Sound("libmp3lame", 44_100, "stereo", "s16p")).read_bytes()
    mono = make_sound(tmp_path / "b.mp3", Sound("libmp3lame", 22_050, "mono", "s16p")).read_bytes()
    for name, data in (("ab.mp3", stereo + mono), ("ba.mp3", mono + stereo)):
        (tmp_path / name).write_bytes(data)
        assert abs(read_speech(tmp_path / name).info.duration_s - 2) < Fraction(1, 8)
        rms = float(np.sqrt((samples_of(tmp_path / name)[0, 1000:-3000] ** 2).mean()))
        assert abs(rms - 0.5 / np.sqrt(2)) < 0.03, "as loud as before in either part"


def test_title_that_is_not_utf8_does_not_matter(tmp_path: Path) -> None:
    path = make_sound(tmp_path / "speech.wav")
    title = "标题".encode("gbk")
    chunk = b"INFOINAM" + struct.pack("<I", len(title)) + title
    data = path.read_bytes() + b"LIST" + struct.pack("<I", len(chunk)) + chunk
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8) + data[8:])
    assert read_speech(path).info.duration_s == 1


@pytest.mark.parametrize("codec", ["pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "pcm_alaw", "adpcm_ms"])
def test_every_kind_of_wav_sounds_the_same(tmp_path: Path, codec: str) -> None:
    formats = {"pcm_s24le": "s32", "pcm_s32le": "s32", "pcm_f32le": "flt", "pcm_u8": "u8"}
    path = make_sound(tmp_path / "speech.wav", Sound(codec, sample_format=formats.get(codec, "s16")))
    samples = samples_of(path)[0]
    assert 0 <= len(samples) - 16_000 < 1024, "ADPCM comes in blocks"
    settled = slice(50, 16_000)  # ADPCM takes some samples to catch up
    np.testing.assert_allclose(samples[settled], Sound().samples()[settled], atol=0.03)


def test_wav_from_a_pipe_does_not_know_its_length_and_is_read_all_the_same(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "pipe.wav", Sound().samples(), 16_000)
    data = bytearray(path.read_bytes())
    for position in (4, 40):
        data[position : position + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert read_speech(path).info.duration_s == 1


def test_shortest_speech_has_one_column(tmp_path: Path) -> None:
    speech = read_speech(write_wav(tmp_path / "short.wav", np.full(1, 0.5, np.float32), 16_000))
    assert speech.info.duration_s == Fraction(1, 16_000)
    assert speech.levels_db.shape == (1,)
    assert [block.shape for block in mel_blocks(speech.info)] == [(80, 1)]


def test_a_few_damaged_packets_do_not_matter_and_many_do(tmp_path: Path) -> None:
    whole = make_sound(tmp_path / "speech.flac", Sound("flac", duration_s=Fraction(20))).read_bytes()
    path = tmp_path / "damaged.flac"
    data = bytearray(whole)
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    assert read_speech(path).info.duration_s > Fraction(19)
    data[len(data) // 4 : 3 * len(data) // 4] = bytes(len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(UnreadableMedia, match="truncated"):
        read_speech(path)


@pytest.mark.parametrize("rate_hz", [4, 999, 6_000_001, 100_000_007])
def test_sample_rate_that_no_sound_has_is_refused(tmp_path: Path, rate_hz: int) -> None:
    path = write_wav(tmp_path / "odd.wav", np.zeros(3000, np.float32), rate_hz)
    with pytest.raises(UnreadableMedia, match=rf"^odd\.wav has sound of {rate_hz} samples a second, expected 1000 to 6000000"):
        read_speech(path)


@pytest.mark.parametrize("rate_hz", [1000, 4000, 2_822_400])
def test_odd_sample_rates_are_read(tmp_path: Path, rate_hz: int) -> None:
    path = write_wav(tmp_path / "odd.wav", np.zeros(rate_hz, np.float32), rate_hz)
    assert read_speech(path).info.duration_s == pytest.approx(1, abs=0.01)
