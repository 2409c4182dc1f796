"""What an HDR source says about the light it was made for: its mastering display (SMPTE ST 2086) and its light level (CTA-861.3)."""

import struct
from dataclasses import dataclass
from fractions import Fraction

import av

from orchestrator.media.orientation import side_data

_DISPLAY = struct.Struct("=22i")
"""FFmpeg's AVMasteringDisplayMetadata: x and y of red, green, blue and white, least and greatest luminance, as fractions; then which are there."""

_LEVEL = struct.Struct("=2I")
"""FFmpeg's AVContentLightMetadata."""

_NAMES = {"libx264": ("mastering-display", "cll"), "libx265": ("master-display", "max-cll"), "libsvtav1": ("mastering-display", "content-light")}

CARRIERS = frozenset(_NAMES)
"""Encoders that write both into their stream."""


@dataclass(frozen=True, slots=True)
class MasteringDisplay:
    """The display that a source was graded on."""

    primaries: tuple[tuple[Fraction, Fraction], ...]
    """Red, green, blue and white, CIE 1931 x and y."""
    luminance: tuple[Fraction, Fraction]
    """Least and greatest, cd/m2."""


@dataclass(frozen=True, slots=True)
class Light:
    """Either may be missing."""

    display: MasteringDisplay | None
    level: tuple[int, int] | None
    """Greatest light of a pixel, and of a picture on average, cd/m2."""

    @staticmethod
    def of(picture: av.VideoFrame) -> "Light | None":
        """Return what a decoded picture says; None where it says nothing whole."""
        display: MasteringDisplay | None = None
        level: tuple[int, int] | None = None
        beside = side_data(picture) or {}
        if len(raw := beside.get("MASTERING_DISPLAY_METADATA", b"")) >= _DISPLAY.size:
            display = _display(_DISPLAY.unpack(raw[: _DISPLAY.size]))
        if len(raw := beside.get("CONTENT_LIGHT_LEVEL", b"")) >= _LEVEL.size:
            level = _LEVEL.unpack(raw[: _LEVEL.size])
        return None if display is None and level is None else Light(display, level)

    def parameters(self, encoder: str) -> tuple[str, ...]:
        """Return how one of `CARRIERS` is told, as parts of its own parameter list."""
        display_name, level_name = _NAMES[encoder]
        parts = []
        if self.display is not None:
            # The H.26x ones count 1/50000 and 1/10000 cd/m2, SVT-AV1 reads decimals.
            place = "{:.6f}".format if encoder == "libsvtav1" else lambda value: str(round(value * 50_000))
            light = "{:.6f}".format if encoder == "libsvtav1" else lambda value: str(round(value * 10_000))
            red, green, blue, white = (f"({place(float(x))},{place(float(y))})" for x, y in self.display.primaries)
            least, greatest = (light(float(value)) for value in self.display.luminance)
            parts.append(f"{display_name}=G{green}B{blue}R{red}WP{white}L({greatest},{least})")
        if self.level is not None:
            parts.append(f"{level_name}={self.level[0]},{self.level[1]}")
        return tuple(parts)


def _display(numbers: tuple[int, ...]) -> MasteringDisplay | None:
    """Return a display of FFmpeg's numbers; None where something is missing or senseless."""
    *fractions, has_primaries, has_luminance = numbers
    if not (has_primaries and has_luminance and all(fractions[1::2])):
        return None
    values = [Fraction(over, under) for over, under in zip(fractions[::2], fractions[1::2], strict=True)]
    places, (least, greatest) = values[:8], values[8:]
    if not all(0 <= place <= 1 for place in places) or not 0 <= least < greatest <= 10_000:
        return None
    return MasteringDisplay(tuple(zip(places[::2], places[1::2], strict=True)), (least, greatest))
