"""Find the lips of an aligned crop inside an ONNX graph: where they meet, how far the source's own mouth is open, where it ends.

All lengths are in units: 1/256 of the crop's side. A pixel's centre sits at (index + 0.5) * 256 / size - 0.5.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from orchestrator.models.graph import Value

Array = NDArray[np.float64]

MOUTH_X = 128.5
"""Column of the template's mouth centre, units."""

MOUTH_Y = 135.0
"""Row of the template's mouth corners, units."""

COARSE_HALF_WIDTH = 34.0
"""Half the width of the template's mouth, units."""

REDNESS_WEIGHT = 3.0
"""How much lack of red counts against darkness as evidence of the inside of a mouth: it makes teeth stand out from lips."""

_STRONG_COLOUR = 0.22
"""(R - G) / luma of skin from which on differences of redness are taken relative to the skin's own."""

_SEARCH_XY = (80.5, 176.5, 111.0, 175.0)
"""First and last column, first and last row of the grid the coarse search looks at, units."""

_COARSE_STEP_XY = (6.0, 2.0)
"""Distance of the coarse search's samples, units."""

_SHARPNESS = 6.0
"""Factor on the match score before the softmax: high enough to choose, low enough to interpolate between neighbours."""

_SEAM_AREA = (3.5, 5.5)
"""Height of mouth-inside evidence, units, below which the mouth counts as closed (a seam is 2 to 3 thick) and above which as open."""

_SEAM_ABOVE_EDGE = 0.9
"""Distance from the seam's darkest row down to the edge of the lower lip, units."""

_LIP_MARGIN = 1.5
"""Added to the gap of an open mouth, units, so that no tooth stays on the lip's edge when it closes."""


@dataclass(frozen=True, slots=True)
class Roi:
    """The part of a square crop a graph works on: pixel rows top..bottom-1 and columns left..right-1 of a `size_px` crop."""

    size_px: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def columns(self) -> Array:
        """Positions of the columns, (w,), units."""
        return (np.arange(self.left, self.right) + 0.5) * 256.0 / self.size_px - 0.5

    @property
    def rows(self) -> Array:
        """Positions of the rows, (h,), units."""
        return (np.arange(self.top, self.bottom) + 0.5) * 256.0 / self.size_px - 0.5

    def part(self, left: float, top: float, right: float, bottom: float) -> "Roi":
        """Return the region inside this one between columns `left` and `right` and rows `top` and `bottom`, units."""
        x0, x1 = (self.left + int(np.argmin(abs(self.columns - v))) for v in (left, right))
        y0, y1 = (self.top + int(np.argmin(abs(self.rows - v))) for v in (top, bottom))
        return Roi(self.size_px, x0, y0, x1, y1)

    def cut(self, value: Value, part: "Roi") -> Value:
        """Return the `part` of `value` [N,C,h,w], which covers this region."""
        rows = value.slice(2, part.top - self.top, part.bottom - self.top)
        return rows.slice(3, part.left - self.left, part.right - self.left)

    def sample(self, image: Value, x: Value, y: Value) -> Value:
        """Return `image` [N,C,h,w] of this region at positions `x`, `y` [N,rows,columns] in units, bilinear."""
        grid = image.graph.concat(
            [(v * scale + shift).reshape(0, 0, 0, 1) for v, scale, shift in ((x, *_to_grid(self.columns)), (y, *_to_grid(self.rows)))], 3
        )
        return image.graph.op("GridSample", image, grid, mode="bilinear", padding_mode="border", align_corners=1)


def _to_grid(positions: Array) -> tuple[float, float]:
    scale = 2.0 / (positions[-1] - positions[0])
    return float(scale), float(-positions[0] * scale - 1.0)


@dataclass(frozen=True, slots=True)
class LipLines:
    """Where the lips are: values per item of the batch, units."""

    coarse: Value
    """[N,5]: row of the seam at the template's centre, slope, height of the corners over the middle, gap, half-width."""
    centre_x: Value
    """[N,1,1]: middle between the mouth corners."""
    half_width: Value
    """[N,1,1]."""
    middle: Value
    """[N,5]: polynomial in u = (x - centre_x) / half_width, added to the coarse middle line."""
    gap: Value
    """[N,3]: even and odd terms of the gap's profile, times 1 - u^2; zero for a closed mouth."""

    def middle_at(self, x: Value, u: Value) -> Value:
        """Return the row half-way between the lips at columns `x` [N,1,w], whose mouth coordinate is `u` (-1..1)."""
        graph = self.coarse.graph
        bows = graph.concat([u * 0.0 + 1.0, u, u * u, u * u * u, u * u * u * u], 1)
        return _coarse_middle(self.coarse, x) + self.middle.reshape(0, 1, 5) @ bows

    def gap_at(self, u: Value) -> Value:
        """Return the distance of the inner lips at mouth coordinates `u` [N,1,w] (-1..1)."""
        graph = self.coarse.graph
        bows = graph.concat([u * 0.0 + 1.0, u, u * u], 1)
        profile = (self.gap.reshape(0, 1, 3) @ bows) * (1.0 - u * u)
        return graph.op("Relu", profile)


def skin_colour(image: Value, roi: Roi) -> Value:
    """Return the mean RGB of chin and cheeks beside the mouth, [N,3,1,1], from `image` [N,3,h,w]."""
    x, y = roi.columns[None, :], roi.rows[:, None]
    chin = (abs(x - MOUTH_X) < 24) & (abs(y - 172) < 7)
    cheeks = (abs(abs(x - MOUTH_X) - 52) < 7) & (abs(y - 132) < 14)
    weights: Array = (chin | cheeks).astype(np.float64)
    column: Array = (weights / weights.sum()).reshape(-1, 1)
    mean: Value = image.reshape(0, 3, -1) @ column
    return mean.reshape(0, 3, 1, 1)


def find_lip_lines(image: Value, roi: Roi, skin: Value) -> LipLines:
    """Return the lip lines of `image` [N,3,h,w] float RGB 0..255, the `roi` of an aligned crop with mean skin colour `skin` [N,3,1,1].

    A bank of lens shapes around the template's mouth is matched against the evidence; corners and lines are then refined around the best.
    """
    evidence, has_colour, box = _evidence(image, roi, skin)
    coarse = _coarse_lens(evidence, box)
    centre_x, half_width = _corners(evidence, box, coarse)
    middle, gap = _refine(evidence, has_colour, box, coarse, centre_x, half_width)
    return LipLines(coarse, centre_x, half_width, middle, gap)


def _evidence(image: Value, roi: Roi, skin: Value) -> tuple[Value, Value, Roi]:
    """Return [N,3,h,w] and its region: how much a pixel looks like mouth rather than lip, its darkness, and how likely it is a tooth."""
    box = roi.part(_SEARCH_XY[0], _SEARCH_XY[2] - 4, _SEARCH_XY[1], _SEARCH_XY[3] + 4)
    pixels = roi.cut(image, box)
    luma_redness = np.array([[0.3, 0.59, 0.11], [1.0, -1.0, 0.0]])[:, :, None, None]
    skin_luma = image.graph.op("Conv", skin, luma_redness).slice(1, 0, 1)
    both = image.graph.op("Conv", pixels, luma_redness)
    darkness = image.graph.op("Log", skin_luma * 0.75 / (both.slice(1, 0, 1) + 4.0)).clip(0.0, 1.5)
    skin_redness = image.graph.op("Conv", skin, luma_redness).slice(1, 1, 2) / (skin_luma + 4.0)
    # On skin of strong colour all differences are greater.
    redness = both.slice(1, 1, 2) / (skin_luma + 4.0)
    redness = redness / (skin_redness * (1.0 / _STRONG_COLOUR)).clip(1.0, 10.0)
    skin_redness = skin_redness.clip(0.0, _STRONG_COLOUR)
    has_colour = skin_redness.ramp(0.04, 0.08)
    paleness = (redness / (skin_redness + 0.02)).ramp(1.2, 0.9) * has_colour
    evidence = image.graph.concat([darkness - redness.clip(-0.2, 0.8) * REDNESS_WEIGHT, darkness, paleness], 1)
    return image.graph.label(evidence, "mouth_evidence"), has_colour.reshape(0, 1, 1), box


def _coarse_lens(evidence: Value, box: Roi) -> Value:
    x = np.arange(_SEARCH_XY[0], _SEARCH_XY[1] + 0.1, _COARSE_STEP_XY[0])
    y = np.arange(_SEARCH_XY[2], _SEARCH_XY[3] + 0.1, _COARSE_STEP_XY[1])
    shapes = np.array(list(product(np.arange(-12.0, 14.1, 2.0), (-4.0, 0.0, 4.0), (-3.0, 2.0, 7.0, 12.0), (0.0, 4.0, 8.0, 13.0, 20.0), (25.0, 36.0))))
    prior = (
        -((shapes[:, 0] / 8) ** 2)
        - (shapes[:, 1] / 5) ** 2
        - ((shapes[:, 2] - 2) / 9) ** 2
        - (shapes[:, 3] / 25) ** 2
        - ((shapes[:, 4] - 35) / 10) ** 2
    )
    filters = np.array([_lens_filter(x, y, *shape).ravel() for shape in shapes])
    shapes[:, 0] += MOUTH_Y
    small = _box_resampler(box.rows, y).T @ evidence.slice(1, 0, 1) @ _box_resampler(box.columns, x)
    small = small.reshape(0, len(x) * len(y))
    weights = evidence.graph.op("Softmax", (small @ filters.T + prior * 0.3) * _SHARPNESS, axis=1)
    return evidence.graph.label(weights @ shapes, "mouth_coarse")


def _lens_filter(x: Array, y: Array, seam: float, slope: float, corner_rise: float, gap: float, half_width: float) -> Array:
    """Return a zero-mean matched filter (rows, columns): inside of a lens against the lips above and below it."""
    u, u_lens = (x - MOUTH_X) / COARSE_HALF_WIDTH, (x - MOUTH_X) / half_width
    below = y[:, None] - (MOUTH_Y + seam + slope * u - corner_rise * u**2)
    half = np.maximum(gap / 2 * (1 - u_lens**2), 0) + 1.2
    inside = np.clip((half - abs(below)) / 2 + 0.5, 0, 1) * (abs(u_lens) < 1)
    lips = np.clip((half + 6 - abs(below)) / 2 + 0.5, 0, 1) * (abs(u_lens) < 1) - inside
    matched = inside / inside.sum() - lips / lips.sum()
    return np.asarray(matched / np.linalg.norm(matched))


def _box_resampler(positions: Array, samples: Array) -> Array:
    """Return (positions, samples) weights: the mean of what lies within half a sample's step, linear edges."""
    step = samples[1] - samples[0]
    weights = np.clip(1 - abs(positions[:, None] - samples) / step, 0, None)
    return np.asarray(weights / weights.sum(0))


def _coarse_middle(coarse: Value, x: Value) -> Value:
    """Return the coarse middle line at columns `x` [N,1,w]."""
    u = (x - MOUTH_X) * (1 / COARSE_HALF_WIDTH)
    seam, slope, rise = (coarse.slice(1, i, i + 1).reshape(0, 1, 1) for i in range(3))
    return seam + slope * u - rise * (u * u).clip(0.0, 1.5)


def _coarse_half_gap(coarse: Value, x: Value) -> Value:
    u = (x - MOUTH_X) / coarse.slice(1, 4, 5).reshape(0, 1, 1)
    return coarse.slice(1, 3, 4).reshape(0, 1, 1) * (1.0 - u * u).clip(0.0, 1.0) * 0.5


def _corners(evidence: Value, box: Roi, coarse: Value) -> tuple[Value, Value]:
    """Return the mouth's centre column and half-width, each [N,1,1]: where the seam starts to show along the coarse line."""
    graph = evidence.graph
    x = np.arange(_SEARCH_XY[0], _SEARCH_XY[1] + 0.1, 1.5)
    v = np.arange(-8.0, 8.1)[:, None]
    columns = coarse.reshape(0, 1, 5).slice(2, 0, 1) * 0.0 + x[None, None, :]
    stretch = 1.0 + _coarse_half_gap(coarse, columns) * 0.2
    strip = box.sample(evidence.slice(1, 0, 1), columns + v[None] * 0.0, _coarse_middle(coarse, columns) + stretch * v[None])
    lips = (strip.slice(2, 2, 5).mean([2]) + strip.slice(2, 12, 15).mean([2])) * 0.5
    ridge = graph.op("Relu", strip.slice(2, 6, 11).max([2]) - lips).reshape(0, len(x))
    centre = (abs(x - MOUTH_X) < 20)[:, None] / (abs(x - MOUTH_X) < 20).sum()
    shows = (ridge / (ridge @ centre * 0.5 + 0.02)).clip(0.0, 1.0)
    corners = []
    for side in (-1.0, 1.0):
        candidates = MOUTH_X + side * np.arange(17.0, 46.1, 1.5)
        inwards = (candidates - x[:, None]) * side
        step = ((inwards > 0) & (inwards < 12)) / 12.0 - ((inwards <= 0) & (inwards > -12)) / 12.0
        from_coarse = (coarse.slice(1, 4, 5) - abs(candidates - MOUTH_X)) * (1 / 9)
        weights = graph.op("Softmax", (shows @ (step * 1.5)) * 4.0 - from_coarse * from_coarse * 0.5, axis=1)
        corners.append((weights @ candidates[:, None]).reshape(0, 1, 1))
    left, right = corners
    return graph.label((left + right) * 0.5, "mouth_centre_x"), graph.label((right - left) * 0.5, "mouth_half_width")


def _refine(evidence: Value, has_colour: Value, box: Roi, coarse: Value, centre_x: Value, half_width: Value) -> tuple[Value, Value]:
    """Return the polynomials of `LipLines.middle` and `LipLines.gap`: centroid and height of the evidence, column by column."""
    graph = evidence.graph
    u = np.linspace(-0.95, 0.95, 33)
    v = np.arange(-16.0, 16.1)[None, :, None]
    x = centre_x + half_width * u[None, None, :]
    half_gap = _coarse_half_gap(coarse, x)
    strip = box.sample(evidence, x + v * 0.0, _coarse_middle(coarse, x) + v)
    any_inside, darkness, paleness = (strip.slice(1, i, i + 1).reshape(0, v.size, u.size) for i in range(3))
    distance = abs(v)
    lips = (half_gap + 9.0 - distance).clip(0.0, 1.0) - (half_gap + 3.0 - distance).clip(0.0, 1.0)
    lip_darkness = (darkness * lips).sum([1]) / (lips.sum([1]) + 1e-3)
    has_gap = coarse.slice(1, 3, 4).reshape(0, 1, 1).smoothstep(4.5, 6.5)
    lip_level, level = ((any_inside * w).sum([1]) / (w.sum([1]) + 1e-3) for w in (lips, (half_gap - distance).clip(0.0, 1.0)))
    differs = (any_inside - lip_level) / (graph.op("Relu", level - lip_level) + 0.1)
    paleness = graph.op("Max", paleness, differs.ramp(0.6, 0.9) * has_colour)
    # A dark lip is not yet a mouth: the inside is about as dark as the darkest row.
    darkest = (darkness * (half_gap + 4.0 - distance).clip(0.0, 1.0)).max([1])
    is_darkest = ((darkness - lip_darkness) / (graph.op("Relu", darkest - lip_darkness) + 0.1)).ramp(0.45, 0.7)
    likely = graph.op("Max", (darkness - lip_darkness * 0.6).ramp(0.4, 0.8) * is_darkest, paleness * has_gap)
    likely = (likely * ((half_gap + 4.0 - distance) * 0.5).clip(0.0, 1.0)).reshape(0, 1, v.size, u.size)
    # What lies between two pieces of evidence is inside too: the smaller of the running maxima from above and from below.
    from_above, from_below = (
        graph.op("MaxPool", likely, kernel_shape=[v.size, 1], pads=pads) for pads in ([v.size - 1, 0, 0, 0], [0, 0, v.size - 1, 0])
    )
    filled = graph.op("Min", from_above, from_below).reshape(0, v.size, u.size)
    area = filled.sum([1])
    centroid = ((filled * v).sum([1]) / (area + 0.2)).clip(-5.0, 5.0)
    # A closed mouth parts just above the edge of the lower lip: the steepest fall of the evidence.
    fall = any_inside.slice(1, 0, v.size - 2) - any_inside.slice(1, 2, v.size)
    steepest = fall.max([1])
    edge_weights = graph.op("Softmax", fall / (graph.op("Relu", steepest) + 0.1) * 7.0 - ((v[:, 1:-1] - 1.0) / 4.0) ** 2, axis=1)
    seam = (edge_weights * v[:, 1:-1]).sum([1]) - _SEAM_ABOVE_EDGE
    lines = np.stack([u**power for power in range(5)], 1)
    bows = np.stack([(1 - u**2) * u**power for power in range(3)], 1)
    gap = area.reshape(0, u.size) @ _fit(bows, 0.05).T
    is_open = gap.slice(1, 0, 1).smoothstep(*_SEAM_AREA)
    row = seam + is_open.reshape(0, 1, 1) * (centroid - seam)
    middle = row.reshape(0, u.size) @ _fit(lines, 0.15).T + is_open * np.array([[0.4 * _LIP_MARGIN, 0.0, -0.4 * _LIP_MARGIN, 0.0, 0.0]])
    return graph.label(middle, "mouth_middle"), graph.label((gap + np.array([[_LIP_MARGIN, 0.0, 0.0]])) * is_open, "mouth_gap")


def _fit(basis: Array, damping: float) -> Array:
    """Return the (terms, samples) matrix of the damped least-squares fit of samples on `basis` (samples, terms)."""
    return np.asarray(np.linalg.solve(basis.T @ basis + damping * np.eye(basis.shape[1]), basis.T))
