"""How a player turns and mirrors pictures before it shows them, and what else stands beside a decoded picture."""

import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import av
from av.sidedata.sidedata import SideData, SideDataContainer
from PIL import Image, UnidentifiedImageError

from preprocess.orientation import UPRIGHT, Orientation

_EXIF_ORIENTATION = 0x0112
"""Number of the tag (EXIF 2.32 table 4)."""

_ORIENTATIONS = {
    2: Orientation(0, True),
    3: Orientation(180),
    4: Orientation(180, True),
    5: Orientation(270, True),
    6: Orientation(270),
    7: Orientation(90, True),
    8: Orientation(90),
}
"""Its values but 1, which is upright."""


def side_data(picture: av.VideoFrame) -> dict[str, bytes] | None:
    """Return what stands beside a picture, by FFmpeg's names; None where PyAV has no name for one of them, and then shows none (EXIF, for one)."""
    try:
        # That of `picture.side_data` would lie in a cycle with the picture, which keeps it until Python looks for them; PyAV's stub has no argument.
        return {data.type.name: bytes(data) for data in cast(Iterable[SideData], SideDataContainer(picture))}  # type: ignore[call-arg]
    except ValueError:
        return None


def orientation_of(picture: av.VideoFrame, path: Path) -> Orientation:
    """Return how a file's pictures are shown, to the nearest quarter of a turn.

    Args:
        picture: the first of a file.
        path: the file.
    """
    beside = side_data(picture)
    if beside is None:
        return _of_photograph(path) or Orientation(_quarters(picture.rotation))
    if "DISPLAYMATRIX" not in beside:
        return UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", beside["DISPLAYMATRIX"])
    is_mirrored = a * d < b * c
    return Orientation(_quarters(-math.degrees(math.atan2(b, -a if is_mirrored else a))), is_mirrored)


def _quarters(turn_deg: float) -> int:
    return round(turn_deg / 90) * 90 % 360


def _of_photograph(path: Path) -> Orientation | None:
    """Read a photograph's own EXIF; None where it is none that Pillow knows."""
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP", "TIFF", "AVIF")) as photograph:
            return _ORIENTATIONS.get(photograph.getexif().get(_EXIF_ORIENTATION, 1), UPRIGHT)
    except (OSError, SyntaxError, ValueError, RuntimeError, UnidentifiedImageError, Image.DecompressionBombError):  # RuntimeError: libavif's
        return None
