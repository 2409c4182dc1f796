"""Speech out of text: espeak-ng, in the library that the PyPI package `espeakng-loader` carries."""

import ctypes
import wave
from dataclasses import dataclass
from pathlib import Path

TEXT = (
    "Hello. I am a photograph, and this is my voice. Every frame you see went through two neural network models on a Triton server, "
    "in batches. Now I am quiet for a moment. ... And now I speak again!"
)

# Names and values of espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS_IN_IPA = 3
_EVENT_LIST_TERMINATED = 0
_EVENT_PHONEME = 7
_PARAMETER_RATE = 1
_PARAMETER_PITCH = 3
_POSITION_IN_CHARACTERS = 1
_TEXT_IS_UTF8 = 1


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("phoneme", ctypes.c_char * 8),
    )


_COLLECT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Speech:
    """Spoken text."""

    rate_hz: int
    samples: bytes
    """Mono, 16 bits, native order."""
    phones: list[tuple[float, str]]
    """When each begins, s, and what it is in IPA; a pause is empty."""


def speak(text: str, voice: str = "en-us+f3", words_per_minute: int = 175, pitch: int = 50) -> Speech:
    """Speak `text` with one of espeak-ng's voices, `language+variant`; its pitch is 0 to 99.

    Raises:
        RuntimeError: espeak-ng does not start, or does not know the voice.
    """
    import espeakng_loader  # noqa: PLC0415 (an extra that only the demo and the tests install)

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate_hz = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), _PHONEME_EVENTS_IN_IPA)
    if rate_hz <= 0 or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise RuntimeError(f"espeak-ng did not start with the voice {voice}")
    pieces: list[bytes] = []
    phones: list[tuple[float, str]] = []

    def collect(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: "ctypes._Pointer[_Event]") -> int:
        if samples and count:
            pieces.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while (event := events[index]).type != _EVENT_LIST_TERMINATED:
            if event.type == _EVENT_PHONEME:
                phones.append((event.audio_position_ms / 1000, event.phoneme.decode(errors="ignore")))
            index += 1
        return 0

    callback = _COLLECT(collect)
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
    library.espeak_SetParameter(_PARAMETER_PITCH, pitch, 0)
    encoded = text.encode()
    library.espeak_Synth(ctypes.c_char_p(encoded), ctypes.c_size_t(len(encoded) + 1), 0, _POSITION_IN_CHARACTERS, 0, _TEXT_IS_UTF8, None, None)
    library.espeak_Terminate()
    return Speech(rate_hz, b"".join(pieces), phones)


def make_speech(path: Path) -> None:
    """Write `TEXT`, spoken, as a WAV file."""
    speech = speak(TEXT)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(speech.rate_hz)
        file.writeframes(speech.samples)
