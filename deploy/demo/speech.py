"""Speech for the demo: espeak-ng, the machine's own or the library that the PyPI package `espeakng-loader` carries."""

import ctypes
import shutil
import subprocess
import wave
from pathlib import Path

TEXT = (
    "Hello. I am a photograph, and this is my voice. Every frame you see went through two neural network models on a Triton server, "
    "in batches. Now I am quiet for a moment. ... And now I speak again!"
)

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_POSITION_IN_CHARACTERS = 1
_TEXT_IS_UTF8 = 1


def make_speech(path: Path) -> None:
    """Write `TEXT`, spoken, as a WAV file."""
    program = shutil.which("espeak-ng")
    if program:
        subprocess.run([program, "-v", "en-us+f3", "-s", "150", "-w", str(path), TEXT], check=True)
    else:
        _speak_with_library(path)


def _speak_with_library(path: Path) -> None:
    import espeakng_loader  # noqa: PLC0415 (an extra that only the demo installs)

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate_hz = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate_hz <= 0:
        raise RuntimeError("espeak-ng did not start; give a speech file: make demo SPEECH=speech.wav")
    pieces: list[bytes] = []

    def collect(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if samples and count:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(collect)
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetVoiceByName(b"en-us+f3")
    text = TEXT.encode()
    library.espeak_Synth(ctypes.c_char_p(text), ctypes.c_size_t(len(text) + 1), 0, _POSITION_IN_CHARACTERS, 0, _TEXT_IS_UTF8, None, None)
    library.espeak_Terminate()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(b"".join(pieces))
