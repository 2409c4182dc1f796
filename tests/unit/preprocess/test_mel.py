"""The audio front end, with librosa as the oracle."""

from fractions import Fraction

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import get_window

from preprocess.filterbank import slaney_filters
from preprocess.mel import (
    MAX_GAIN_DB,
    MelStream,
    MelWindows,
    clipped,
    levels_db,
    loud_gain_db,
    with_gain,
    with_level,
    with_temperature,
)
from tests.clips import mel_of

Mel = NDArray[np.float32]

NOISE = (np.random.default_rng(7).standard_normal(40_000) * np.linspace(0.0, 0.3, 40_000)).astype(np.float32)
LONG_NOISE = np.tile(NOISE, 12)
"""More than two blocks of columns."""


def window_of(mel: Mel, time: Fraction, window_start_s: Fraction) -> Mel:
    return MelWindows([mel], window_start_s)(time)


def with_loud_level(mel: Mel, loud_level_db: float) -> Mel:
    return with_level(mel, loud_gain_db(levels_db(mel), loud_level_db))


@pytest.mark.parametrize(("n_fft", "low_hz", "high_hz"), [(800, 55.0, 7600.0), (400, 0.0, 8000.0)], ids=["Wav2Lip", "Whisper"])
def test_filters_are_librosas(n_fft: int, low_hz: float, high_hz: float) -> None:
    expected = librosa.filters.mel(sr=16_000, n_fft=n_fft, n_mels=80, fmin=low_hz, fmax=high_hz)
    np.testing.assert_allclose(slaney_filters(low_hz, high_hz, 80, n_fft, 16_000), expected, atol=1e-7)


def test_features_are_what_librosa_gives_with_wav2lips_parameters() -> None:
    """`preemphasis` and `stft` written out: to call librosa's compiles for twenty seconds first."""
    emphasised = np.append(NOISE[:1], NOISE[1:] - 0.97 * NOISE[:-1])
    frames = sliding_window_view(np.pad(emphasised, 400), 800)[::200]
    spectrum = np.abs(np.fft.rfft(frames * get_window("hann", 800), axis=1)).T
    mel = librosa.filters.mel(sr=16_000, n_fft=800, n_mels=80, fmin=55, fmax=7600) @ spectrum
    expected = np.clip(8 * ((20 * np.log10(np.maximum(1e-5, mel)) - 20 + 100) / 100) - 4, -4, 4)
    np.testing.assert_allclose(mel_of(NOISE), expected, atol=1e-4)


@settings(max_examples=20)
@given(st.lists(st.integers(0, len(LONG_NOISE)), max_size=6))
def test_result_does_not_depend_on_how_the_waveform_was_cut(cuts: list[int]) -> None:
    stream = MelStream()
    blocks = [block for piece in np.split(LONG_NOISE, sorted(cuts)) for block in stream.push(piece)]
    assert np.array_equal(clipped(np.concatenate([*blocks, stream.finish()], axis=1)), mel_of(LONG_NOISE))


def test_silence_is_the_lowest_level_everywhere() -> None:
    assert (mel_of(np.zeros(3200, np.float32)) == -4).all()


def test_window_is_silence_outside_the_track_and_the_tracks_columns_inside() -> None:
    mel = np.tile(np.arange(100, dtype=np.float32), (80, 1))
    assert window_of(mel, Fraction(1, 2), Fraction(0))[0].tolist() == list(range(40, 56))
    assert window_of(mel, Fraction(0), Fraction(-1, 10))[0].tolist() == [-4] * 8 + list(range(8))
    assert window_of(mel, Fraction(5, 4), Fraction(-1, 10))[0].tolist() == list(range(92, 100)) + [-4] * 8
    assert (window_of(mel, Fraction(60), Fraction(0)) == -4).all()


def test_quiet_track_is_raised_to_the_loud_level_but_noise_is_not_made_to_speak() -> None:
    def loud_level_db(mel: Mel) -> float:
        power = 10 ** ((mel.astype(np.float64) * 12.5 - 50) / 10)
        return float(np.percentile(10 * np.log10(power.mean(0)), 95))

    quiet = mel_of(NOISE * np.float32(0.1))
    assert abs(loud_level_db(with_loud_level(quiet, -30.0)) - -30.0) < 0.5
    whisper = mel_of(NOISE * np.float32(1e-4))
    assert loud_level_db(with_loud_level(whisper, 0.0)) <= loud_level_db(whisper) + MAX_GAIN_DB + 0.5


def test_track_of_very_quiet_speech_is_heard_like_a_loud_one_and_its_silence_stays_silence() -> None:
    def heard(waveform: Mel) -> Mel:
        stream = MelStream()
        assert not stream.push(np.concatenate([waveform, np.zeros(8000, np.float32)])), "less than a block"
        return with_loud_level(stream.finish(), -30.0)

    loud, quiet = heard(NOISE), heard(NOISE * np.float32(5e-3))
    np.testing.assert_allclose(quiet, loud, atol=1e-2)
    assert (quiet[:, -30:] == -4).all()


@pytest.mark.parametrize("count", [0, 1, 199, 200, 399, 16_000])
def test_track_of_any_length_has_a_column_for_each_hop_and_one(count: int) -> None:
    assert mel_of(NOISE[:count]).shape == (80, 1 + count // 200)


def test_stereo_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="mono"):
        MelStream().push(np.zeros((2, 100), np.float32))


@given(st.fractions(-2, 4), st.fractions(Fraction(-1, 5), Fraction(1, 5)))
def test_window_is_the_same_whether_the_track_is_padded_or_not(time: Fraction, window_start_s: Fraction) -> None:
    mel = np.random.default_rng(1).uniform(-3, 4, (80, 100)).astype(np.float32)
    padded = np.full((80, 1100), -4, np.float32)
    padded[:, 500:600] = mel
    start = 500 + round((time + window_start_s) * 80)
    assert np.array_equal(window_of(mel, time, window_start_s), padded[:, start : start + 16])


@given(st.lists(st.fractions(-1, 30), min_size=1, max_size=20), st.fractions(Fraction(-1, 5), Fraction(1, 5)), st.sampled_from([1, 7, 64, 2000]))
def test_windows_are_the_same_however_many_columns_arrive_at_a_time(times: list[Fraction], window_start_s: Fraction, block: int) -> None:
    mel = np.random.default_rng(1).uniform(-3, 4, (80, 2000)).astype(np.float32)
    windows = MelWindows((mel[:, first : first + block] for first in range(0, 2000, block)), window_start_s)
    for time in sorted(times):
        assert np.array_equal(windows(time), window_of(mel, time, window_start_s))


def test_window_that_was_let_go_of_is_a_programming_error() -> None:
    windows = MelWindows([mel_of(NOISE)], Fraction(0))
    windows(Fraction(1))
    with pytest.raises(ValueError, match="let go"):
        windows(Fraction(1, 2))


def test_window_over_an_hour_is_exact() -> None:
    """30000/1001 frames a second: frame 107892 stands at 3599.9964 s, column 287999.7 of the track."""
    mel = np.broadcast_to(np.arange(288_100, dtype=np.float32), (80, 288_100))
    window = window_of(mel, Fraction(107_892) * Fraction(1001, 30000), Fraction(0))
    assert window[0, 0] == round(107_892 * 1001 * 80 / 30000)


def test_loud_level_moves_every_band_by_the_same_decibels() -> None:
    mel = mel_of(NOISE)
    louder = with_loud_level(mel, -20.0)
    inside = (louder > -4) & (louder < 4) & (mel > -4) & (mel < 4)
    assert np.ptp((louder - mel)[inside]) < 1e-4
    assert abs(float(np.abs(with_loud_level(louder, -20.0) - louder).max())) < 0.05, "a track at its level stays"
    assert (with_loud_level(np.full((80, 50), -4, np.float32), -20.0) <= -4 + MAX_GAIN_DB * 0.08 + 1e-6).all()


def test_gain_of_a_column_is_that_of_its_samples_and_none_is_silence() -> None:
    waveform = np.random.default_rng(3).uniform(-0.1, 0.1, 16_000).astype(np.float32)
    mel = mel_of(waveform)
    np.testing.assert_allclose(with_gain(mel, np.full(mel.shape[1], 0.25, np.float32)), mel_of(waveform * np.float32(0.25)), atol=1e-3)
    faded = with_gain(mel, np.linspace(0, 1, mel.shape[1], dtype=np.float32))
    assert (faded[:, 0] == -4).all() and np.array_equal(faded[:, -1], mel[:, -1])
    assert (np.diff(faded.mean(0)[5:]) > -0.5).all()


def test_temperature_stretches_speech_and_leaves_silence() -> None:
    mel = mel_of(np.random.default_rng(3).uniform(-0.1, 0.1, 16_000).astype(np.float32))
    less, same, more = (with_temperature(mel, temperature) for temperature in (0.0, 0.5, 1.0))
    assert np.array_equal(same, mel)
    assert ((less <= mel) & (mel <= more)).all() and less.mean() + 0.3 < mel.mean() < more.mean() - 0.3
    silence = np.full((80, 16), -4, np.float32)
    assert np.array_equal(with_temperature(silence, 1.0), silence)
