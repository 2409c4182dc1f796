"""Settings: the only reader of the environment. Every variable starts with LIPSYNC_."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_ROOT = Path(__file__).resolve().parents[1]

Device = Literal["auto", "cpu", "gpu", "tensorrt"]


class Settings(BaseSettings):
    """How this host renders. Command-line options come before the environment."""

    model_config = SettingsConfigDict(env_prefix="LIPSYNC_", extra="ignore")

    triton: str | None = Field(None, description="gRPC address HOST:PORT of a Triton that already runs; unset starts the embedded one")
    triton_home: Path = Field(_ROOT / ".triton", description="folder of the embedded Triton")
    model_repository: Path = Field(_ROOT / "model_repository", description="folder of the models the embedded Triton serves")
    triton_metrics: str | None = Field(None, description="metrics address HOST:PORT of that Triton; unset means port 8002 of the same host")
    device: Device = Field(
        "auto", description="where models run: auto, cpu, gpu or tensorrt; auto takes the CPU only where nothing shows an NVIDIA GPU"
    )
    request_deadline_s: float = Field(120.0, gt=0, le=3600, description="deadline of one request to Triton, queueing included, s")
    max_upload_bytes: int = Field(4 << 30, ge=1 << 20, description="largest request body the service accepts, bytes")
    max_concurrent_renders: int = Field(2, ge=1, le=64, description="renders the service runs at a time; further ones wait")


def settings_table() -> str:
    """Return the settings as the Markdown table that stands in the README."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default.relative_to(_ROOT) if isinstance(field.default, Path) else field.default
        rows.append(f"| `LIPSYNC_{name.upper()}` | {'' if default is None else f'`{default}`'} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(settings_table())
