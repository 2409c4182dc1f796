"""Speakers whose sounds are known when they speak: espeak-ng in many languages; flite's and Festival's voices, which were made from recordings."""

import random
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from deploy.demo.speech import speak
from orchestrator.models.mouth_motion import FRAME_COLUMN, LOUD_LEVEL_DBFS
from preprocess.mel import COLUMNS_PER_S, SAMPLE_RATE_HZ, WINDOW_COLUMNS, MelStream, levels_db, loud_gain_db, with_level
from tests.motion.lips import Phone

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something said, 16 kHz, -1..1."""

    speaker: str
    waveform: Floats
    phones: list[Phone]


def espeak(text: str, voice: str, words_per_minute: int = 175, pitch: int = 50) -> Utterance:
    """Let espeak-ng say `text` with a voice, see `deploy.demo.speech.speak`."""
    speech = speak(text, voice, words_per_minute, pitch)
    waveform = at_16_khz(np.frombuffer(speech.samples, np.int16) / 32768, speech.rate_hz)
    starts = [0.0, *(start for start, _ in speech.phones), len(waveform) / SAMPLE_RATE_HZ]
    sounds = ["", *(ipa for _, ipa in speech.phones)]
    return Utterance(f"espeak {voice}", waveform, _phones(starts, sounds))


def flite(text: str, voice: str, stretch: float = 1.0) -> Utterance:
    """Let flite say `text`, `stretch` times as long as usual."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-psdur", "-t", text, "-o", str(path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        waveform, rate_hz = soundfile.read(path)
    phones = [phone.split(":") for phone in said]
    return Utterance(
        f"flite {voice}", at_16_khz(waveform, rate_hz), _phones([0.0, *(float(end) for _, end in phones)], [_ARPABET[p] for p, _ in phones])
    )


def festival(text: str, voice: "FestivalVoice", stretch: float = 1.0) -> Utterance:
    """Let a voice of Festival say `text`, `stretch` times as long as usual where its sounds have lengths of their own."""
    with tempfile.TemporaryDirectory() as folder:
        script, segments, speech = (Path(folder) / name for name in ("say.scm", "segments", "speech.wav"))
        script.write_bytes(
            f'''(voice_{voice.name}) (Parameter.set 'Duration_Stretch {stretch}) (set! said (utt.synth (Utterance Text "{text}")))
            (utt.save.segs said "{segments}") (utt.save.wave said "{speech}" 'riff)'''.encode(voice.encoding)
        )
        subprocess.run(["festival", "--batch", str(script)], check=True, capture_output=True)
        lines = [line.split() for line in segments.read_text().splitlines()[1:]]
        waveform, rate_hz = soundfile.read(speech)
    names = [name.rstrip(":1") for _, _, name in lines]  # without length and stress
    sounds = [voice.ipa.get(name, name) for name in names]
    return Utterance(f"festival {voice.name}", at_16_khz(waveform, rate_hz), _phones([0.0, *(float(end) for end, _, _ in lines)], sounds))


def _phones(times_s: list[float], sounds: list[str]) -> list[Phone]:
    return [Phone(start, end, ipa) for start, end, ipa in zip(times_s, times_s[1:], sounds, strict=False) if end > start]


def at_16_khz(waveform: NDArray[np.float64], rate_hz: int) -> Floats:
    """Return a waveform (n,) at the sample rate of the features."""
    common = gcd(rate_hz, SAMPLE_RATE_HZ)
    return np.asarray(resample_poly(waveform, SAMPLE_RATE_HZ // common, rate_hz // common), np.float32)


_ARPABET = {
    **{"aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "eh": "ɛ", "er": "ɚ", "ey": "eɪ", "ih": "ɪ"},
    **{"iy": "i", "ow": "oʊ", "oy": "ɔɪ", "uh": "ʊ", "uw": "u", "b": "b", "ch": "tʃ", "d": "d", "dh": "ð", "dx": "ɾ", "f": "f", "g": "g"},
    **{"hh": "h", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n", "ng": "ŋ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t", "th": "θ"},
    **{"v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ", "pau": ""},
}
"""IPA of the names that flite prints, and Festival for its American voices."""

_ROMANCE = {"E": "ɛ", "O": "ɔ", "ax": "ə", "S": "ʃ", "Z": "ʒ", "tS": "tʃ", "dZ": "dʒ", "J": "ɲ", "L": "ʎ", "ng": "ŋ", "nf": "m", "#": "", "pau": ""}
_CZECH = {
    **{"c": "ts", "c~": "tʃ", "ch": "x", "d~": "ɟ", "dz~": "dʒ", "h": "ɦ", "n*": "ŋ", "n~": "ɲ", "r~": "ʒ", "r~*": "ʃ", "s~": "ʃ", "t~": "c"},
    **{"z~": "ʒ", "#": "", "_": ""},
}
_FINNISH = {"a": "ɑ", "@": "æ", "7": "ø", "S": "ʃ", "N": "ŋ", "v": "ʋ", "#": "", "##": ""}
_RUSSIAN = {
    **{"aa": "a", "a": "ɐ", "ae": "ə", "ay": "ə", "ee": "ɛ", "e": "ɪ", "ii": "i", "i": "ɪ", "oo": "o", "uu": "u", "u": "ʊ", "ur": "ʊ", "yy": "ɨ"},
    **{"y": "ɨ", "c": "ts", "ch": "tɕ", "sh": "ʂ", "sch": "ɕ", "zh": "ʐ", "h": "x", "hh": "x", "pau": ""},
    **{soft * 2: soft for soft in "pbtdkgfvszmnlr"},
}
_HINDI = {
    **{"a": "ə", "aa": "ɑ", "ih": "ɪ", "iy": "i", "uh": "ʊ", "uw": "u", "eh": "e", "ee": "e", "ay": "ɛ", "oh": "o", "oo": "o", "aw": "ɔ", "y": "j"},
    **{"T": "ʈ", "tth": "ʈ", "D": "ɖ", "ddh": "ɖ", "N": "ɳ", "th": "t", "td": "t", "dh": "d", "kh": "k", "gh": "g", "ch": "tʃ", "j": "dʒ", "sh": "ʃ"},
    **{"bh": "b", "v": "ʋ", "L": "ɭ", "R": "ɾ", "zh": "ʒ", "ksh": "kʃ", "sri": "ʃɾi", "@": "ə", "pau": ""},
}


@dataclass(frozen=True, slots=True)
class FestivalVoice:
    """A voice of Festival, and how it names sounds."""

    name: str
    locale: str
    """Faker's, whose words it says; where Faker has none of its language, those of another one in the same letters."""
    ipa: dict[str, str]
    encoding: str = "utf-8"


_FESTIVAL_VOICES = (
    FestivalVoice("cmu_us_slt_arctic_hts", "en_US", _ARPABET),
    FestivalVoice("ked_diphone", "en_US", _ARPABET),
    FestivalVoice("upc_ca_ona_hts", "es_ES", _ROMANCE, "latin-1"),
    FestivalVoice("lp_diphone", "it_IT", _ROMANCE, "latin-1"),
    FestivalVoice("pc_diphone", "it_IT", _ROMANCE, "latin-1"),
    *(FestivalVoice(f"czech_{name}", "cs_CZ", _CZECH, "iso8859-2") for name in ("dita", "krb", "machac", "ph")),
    FestivalVoice("hy_fi_mv_diphone", "la", _FINNISH, "latin-1"),
    FestivalVoice("suo_fi_lj_diphone", "la", _FINNISH, "latin-1"),
    FestivalVoice("msu_ru_nsh_clunits", "ru_RU", _RUSSIAN),
    FestivalVoice("hindi_NSK_diphone", "", _HINDI),
)


def features(waveform: Floats) -> Floats:
    """Return what a render makes of speech, 16 kHz: (80, T) mel features at the level that mouth-warp asks for."""
    stream = MelStream()
    mel = np.concatenate([*stream.push(waveform), stream.finish()], axis=1)  # levelled before it is clipped, as in a render
    return with_level(mel, loud_gain_db(levels_db(mel), LOUD_LEVEL_DBFS))


def frame_times(columns: int) -> NDArray[np.float64]:
    """Return the time, s, at which lips are asked for by the window around each column."""
    return (np.arange(columns) + FRAME_COLUMN - WINDOW_COLUMNS // 2) / COLUMNS_PER_S


_FLITE_VOICES = ("awb", "kal16", "rms", "slt")

_ESPEAK_LANGUAGES = {
    **{"en-us": "en_US", "en": "en_US", "de": "de_DE", "fr": "fr_FR", "es": "es_ES", "it": "it_IT", "pt-br": "pt_BR", "nl": "nl_NL", "da": "da_DK"},
    **{"cs": "cs_CZ", "pl": "pl_PL", "ru": "ru_RU", "mk": "mk_MK", "el": "el_GR", "ar": "ar_AA", "cmn": "zh_CN", "ja": "ja_JP", "vi": "vi_VN"},
    **{"la": "la", "fi": "la", "hu": "la", "sv": "la", "tr": "la"},
}
"""Languages of espeak-ng, and Faker's locale whose words are said in each; those without one say Latin."""

_VARIANTS = (
    *("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5", "+croak", "+whisper", "+Andrea", "+Annie", "+Alex"),
    *("+David", "+Gene", "+Michael", "+Steph", "+klatt", "+klatt2", "+klatt4"),
)


def conversation(seed: int) -> Iterator[Utterance]:
    """Let one speaker after the other say a sentence, each another one by `seed`: every voice of flite, every language of espeak-ng."""
    from faker import Faker

    choose = random.Random(seed)
    Faker.seed(seed)
    for voice in _FLITE_VOICES:
        yield flite(Faker("en_US").sentence(9), voice, choose.uniform(0.8, 1.25))
    for speaker in _FESTIVAL_VOICES:
        sentence = Faker(speaker.locale).sentence(8) if speaker.locale else _devanagari(choose)
        yield festival(sentence, speaker, choose.uniform(0.8, 1.25))
    for language, locale in _ESPEAK_LANGUAGES.items():
        yield espeak(Faker(locale).sentence(8), language + choose.choice(_VARIANTS), choose.randint(110, 230), choose.randint(20, 80))


def _devanagari(choose: random.Random) -> str:
    """Return eight words of random syllables."""
    consonants, vowels = "कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह", ["", *"ािीुूेैोौ"]
    return " ".join("".join(choose.choice(consonants) + choose.choice(vowels) for _ in range(choose.randint(1, 4))) for _ in range(8))
