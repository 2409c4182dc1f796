"""Options that several commands share, and the settings they change."""

from typing import Annotated, Any

import typer

from orchestrator.settings import Device, Settings

TritonOption = Annotated[
    str | None, typer.Option("--triton", metavar="HOST:PORT", help="gRPC address of a Triton that runs; default: the embedded one.")
]
DeviceOption = Annotated[
    Device | None,
    typer.Option("--device", help="Where models have to run; `auto` takes the CPU only where nothing shows an NVIDIA GPU. Never falls back."),
]


def read_settings(triton: str | None = None, device: Device | None = None) -> Settings:
    """Return the settings of the environment, with what the command line says in their place."""
    given: dict[str, Any] = {name: value for name, value in (("triton", triton), ("device", device)) if value}
    return Settings(**given)
