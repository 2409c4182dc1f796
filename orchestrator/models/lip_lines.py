"""Find the lips of an aligned crop inside an ONNX graph, with the lip landmarks of a published network (MediaPipe's face mesh with attention).

All lengths are in units: 1/256 of the crop's side. A pixel's centre sits at (index + 0.5) * 256 / size - 0.5.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UnsuitableModel
from orchestrator.models.graph import Value
from orchestrator.models.tflite import TfliteNetwork

Array = NDArray[np.float64]

SOURCE_PACKAGE = "mediapipe==0.10.9"
"""PyPI package (Apache-2.0) that carries the network as `SOURCE_MEMBER`."""

SOURCE_MEMBER = "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite"

SHA256 = "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4"
"""Digest of that file."""

MOUTH_X = 128.5
"""Column of the template's mouth centre, units."""

_NETWORK_PX = 192
"""Side of the network's input, RGB 0..1."""

_CROP_PX = 174
"""Side of the crop inside it. The network wants a face with room around it; this, found by trial, gave the most exact lips."""

_CROP_TOP_PX = 18
"""Rows left empty above the crop: the forehead that the crop leaves out."""

_LOWER = tuple(range(20, 31))
"""Places of the lower inner lip's points among the network's 80, from the left corner to the right one (mesh points 78, 95, 88, ..., 308)."""

_UPPER = (20, *range(31, 40), 30)
"""Places of the upper inner lip's points, corner to corner (mesh points 78, 191, 80, ..., 308)."""

_CERTAIN = (-1.0, 3.0)
"""Logit of "this is a face" below which the mouth is left alone and above which it moves fully; on faces it is 10 and more."""

_CLOSED_GAP = (1.4, 3.0)
"""Distance of the inner lips, units, below which a mouth counts as closed and above which as open. The points of closed lips lie within
0.3 on photographs, 1.3 on drawings."""

_LIP_MARGIN = 1.5
"""Added to the gap of an open mouth, units, so that no tooth stays on the lip's edge when it closes."""

_SMOOTHING = 2.5
"""Standard deviation over columns of the Gaussian that rounds the polygon of the landmarks, units."""


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
        return value.cut((2, 3), (part.top - self.top, part.left - self.left), (part.bottom - self.top, part.right - self.left))

    def sample(self, image: Value, x: Value, y: Value) -> Value:
        """Return `image` [N,C,h,w] of this region at positions `x`, `y` [N,rows,columns] in units, bilinear; outside it what its edge shows."""
        grid = image.graph.concat([_to_grid(v, positions).reshape(0, 0, 0, 1) for v, positions in ((x, self.columns), (y, self.rows))], 3)
        # The one mode for which ONNX Runtime works out the four pixels once for all channels: seven times faster than padding with the border.
        return image.graph.op("GridSample", image, grid, mode="bilinear", padding_mode="zeros", align_corners=0)


def _to_grid(value: Value, positions: Array) -> Value:
    """Return positions in units as GridSample counts: -1 and 1 are the outer edges of the first and the last of the pixels at `positions`.

    They are kept between the centres of these pixels, so that none is mixed with what lies outside.
    """
    scale = 2.0 / (float(positions[1] - positions[0]) * len(positions))
    inner = 1.0 - 1.0 / len(positions)
    counted = value * scale - (float(positions[0]) * scale + inner)
    return counted.clip(-inner, inner)


@dataclass(frozen=True, slots=True)
class LipLines:
    """Where the inner lips are: values per item of the batch, units."""

    certainty: Value
    """[N,1,1]: 0 no face that can be rendered, 1 a face."""
    centre_x: Value
    """[N,1,1]: middle between the mouth corners."""
    centre_y: Value
    """[N,1,1]."""
    half_width: Value
    """[N,1,1]."""
    upper: Value
    """[N,11,2]: x, y along the upper inner lip, corner to corner."""
    lower: Value
    """[N,11,2]."""
    is_open: Value
    """[N,1,1]: 0 lips closed, 1 open."""

    def rows_at(self, u: Value, roi: Roi) -> tuple[Value, Value]:
        """Return the row half-way between the lips and their distance, 0 where closed, for each column of `roi`: [N,1,w] each.

        `u` [N,1,w] is the column's mouth coordinate: -1 and 1 at the corners, clipped.
        """
        x = self.centre_x + u * self.half_width
        smoothing = _gaussian(roi.columns)
        upper, lower = (_polyline(points, x) @ smoothing for points in (self.upper, self.lower))
        gap = u.graph.op("Relu", lower - upper) + (1.0 - u * u) * _LIP_MARGIN
        return (upper + lower) * 0.5, gap * self.is_open


def lip_network(content: bytes) -> TfliteNetwork:
    """Read the network that finds the lips.

    Raises:
        UnsuitableModel: the bytes are not that file.
    """
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise UnsuitableModel(f"The lip landmark network has sha256 {digest}, expected {SHA256}; take {SOURCE_MEMBER} out of {SOURCE_PACKAGE}.")
    return TfliteNetwork(content)


def skin_colour(image: Value, roi: Roi) -> Value:
    """Return the mean RGB of chin and cheeks beside the mouth, [N,3,1,1], from `image` [N,3,h,w]."""
    x, y = roi.columns[None, :], roi.rows[:, None]
    chin = (abs(x - MOUTH_X) < 24) & (abs(y - 172) < 7)
    cheeks = (abs(abs(x - MOUTH_X) - 52) < 7) & (abs(y - 132) < 14)
    weights: Array = (chin | cheeks).astype(np.float64)
    column: Array = (weights / weights.sum()).reshape(-1, 1)
    mean: Value = image.reshape(0, 3, -1) @ column
    return mean.reshape(0, 3, 1, 1)


def find_lip_lines(face: Value, size_px: int, network: TfliteNetwork) -> LipLines:
    """Return the lip lines of aligned crops.

    Args:
        face: [N,3,S,S] float RGB 0..255.
        size_px: S.
        network: MediaPipe's face mesh with attention.
    """
    graph = face.graph
    scale = _CROP_PX / size_px
    shrunk = graph.op("Resize", face, None, np.array([1, 1, scale, scale]), mode="linear") * (1 / 255)
    left = (_NETWORK_PX - _CROP_PX) // 2
    bottom = _NETWORK_PX - _CROP_PX - _CROP_TOP_PX
    canvas = graph.op("Pad", shrunk, graph.integers([0, 0, _CROP_TOP_PX, left, 0, 0, bottom, left]))
    lips, face_logit = network.append_to(graph, canvas, ["output_lips", "conv_faceflag"])
    # Pixel centres: x_network = (x_unit + 0.5) * CROP_PX / 256 - 0.5 + left.
    to_units = 256.0 / _CROP_PX
    origin = np.array([left, _CROP_TOP_PX])
    points = graph.label((lips.reshape(0, 80, 2) + (0.5 - origin)) * to_units - 0.5, "lip_landmarks")
    upper, lower = (graph.op("Gather", points, graph.integers(places), axis=1) for places in (_UPPER, _LOWER))
    gap = (lower - upper).slice(2, 1, 2).max([1])
    corners = upper.slice(1, 0, 1), upper.slice(1, 10, 11)
    centre = (corners[0] + corners[1]) * 0.5
    certainty = face_logit.reshape(0, 1, 1).ramp(*_CERTAIN)
    return LipLines(
        certainty=certainty,
        centre_x=centre.slice(2, 0, 1),
        centre_y=centre.slice(2, 1, 2),
        half_width=graph.op("Max", (corners[1] - corners[0]).slice(2, 0, 1) * 0.5, 8.0),
        upper=upper,
        lower=lower,
        is_open=gap.smoothstep(*_CLOSED_GAP) * certainty,
    )


def _polyline(points: Value, x: Value) -> Value:
    """Return the row of the polygon `points` [N,P,2] at columns `x` [N,1,w]; level beyond its ends."""
    graph = points.graph
    starts, ends = points.slice(1, 0, len(_UPPER) - 1), points.slice(1, 1, len(_UPPER))
    width = graph.op("Max", (ends - starts).slice(2, 0, 1), 0.05)
    slope = (ends - starts).slice(2, 1, 2) / width
    passed = graph.op("Max", graph.op("Min", x - starts.slice(2, 0, 1), width), 0.0)
    # A product, for ONNX Runtime adds up in another order where the batch has one item: an item's sum would depend on what else is in its batch.
    risen: Value = np.ones((1, len(_UPPER) - 1)) @ (passed * slope)
    return points.slice(1, 0, 1).slice(2, 1, 2) + risen


def _gaussian(columns: Array) -> Array:
    """Return the (w, w) weights that smooth rows over `columns`; at the ends with what is there."""
    weights = np.exp(-0.5 * ((columns[:, None] - columns[None, :]) / _SMOOTHING) ** 2)
    return np.asarray(weights / weights.sum(0))
