"""What mouth-warp hears in speech whose sounds are known: espeak-ng's, and a recording's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import soundfile

from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.mouth_motion import mouth_motion
from preprocess.mel import MAX_ABS, WINDOW_COLUMNS
from tests.motion.lips import Phone, correlation, lip_motion
from tests.motion.speakers import Floats, Utterance, at_16_khz, espeak, features, frame_times

Motion = tuple[Floats, Floats]
Hear = Callable[[Floats], Motion]

RECORDING = Path(__file__).resolve().parents[4] / "shared" / "media" / "speech_jfk_en.flac"

# When each sound ends in the recording, s; a forced alignment.
RECORDED = """
    _ 0.29 æ 0.46 n 0.53 d 0.63 s 0.68 oʊ 0.97 m 1.05 aɪ 1.24 f 1.36 ɛ 1.44 l 1.52 oʊ 1.63 ʌ 1.68 m 1.76 ɛ 1.84 ɹ 1.91 ʌ 1.98 k 2.07 ʌ 2.10
    n 2.13 z 2.16 _ 3.25 æ 3.63 s 3.69 k 3.99 n 4.04 ɑ 4.27 t 4.30 _ 5.37 w 5.48 ʌ 5.54 t 5.61 j 5.69 ɔ 5.79 ɹ 5.86 k 5.99 ʌ 6.06 n 6.11
    t 6.19 ɹ 6.27 i 6.42 k 6.50 æ 6.58 n 6.66 d 6.70 u 6.91 f 7.00 ɚ 7.05 j 7.19 u 7.67 _ 8.15 æ 8.46 s 8.50 k 8.53 h 8.63 w 8.68 ʌ 8.74
    t 8.82 j 8.93 u 9.20 k 9.24 æ 9.30 n 9.37 d 9.44 u 9.63 f 9.71 ɹ 9.74 ɚ 9.78 j 9.87 ɔ 9.96 ɹ 9.99 k 10.10 ʌ 10.15 n 10.21 t 10.27
    ɹ 10.36 i 10.46 _ 11.0
"""


@pytest.fixture(scope="module")
def hear() -> Hear:
    """Return what makes of (80, T) features the opening and the spread that mouth-warp draws, (T,) each."""
    graph = Graph("motion")
    motion = mouth_motion(graph.input("audio", FLOAT, ["N", 1, 80, WINDOW_COLUMNS]))
    for value, name in ((motion.opening, "opening"), (motion.spread, "spread")):
        graph.output(value * 1.0, name, FLOAT, ["N", 1, 1])
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])

    def run(mel: Floats) -> Motion:
        padded = np.pad(mel, ((0, 0), (WINDOW_COLUMNS // 2, WINDOW_COLUMNS // 2 - 1)), constant_values=-MAX_ABS)
        windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_COLUMNS, axis=1).transpose(1, 0, 2)
        opening, spread = session.run(["opening", "spread"], {"audio": np.ascontiguousarray(windows[:, None])})
        return opening.ravel(), spread.ravel()

    return run


def recording() -> Utterance:
    stereo, rate_hz = soundfile.read(RECORDING)
    waveform = at_16_khz(stereo.mean(1), rate_hz)
    words = RECORDED.split()
    ends = [float(end) for end in words[1::2]]
    phones = [Phone(start, end, ipa.strip("_")) for start, end, ipa in zip([0.0, *ends], ends, words[::2], strict=False)]
    return Utterance("a recording", waveform, phones)


@pytest.mark.parametrize(
    ("said", "least_opening", "least_spread"),
    [
        pytest.param(lambda: espeak("Many people move from a small farm to a big town by the sea", "en-us+m3"), 0.7, 0.7, id="English"),
        pytest.param(lambda: espeak("Der Baum vor unserem Haus ist über hundert Jahre alt", "de+f2"), 0.7, 0.7, id="German"),
        pytest.param(lambda: espeak("我们明天去北京看朋友", "cmn+f4"), 0.6, 0.7, id="Chinese"),
        pytest.param(
            recording, 0.65, 0.7, id="recording", marks=pytest.mark.skipif(not RECORDING.exists(), reason="there is no ../shared with the recording")
        ),
    ],
)
def test_lips_open_and_spread_as_the_sounds_ask(hear: Hear, said: Callable[[], Utterance], least_opening: float, least_spread: float) -> None:
    spoken = said()
    mel = features(spoken.waveform)
    opening, spread = hear(mel)
    asked = lip_motion(spoken.phones, frame_times(mel.shape[1]))
    apart = asked.known & (asked.opening > 0.1)
    assert correlation(opening[asked.known], asked.opening[asked.known]) > least_opening
    assert correlation(spread[apart], asked.spread[apart]) > least_spread


@pytest.mark.parametrize("voice", ["en-us+m1", "en-us+f3", "es+m5"])
def test_lips_meet_for_m_b_and_p_and_open_wide_for_ah(hear: Hear, voice: str) -> None:
    said = espeak("mama baba papa", voice, words_per_minute=120)
    mel = features(said.waveform)
    opening, _ = hear(mel)
    times = frame_times(mel.shape[1])
    for start, end, ipa in said.phones:
        if start > 0 and ipa in {"m", "b", "p"}:
            assert opening[(times >= start) & (times < end)].min() < 0.12, (ipa, start)
    stressed = [(start, end) for start, end, ipa in said.phones if ipa[:2] in {"ˈa", "ˈɑ"}]
    assert len(stressed) == 3
    assert all(opening[(times >= start) & (times < end)].max() > 0.5 for start, end in stressed)


def test_lips_are_round_for_oo_and_spread_for_ee(hear: Hear) -> None:
    _, round_lips = hear(features(espeak("doo doo doo", "en-us+f2").waveform))
    _, spread_lips = hear(features(espeak("dee dee dee", "en-us+f2").waveform))
    assert np.percentile(round_lips, 10) < -0.5
    assert np.percentile(spread_lips, 90) > 0.5


def test_lips_are_at_rest_in_silence(hear: Hear) -> None:
    opening, spread = hear(np.full((80, 40), -MAX_ABS, np.float32))
    assert not opening.any() and not spread.any()
