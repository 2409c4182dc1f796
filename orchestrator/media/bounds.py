"""How large and how small a picture may be."""

from pathlib import Path

from orchestrator.errors import LimitExceeded

MAX_PIXELS = 8192 * 4352
"""Largest frame accepted: 8K with room for odd aspect ratios."""

MIN_SIDE_PX = 32
"""Smallest frame side accepted; nothing smaller can show a face."""


def check_size(path: Path, width: int, height: int) -> None:
    """Check the size of a file's pictures.

    Raises:
        LimitExceeded: they are too large or too small.
    """
    if width * height > MAX_PIXELS:
        raise LimitExceeded(f"{path.name} is {width}x{height}; scale it down to at most 8192x4352.")
    if min(width, height) < MIN_SIDE_PX:
        raise LimitExceeded(f"{path.name} is {width}x{height}; the shorter side must have at least {MIN_SIDE_PX} px.")
