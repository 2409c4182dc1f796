"""The source's own sound under the speech: at its level, in its place, begun again where the pictures are, never clipped."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.errors import MissingStream
from orchestrator.media.audio import read_samples, read_speech
from orchestrator.media.mix import BLOCK_SAMPLES, CEILING, MIX_RATE_HZ, Background, SoundPiece, channels_of_source, limited, mixed
from orchestrator.media.sound import SpeechEncoder
from tests.clips import make_clip, write_wav


def tone(hz: int, duration_s: float, level: float = 0.3, rate_hz: int = MIX_RATE_HZ) -> NDArray[np.float32]:
    return np.asarray(level * np.sin(2 * np.pi * hz / rate_hz * np.arange(round(duration_s * rate_hz))), np.float32)


def level_of(samples: NDArray[np.float32], hz: int) -> float:
    """Return the amplitude of a tone in (n,) samples, by correlation."""
    phase = np.exp(-2j * np.pi * hz / MIX_RATE_HZ * np.arange(len(samples)))
    return float(2 * np.abs((samples * phase).mean()))


def silence(duration_s: float, channels: int = 1) -> Iterator[NDArray[np.float32]]:
    yield np.zeros((channels, round(duration_s * MIX_RATE_HZ)), np.float32)


def background(path: Path, level_db: float, period_s: Fraction, *, repeats: bool = True) -> Background:
    return Background(path, channels_of_source(path), level_db, (SoundPiece(Fraction(0), period_s, period_s),), repeats)


@pytest.mark.parametrize("level_db", [0.0, -12.0, -40.0])
def test_background_has_its_level_and_the_speech_keeps_its_own(tmp_path: Path, level_db: float) -> None:
    path = write_wav(tmp_path / "source.wav", tone(1000, 1.0, rate_hz=16_000), 16_000)
    speech = tone(300, 1.0)
    found = np.concatenate(list(mixed(iter([speech[None, :20_000], speech[None, 20_000:]]), background(path, level_db, Fraction(1)), "mono")), 1)
    assert found.shape == (1, MIX_RATE_HZ)
    middle = found[0, 4800:43_200]
    assert level_of(middle, 300) == pytest.approx(0.3, rel=0.01)
    assert level_of(middle, 1000) == pytest.approx(0.3 * 10 ** (level_db / 20), rel=0.02)


def test_background_begins_again_with_the_pictures_and_no_click(tmp_path: Path) -> None:
    """A second of pictures, of which 0.5 s sound at 1000 Hz; 2.5 s of output."""
    path = write_wav(tmp_path / "source.wav", tone(1000, 0.5, rate_hz=MIX_RATE_HZ), MIX_RATE_HZ)
    found = np.concatenate(list(mixed(silence(2.5), background(path, 0.0, Fraction(1)), "mono")), 1)[0]
    for start, expected in ((0.05, 0.3), (0.6, 0.0), (1.05, 0.3), (1.6, 0.0), (2.05, 0.3)):
        first = round(start * MIX_RATE_HZ)
        assert level_of(found[first : first + 14_400], 1000) == pytest.approx(expected, abs=0.01)
    once = np.concatenate(list(mixed(silence(2.5), background(path, 0.0, Fraction(1), repeats=False), "mono")), 1)[0]
    assert np.array_equal(once[: MIX_RATE_HZ // 2], found[: MIX_RATE_HZ // 2]) and not once[MIX_RATE_HZ:].any()
    cut = np.concatenate(list(mixed(silence(1.0), background(path, 0.0, Fraction(3, 10)), "mono")), 1)[0]
    assert np.abs(np.diff(cut)).max() <= 2 * np.pi * 1000 / MIX_RATE_HZ * 0.3 * 1.1, "no step larger than the tone's own"


def test_background_beside_passages_is_as_it_was_and_under_them_at_its_level(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "source.wav", tone(1000, 3.0), MIX_RATE_HZ)
    under = ((Fraction(1, 2), Fraction(1)), (Fraction(2), Fraction(5, 2)))
    for level_db, expected in ((None, 0.0), (-20.0, 0.03)):
        beside = replace(background(path, 0.0, Fraction(3), repeats=False), level_db=level_db, under_s=under)
        found = np.concatenate(list(mixed(silence(3), beside, "mono")), 1)[0]
        for start_s, level in ((0.0, 0.3), (0.5, expected), (1.1, 0.3), (2.0, expected), (2.6, 0.3)):
            first = round(start_s * MIX_RATE_HZ)
            assert level_of(found[first : first + 14_400], 1000) == pytest.approx(level, abs=1e-3), start_s
        own = np.concatenate(list(read_samples(path, "mono", MIX_RATE_HZ)), 1)[0]
        assert np.array_equal(found[: MIX_RATE_HZ * 48 // 100], own[: MIX_RATE_HZ * 48 // 100]), "not a bit of it is changed"
        assert np.abs(np.diff(found)).max() <= 2 * np.pi * 1000 / MIX_RATE_HZ * 0.3 * 1.1, "no step larger than the tone's own"


def test_rounds_of_a_background_do_not_drift_from_the_pictures(tmp_path: Path) -> None:
    """A frame at 29.97 Hz lasts 1601.6 samples."""
    path = write_wav(tmp_path / "source.wav", np.eye(1, 1600, 800, dtype=np.float32)[0], MIX_RATE_HZ)
    found = np.concatenate(list(mixed(silence(10), background(path, 0.0, Fraction(1001, 30_000)), "mono")), 1)[0]
    assert np.flatnonzero(found > 0.5).tolist() == [round(1601.6 * place) + 800 for place in range(300)]


@given(
    lengths=st.lists(st.integers(1, 3 * BLOCK_SAMPLES), min_size=1, max_size=8),
    loud=st.lists(st.floats(0.0, 3.0), min_size=24, max_size=24),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_limiter_keeps_every_sample_below_the_ceiling_and_touches_no_quiet_one(lengths: list[int], loud: list[float], seed: int) -> None:
    total = sum(lengths)
    samples = np.random.default_rng(seed).uniform(-1, 1, (2, total)).astype(np.float32)
    samples *= np.repeat(np.asarray(loud, np.float32), BLOCK_SAMPLES)[:total]
    found = np.concatenate(list(limited(iter(np.split(samples, np.cumsum(lengths)[:-1], 1)))), 1)
    assert found.shape == samples.shape
    assert np.abs(found).max() <= CEILING * (1 + 1e-6)
    blocks = [samples[:, start : start + BLOCK_SAMPLES] for start in range(0, total, BLOCK_SAMPLES)]
    is_loud = [bool(np.abs(block).max() > CEILING) for block in blocks]
    for number, block in enumerate(blocks):
        if not any(is_loud[max(0, number - 1) : number + 2]):
            assert np.array_equal(found[:, number * BLOCK_SAMPLES :][:, : block.shape[1]], block)


def test_source_without_sound_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingStream, match="leave background_audio out"):
        channels_of_source(make_clip(tmp_path / "silent.mp4"))


def test_mix_of_one_and_two_channels_is_stereo_and_cut_or_filled_to_the_length_asked_for(tmp_path: Path) -> None:
    stereo = np.stack([tone(1000, 1.0), 0 * tone(1000, 1.0)], 1)
    under = background(write_wav(tmp_path / "source.wav", stereo, MIX_RATE_HZ), 0.0, Fraction(1))
    speech = read_speech(write_wav(tmp_path / "speech.wav", tone(300, 1.0, rate_hz=16_000), 16_000)).info
    encoder = SpeechEncoder(speech, duration_s=Fraction(3, 2), background=under)
    assert (encoder.layout, encoder.rate_hz) == ("stereo", MIX_RATE_HZ)
    packets = list(encoder.until(None))
    assert abs(sum(packet.duration or 0 for packet in packets) - 1.5 * MIX_RATE_HZ) <= 2 * 1024
    from orchestrator.media.sound import _samples

    found = np.concatenate(list(mixed(_samples(speech, "stereo", MIX_RATE_HZ, Fraction(3, 2)), under, "stereo")), 1)
    assert found.shape == (2, 72_000)
    left, right = found[0, 4800:43_200], found[1, 4800:43_200]
    assert level_of(left, 300) == pytest.approx(0.3, rel=0.01) and level_of(right, 300) == pytest.approx(0.3, rel=0.01)
    assert level_of(left, 1000) == pytest.approx(0.3, rel=0.01) and level_of(right, 1000) < 0.001


def test_pieces_of_a_background_follow_each_other_without_a_click(tmp_path: Path) -> None:
    """A piece is given longer than it lasts, the next one shorter; the last one goes on where it ends."""
    path = write_wav(tmp_path / "source.wav", tone(1000, 1.0, rate_hz=MIX_RATE_HZ), MIX_RATE_HZ)
    pieces = [("0", "0.2", "0.2"), ("0.2", "0.1", "0.3"), ("0.3", "0.3", "0.1"), ("0.6", "0.1", "0.1"), ("0.7", "0.3", "0.3")]
    under = Background(path, 1, 0.0, tuple(SoundPiece(*(Fraction(time) for time in piece)) for piece in pieces), repeats=False)
    found = np.concatenate(list(mixed(silence(1.5), under, "mono")), 1)[0]
    own = tone(1000, 1.0)
    for place, start, length in ((0, 0, 0.29), (0.51, 0.31, 0.08), (0.61, 0.61, 0.38)):
        first, from_, count = (round(time * MIX_RATE_HZ) for time in (place, start, length))
        np.testing.assert_allclose(found[first : first + count], own[from_ : from_ + count], atol=1e-4)
    assert not found[round(0.31 * MIX_RATE_HZ) : round(0.49 * MIX_RATE_HZ)].any() and not found[round(1.01 * MIX_RATE_HZ) :].any()
    assert np.abs(np.diff(found[: round(0.99 * MIX_RATE_HZ)])).max() <= 2 * np.pi * 1000 / MIX_RATE_HZ * 0.3 * 1.1, (
        "no step larger than the tone's own"
    )
