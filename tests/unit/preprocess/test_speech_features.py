"""Front ends against other implementations: Whisper's by librosa, Kaldi's written out frame by frame from its documentation."""

from fractions import Fraction

import librosa
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.signal import get_window

from preprocess.speech_features import feature_window, kaldi_fbank, whisper_log_mel


@pytest.fixture(scope="module")
def waveform() -> NDArray[np.float32]:
    random = np.random.default_rng(2)
    time = np.arange(48_000) / 16_000
    return np.asarray(0.3 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(2 * np.pi * 3 * time)) + 0.01 * random.standard_normal(48_000), np.float32)


def test_whisper_features_are_librosas_mel_on_whispers_scale(waveform: NDArray[np.float32]) -> None:
    """`melspectrogram` written out: to call librosa's compiles for twenty seconds first."""
    padded = np.pad(waveform, (0, 480_000 - len(waveform)))
    frames = sliding_window_view(np.pad(padded, 200, mode="reflect"), 400)[::160]
    spectrum = np.abs(np.fft.rfft(frames * get_window("hann", 400), axis=1)).T
    power = (librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80) @ spectrum**2)[:, :-1]
    log = np.log10(np.maximum(power, 1e-10))
    expected = (np.maximum(log, log.max() - 8) + 4) / 4
    features = whisper_log_mel(waveform)
    assert features.shape == (80, 3000) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=2e-3)


def test_more_than_a_segment_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="480000"):
        whisper_log_mel(np.zeros(480_001, np.float32))


def test_kaldi_features_are_those_of_its_documentation(waveform: NDArray[np.float32]) -> None:
    features = kaldi_fbank(waveform)
    assert features.shape == (1 + (48_000 - 400) // 160, 80)
    for number in (0, 7, 150, len(features) - 1):
        frame = waveform[number * 160 : number * 160 + 400].astype(np.float64) * 32768
        frame -= frame.mean()
        emphasised = [frame[0] - 0.97 * frame[0], *(frame[i] - 0.97 * frame[i - 1] for i in range(1, 400))]
        povey = [(0.5 - 0.5 * np.cos(2 * np.pi * i / 399)) ** 0.85 for i in range(400)]
        power = np.abs(np.fft.fft(np.array(emphasised) * povey, 512)[:256]) ** 2
        for band in (0, 10, 40, 79):
            low, high = (1127 * np.log(1 + hz / 700) for hz in (20, 8000))
            step = (high - low) / 81
            left, centre, right = (low + (band + k) * step for k in range(3))
            energy = 0.0
            for index in range(256):
                place = 1127 * np.log(1 + index * 16_000 / 512 / 700)
                if left < place < right:
                    energy += power[index] * ((place - left) / (centre - left) if place <= centre else (right - place) / (right - centre))
            assert features[number, band] == pytest.approx(np.log(float(max(energy, 1.19e-7))), abs=2e-2)


def test_too_short_a_track_has_no_kaldi_frame() -> None:
    assert kaldi_fbank(np.zeros(399, np.float32)).shape == (0, 80)


def test_window_of_features_begins_before_the_frame_and_is_zero_outside_the_track() -> None:
    features = np.arange(1, 21, dtype=np.float32)[:, None]

    def at(time: Fraction) -> list[float]:
        return [float(value) for value in feature_window(features, time, Fraction(-8, 100), Fraction(50), 10)[:, 0]]

    assert at(Fraction(0)) == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert at(Fraction(1, 25)) == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert at(Fraction(2, 5)) == [17, 18, 19, 20, 0, 0, 0, 0, 0, 0]
    assert at(Fraction(5)) == [0] * 10
