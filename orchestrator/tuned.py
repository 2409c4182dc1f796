"""What `lipsync tune` chose for this host, as the data folder keeps it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from orchestrator.cores import available_cores
from orchestrator.settings import DecoderChoice, Settings

TUNED_FILE = "tuned.json"


class Tuned(BaseModel):
    """The part of the record that others go by; what was measured stands beside it."""

    cores: int
    device: Literal["gpu", "tensorrt", "cpu"] | None
    """Of the embedded Triton's models; None where Triton runs by itself."""
    encoder_threads: int = Field(ge=1)
    decoder: DecoderChoice = "software"
    concurrent_renders: int = Field(ge=1)


def read_tuned(data: Path) -> Tuned | None:
    """Return what was chosen on a machine with as many cores; None if nothing was."""
    try:
        tuned = Tuned.model_validate_json((data / TUNED_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return tuned if tuned.cores == available_cores() else None


def encoder_threads(settings: Settings) -> int:
    """Return how many threads the encoder of a render gets, as `Encoding.thread_count`: what was set, else what was measured, else 0."""
    if settings.encoder_threads is not None:
        return settings.encoder_threads
    tuned = read_tuned(settings.data)
    return 0 if tuned is None else tuned.encoder_threads
