"""What an operator may say about a model file when the file itself does not tell."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PackOptions:
    """None takes what the file says, or the pack's usual value."""

    size_px: int | None = None
    """Side of the square input, for networks that take any."""
    colour: str | None = None
    """"rgb" or "bgr": the order of the network's channels."""
    weight: float | None = None
    """Strength of networks that have one: edtalk's mouth, CodeFormer's fidelity."""
