"""mouth-warp: a generated ONNX graph that moves the mouth of an aligned face crop with the speech in a mel window.

How the mouth is drawn is written here, not learned; one network inside finds the lips, another hears what they do. The graph finds the lip lines of
the crop (`lip_lines`), hears opening and spread in the features (`mouth_motion`), and draws each output pixel from where the moved skin came from.
Between the lips it keeps what the source shows below its upper lip (teeth of a smile) and paints the rest. Everything is measured in units:
1/256 of the crop's side.
"""

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from orchestrator.models.graph import FLOAT, UINT8, Graph, Value
from orchestrator.models.lip_lines import LipLines, Roi, find_lip_lines, skin_colour
from orchestrator.models.mouth_motion import MouthMotion, mouth_motion
from orchestrator.models.tflite import TfliteNetwork

CROP_TEMPLATE = "lower_face"
"""Crop the graph expects, a name of `preprocess.align.CROP_TEMPLATES`."""

AUDIO_FRONTEND = "wav2lip_mel"
"""Features the graph expects: 80 Wav2Lip mel bands, 16 columns, levelled as `mouth_motion.LOUD_LEVEL_DBFS` says."""

PASTE_REGION = (0.21875, 0.390625, 0.78125, 0.90625)
"""x1, y1, x2, y2 in 0..1 of the crop: pixels outside are always bit-identical to the input."""

FULL_OPENING = 19.5
"""Distance of the inner lips in loud speech, units: about 0.17 of the distance of the outer eye corners."""

_LENS_TAPER = 1.03
"""Square of how much narrower the opening is than the mouth: the lips stay together in the corners."""

_LENS_ROUNDNESS = 0.62
"""Exponent of the opening's profile: 1 is a parabola, 0.5 an ellipse."""

_BEHIND_TEETH_SHARE = 0.18
"""How much further a mouth opens that shows teeth: they hang with the upper lip and hide part of the depth."""

_UPPER_LIP_SHARE = 0.14
"""Part of the opening that lifts the upper lip; the jaw does the rest."""

_JAW_SHARE = 0.85
"""How far chin and jaw sink, relative to the lower lip."""

_JAW_RISE_SHARE = 0.5
"""How far they rise where an open mouth closes: what lies below comes up with them, and a collar that does is seen sooner than a longer chin."""

_CORNER_DROP = 0.16
"""How far the corners sink, relative to the opening."""

_SPREAD_SHARE = 0.08
"""How much wider the mouth gets when fully spread, relative to its width."""

_ROUNDING_SHARE = 0.2
"""How much narrower it gets when fully rounded, relative to its width."""

_NARROWING_SHARE = 0.06
"""How much narrower the mouth gets when fully open, relative to its width."""

_EDGE = 1.5
"""Width of the soft edge between lips and cavity, units."""

_SEAM_HEIGHT = 1.6
"""Thickness of the dark seam of a closed mouth, units: it becomes depth, not lip, when the mouth opens."""

_FRINGE = (0.4, 4.0)
"""How far above the lower lip's line, as a share of the source's gap and in units at most, its fringe may reach: the landmarks lie too low on small
round mouths, and lip that hangs below the teeth looks like a second mouth. Measured: up to 2.5 units, and `_LIP_MARGIN` on top."""

_TOOTH_EDGES = (-25.0, -18.0, -9.5, 0.0, 9.5, 18.0, 25.0)
"""Where painted teeth meet, units from the mouth's middle: incisors 8.5 and 6.5 mm wide in a mouth of 55 mm."""

_MOUTH_BOX = (78.0, 108.0, 179.0, 178.0)
"""First column and row, last column and row of the part where lips meet, units."""

_CAVITY = (0.06, 0.3, 0.35)
"""Colour of the mouth's depth from the skin's: luma, chroma, redness as in `_tint`."""

_TONGUE = (0.36, 0.6, 0.9)
"""Colour of the tongue from the skin's."""

_ENAMEL = (0.98, 0.55, 0.0)
"""Colour of teeth from the skin's."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """The mouth to draw, at the output's columns [N,1,1,w] unless said otherwise."""

    u: Value
    """Mouth coordinate of the column, -1 and 1 at the corners, clipped."""
    source_upper: Value
    """Row of the source's upper inner lip."""
    source_gap: Value
    tooth: Value
    """0 between two teeth, 1 on a tooth."""
    upper: Value
    """Row of the moved upper inner lip."""
    gap: Value
    lateral: Value
    """1 at the mouth, 0 towards the cheeks."""
    jaw_drop: Value
    shift_x: Value
    """How far the column comes from its source column at the mouth's height."""
    centre_y: Value
    """[N,1,1,1]: the row of the mouth."""
    source_peak: Value
    """[N,1,1,1]: gap of the source in the middle."""
    peak: Value
    """[N,1,1,1]: gap to draw in the middle."""

    def at(self, roi: Roi, part: Roi) -> "_Shape":
        """Return the columns of `part`, a part of the region `roi` this shape is for."""
        columns = {
            name: getattr(self, name).slice(3, part.left - roi.left, part.right - roi.left)
            for name in ("u", "source_upper", "source_gap", "tooth", "upper", "gap", "lateral", "jaw_drop", "shift_x")
        }
        return replace(self, **columns)


def build_mouth_warp(network: TfliteNetwork, size_px: int) -> onnx.ModelProto:
    """Return the mouth-warp model for crops of `size_px`, 128 or more: in a smaller crop a seam is thinner than a pixel.

    Inputs: `face` UINT8 [N,S,S,3] RGB, a crop aligned to `CROP_TEMPLATE`; `audio` FP32 [N,1,80,16] (`AUDIO_FRONTEND`). Output: `mouth`
    UINT8 [N,S,S,3] RGB. Pixels outside `PASTE_REGION` are bit-identical to `face`; so is the whole crop when a closed mouth stays closed.

    Raises:
        ValueError: the size is below 128.
    """
    if size_px < 128:
        raise ValueError(f"expected a crop size of at least 128 px, got {size_px}")
    graph = Graph("mouth_warp")
    face = graph.input("face", UINT8, ["N", size_px, size_px, 3])
    audio = graph.input("audio", FLOAT, ["N", 1, 80, 16])
    left, top, right, bottom = (round(edge * size_px) for edge in PASTE_REGION)
    roi = Roi(size_px, left, top, right, bottom)
    # Bytes become numbers at once and bytes again at the very end: TensorRT takes bytes nowhere else.
    pixels = face.cast(FLOAT)
    image = pixels.cut((1, 2), (top, left), (bottom, right)).transpose(0, 3, 1, 2)

    skin = skin_colour(image, roi)
    lines = find_lip_lines(pixels.transpose(0, 3, 1, 2), size_px, network)
    shape = _mouth_shape(lines, mouth_motion(audio), roi)
    drawn, moved = _draw(image, roi, shape, skin)

    rounded = graph.op("Round", drawn.clip(0.0, 255.0))
    # Whole numbers, so adding the change is exact, and where it is 0 the byte stays as it was.
    change = graph.op("Where", moved, rounded - image, 0.0).transpose(0, 2, 3, 1)
    mouth = pixels + graph.op("Pad", change, graph.integers([0, top, left, 0, 0, size_px - bottom, size_px - right, 0]))
    graph.output(mouth.cast(UINT8), "mouth", UINT8, ["N", size_px, size_px, 3])
    return graph.model()


def _mouth_shape(lines: LipLines, motion: MouthMotion, roi: Roi) -> _Shape:
    columns = roi.columns[None, None, :]
    to_border = np.clip(np.minimum(columns - columns.min(), columns.max() - columns) / 20, 0, 1)
    reach = (columns - lines.centre_x) / lines.half_width
    widening = motion.spread.clip(0.0, 1.0) * _SPREAD_SHARE + motion.spread.clip(-1.0, 0.0) * _ROUNDING_SHARE - motion.opening * _NARROWING_SHARE
    falloff = (1.0 + _square(reach * reach) * 0.16) * (1.0 / np.maximum(to_border, 1e-3))
    shift_x = widening * lines.half_width * reach / falloff
    x = columns - shift_x
    u = ((x - lines.centre_x) / lines.half_width).clip(-1.0, 1.0)
    peak = motion.opening * lines.certainty * FULL_OPENING
    seam_height = peak.smoothstep(0.0, 4.0) * _SEAM_HEIGHT * (1.0 - u * u)
    middle, own_gap = lines.rows_at(u, roi)
    source_gap = u.graph.op("Max", own_gap, seam_height)
    source_upper = middle - source_gap * 0.5
    source_peak = own_gap.max([2])
    peak = peak * (1.0 + source_peak.smoothstep(2.0, 8.0) * _BEHIND_TEETH_SHARE)
    opened = peak - source_peak
    # A source mouth that is open but rounder than the lens stays so.
    profile = _lens(u)
    own = profile.graph.op("Min", profile, own_gap / (source_peak + 0.5))
    profile = profile + source_peak.smoothstep(3.0, 7.0) * (own - profile)
    gap = profile * peak
    upper = source_upper - profile * opened * _UPPER_LIP_SHARE + u * u * opened * _CORNER_DROP
    edges = (x - lines.centre_x - np.reshape(_TOOTH_EDGES, (1, -1, 1))) * (1 / 1.1)
    tooth = 1.0 - u.graph.op("Exp", -_square(edges)).max([1])
    away = u.graph.op("Abs", (x - lines.centre_x) / lines.half_width)
    lateral = away.smoothstep(2.0, 1.0) * to_border
    jaw = away.smoothstep(2.2, 0.7) * _smooth(to_border)
    jaw_opened = u.graph.op("Relu", opened) * _JAW_SHARE - u.graph.op("Relu", -opened) * _JAW_RISE_SHARE
    return _Shape(
        u=u.reshape(0, 1, 1, -1),
        source_upper=source_upper.reshape(0, 1, 1, -1),
        source_gap=source_gap.reshape(0, 1, 1, -1),
        tooth=tooth.reshape(0, 1, 1, -1),
        upper=upper.reshape(0, 1, 1, -1),
        gap=gap.reshape(0, 1, 1, -1),
        lateral=lateral.reshape(0, 1, 1, -1),
        jaw_drop=(jaw * jaw_opened).reshape(0, 1, 1, -1),
        shift_x=shift_x.reshape(0, 1, 1, -1),
        centre_y=lines.centre_y.reshape(0, 1, 1, 1),
        source_peak=source_peak.reshape(0, 1, 1, 1),
        peak=peak.reshape(0, 1, 1, 1),
    )


def _draw(image: Value, roi: Roi, shape: _Shape, skin: Value) -> tuple[Value, Value]:
    """Return the drawn region [N,3,h,w], 0..255, and where it differs from the source [N,1,h,w] bool."""
    graph = image.graph
    y = roi.rows[None, None, :, None]
    columns = roi.columns[None, None, None, :]
    lower = shape.upper + shape.gap
    above = graph.op("Relu", shape.upper - y)
    below = graph.op("Relu", y - lower)
    # Displacements (output row minus source row): constant across each lip, then fading to nose and jaw.
    upper_drop = (shape.upper - shape.source_upper) * shape.lateral
    lower_drop = (lower - shape.source_upper - shape.source_gap) * shape.lateral
    chin_fade = np.clip((228 - y) / 40, 0, 1)
    to_jaw = below.smoothstep(9.0, 36.0)
    upper_move = upper_drop * above.smoothstep(28.0, 9.0)
    lower_move = lower_drop + to_jaw * (shape.jaw_drop * _smooth(chin_fade) - lower_drop)
    move_y = upper_move + (y - lower).ramp(-2.5, -2.0) * (lower_move - upper_move)
    near = (y - shape.centre_y) * (1 / 22)
    move_x = shape.shift_x / (1.0 + _square(near * near)) * np.clip((y - y.min()) / 10, 0, 1) * np.clip((y.max() - y) / 10, 0, 1)
    x_from, y_from = columns - move_x, y - move_y
    warped = roi.sample(image, x_from.reshape(0, y.size, columns.size), y_from.reshape(0, y.size, columns.size))

    box = roi.part(*_MOUTH_BOX)
    upper_layer = roi.sample(image, *(roi.cut(v, box).reshape(0, len(box.rows), -1) for v in (x_from, y - upper_move)))
    inner, cover = _mouth(box, shape.at(roi, box), upper_layer, roi.cut(warped, box), skin)
    margins = [0, 0, box.top - roi.top, box.left - roi.left, 0, 0, roi.bottom - box.bottom, roi.right - box.right]
    drawn = warped + graph.op("Pad", inner, graph.integers(margins))
    change = graph.op("Abs", move_y) + graph.op("Abs", move_x) + graph.op("Pad", cover, graph.integers(margins))
    return drawn, graph.op("Greater", change, 0.002)


def _mouth(box: Roi, shape: _Shape, upper_layer: Value, lower_layer: Value, skin: Value) -> tuple[Value, Value]:
    """Return what to add to the lower layer to draw the mouth [N,3,h,w], and a value [N,1,h,w] that is 0 where nothing is painted.

    From back to front: the painted depth, the upper lip with what the source shows below it, the lower lip. Both layers are [N,3,h,w].
    """
    y = box.rows[None, None, :, None]
    depth = y - shape.upper
    to_lower = depth - shape.gap
    inside = depth.smoothstep(-0.4 * _EDGE, 0.8 * _EDGE) * shape.gap.smoothstep(0.0, 1.5)
    # What the source shows between its lips hangs from the upper lip: keep it, shaded while the slit is narrow.
    shade = 1.0 - inside * (0.6 - shape.gap.smoothstep(0.0, 6.0) * 0.6)
    # A mouth that opens no further than the source's stays as it is, lower teeth on the lip included.
    fringe = depth.graph.op("Min", shape.source_gap * _FRINGE[0], _FRINGE[1], depth.graph.op("Relu", shape.gap - shape.source_gap))
    cover = inside * (depth - (shape.source_gap - fringe)).smoothstep(-1.5, 0.5)
    slit = (depth.graph.op("Abs", depth - shape.gap * 0.5) - shape.gap * 0.5).smoothstep(1.6, 0.0)
    slit = slit * shape.gap.smoothstep(3.0, 0.0) * (1.0 - shape.u * shape.u) * shape.source_peak.smoothstep(0.0, 3.0) * 0.7

    painted = _depth_colour(shape, depth, skin)
    hanging = upper_layer * shade
    hanging = hanging + cover * (painted - hanging)
    drawn = hanging + to_lower.smoothstep(-0.6 * _EDGE, 0.4 * _EDGE) * (lower_layer - hanging)
    drawn = drawn + slit * (painted - drawn)
    return drawn - lower_layer, cover + slit


def _depth_colour(shape: _Shape, depth: Value, skin: Value) -> Value:
    """Return the painted depth of the mouth [N,3,h,w] at `depth` [N,1,h,w] units below the upper lip: cavity, tongue, upper teeth."""
    cavity_colour, tongue_colour, enamel_colour = (skin.graph.op("Conv", skin, _tint(*tint)) for tint in (_CAVITY, _TONGUE, _ENAMEL))
    part = (depth / (shape.gap + 0.5)).clip(0.0, 1.0)
    cavity = cavity_colour * (1.15 - part * 0.4)
    tongue = (part - shape.u * shape.u * 0.5).smoothstep(0.5, 0.95) * shape.peak.smoothstep(9.0, 18.0) * 0.7
    cavity = cavity + tongue * (tongue_colour - cavity)
    arch = (1.0 - shape.u * shape.u * 1.7).clip(0.0, 1.0)
    teeth_height = (shape.gap * 0.36).clip(0.0, 5.0) * arch - (1.0 - shape.tooth) * 0.5
    teeth = (teeth_height - depth).smoothstep(-0.9, 0.9) * shape.gap.smoothstep(2.5, 6.5)
    light = (depth.ramp(-0.5, 3.0) * 0.5 + 0.45) * (arch * 0.85 + 0.15) * (shape.tooth * 0.2 + 0.8)
    return cavity + teeth * (enamel_colour * light - cavity)


def _tint(luma: float, chroma: float, redness: float) -> NDArray[np.float64]:
    """Return the (3, 3, 1, 1) colour matrix luma * Y + chroma * (RGB - Y) + redness * (R - G) * (1, -0.25, -0.15); grey stays grey."""
    to_luma = np.array([[0.3, 0.59, 0.11]] * 3)
    to_red = np.outer([1.0, -0.25, -0.15], [1.0, -1.0, 0.0])
    return np.asarray(luma * to_luma + chroma * (np.eye(3) - to_luma) + redness * to_red)[:, :, None, None]


def _lens(u: Value) -> Value:
    """Return the opening's profile: 1 in the middle, tapering into the corners."""
    taper = (1.0 - u * u * _LENS_TAPER).clip(0.0, 1.0)
    return taper.graph.op("Pow", taper, _LENS_ROUNDNESS)


def _square(value: Value) -> Value:
    return value * value


def _smooth(t: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(t * t * (3.0 - 2.0 * t))
