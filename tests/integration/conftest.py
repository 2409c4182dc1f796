"""What whole renders need: the embedded Triton on the project's own models, a clip of a real face, and something that sounds like speech."""

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.demo.clip import make_clip
from deploy.local.server import LocalTriton
from orchestrator.inference.client import TritonClient
from orchestrator.session import start_embedded
from orchestrator.settings import Settings

SPEECH_RATE_HZ = 16_000


@pytest.fixture(scope="session")
def triton() -> Iterator[LocalTriton]:
    with start_embedded(Settings(device="cpu")) as server:
        yield server


@pytest.fixture(scope="session")
def client(triton: LocalTriton) -> Iterator[TritonClient]:
    with TritonClient(triton.grpc_address) as connection:
        yield connection


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of a real face, 25 frames, 640 x 640."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    make_clip(path, duration_s=1)
    return path


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.5 s: syllables for a second, silence for 0.7 s, syllables again."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    write_wav(path, speech_like(2.5, silent_s=(1.0, 1.7)))
    return path


def speech_like(duration_s: float, silent_s: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """Return a buzz with vowel-like resonances, four syllables a second, -1..1."""
    time = np.arange(int(duration_s * SPEECH_RATE_HZ)) / SPEECH_RATE_HZ
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / (1 + ((120 * k - 700) / 500) ** 2) for k in range(1, 40))
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 4 * time)
    loud = ~((time >= silent_s[0]) & (time < silent_s[1]))
    samples = np.asarray(buzz * syllables * loud)
    return np.asarray(0.5 * samples / np.abs(samples).max(), np.float32)


def write_wav(path: Path, samples: NDArray[np.float32]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SPEECH_RATE_HZ)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
