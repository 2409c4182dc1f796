"""mouth-warp: what it leaves alone, what it opens, and that it is a plain, batchable ONNX graph."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from orchestrator.errors import UnsuitableModel
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.lip_lines import SOURCE_MEMBER, SOURCE_PACKAGE, Roi, lip_network
from orchestrator.models.mouth_motion import LOUD_LEVEL_DBFS
from orchestrator.models.mouth_warp import PASTE_REGION, build_mouth_warp
from orchestrator.models.sources import package_member
from orchestrator.models.tflite import TfliteNetwork
from preprocess.mel import levels_db, with_level
from tests.motion.speakers import espeak, features

Image = NDArray[np.uint8]
Mel = NDArray[np.float32]
Warp = Callable[[Image, Mel], Image]

SIZE = 256
# Lips of the photograph in its crop, read off by eye: corners, and the inner lips in the middle, between which the teeth show; px.
BY_EYE = ((92, 126), (166, 125), (128.5, 132.5), (128.5, 143.5))

ALLOWED_OPERATORS = (
    {"Abs", "Add", "Cast", "Clip", "Concat", "Conv", "Div", "Exp", "Gather", "Greater", "GridSample", "Identity", "Log", "MatMul", "Max", "MaxPool"}
    | {"Min", "Mul", "Neg", "Pad", "Pow", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Round", "Slice", "Sqrt", "Sub"}
    | {"Tanh", "Transpose", "Where"}
)
"""Standard operators that the CPU, CUDA and TensorRT execution providers all run."""


@pytest.fixture(scope="module")
def network() -> TfliteNetwork:
    with package_member(SOURCE_PACKAGE, SOURCE_MEMBER) as file:
        return lip_network(file.read_bytes())


@pytest.fixture(scope="module")
def model(network: TfliteNetwork) -> onnx.ModelProto:
    return build_mouth_warp(network, SIZE)


@pytest.fixture(scope="module")
def warp(model: onnx.ModelProto) -> Warp:
    return _session(model)


def _session(model: onnx.ModelProto) -> Warp:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(face: Image, audio: Mel) -> Image:
        return np.asarray(session.run(["mouth"], {"face": face, "audio": audio})[0], np.uint8)

    return run


def _face(gap: int = 0, seam_row: float = 135.0, seam_column: float = 128.5) -> Image:
    """Draw an aligned face: skin, nostrils, two red lips with a dark seam between, or teeth where the mouth is open by `gap` units."""
    scale, shift = SIZE / 256 * 16, 4

    def ellipse(x: float, y: float, half_width: float, half_height: float, colour: tuple[int, int, int], start: int = 0, end: int = 360) -> None:
        centre = round(x * scale), round(y * scale)
        cv2.ellipse(image, centre, (round(half_width * scale), round(half_height * scale)), 0, start, end, colour, -1, cv2.LINE_AA, shift)

    image = np.full((SIZE, SIZE, 3), (96, 98, 104), np.uint8)
    ellipse(128, 110, 74, 92, (206, 165, 144))
    for side in (-1, 1):
        ellipse(128 + side * 38, 58, 12, 5, (60, 40, 34))
        ellipse(128 + side * 9, 104, 4, 2.5, (110, 72, 62))
    ellipse(seam_column, seam_row, 33, 11, (176, 96, 92), 180, 360)
    ellipse(seam_column, seam_row, 33, 13 + gap, (186, 102, 100), 0, 180)
    ellipse(seam_column, seam_row, 32, 1.3, (84, 38, 36))
    if gap:
        ellipse(seam_column, seam_row, 31, gap, (205, 196, 184), 0, 180)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.9 * SIZE / 256), np.uint8)


@cache
def _ah() -> Mel:
    """Return the (80, 1) features of an ah as loud as loud speech."""
    mel = features(espeak("ah", "en-us+m3").waveform)
    loudest = mel[:, levels_db(mel).argmax(), None]
    return with_level(loudest, LOUD_LEVEL_DBFS - float(levels_db(loudest)[0]))


def _speech(decibels: float, count: int = 1) -> Mel:
    """Return features of somebody who says ah, `decibels` relative to loud speech."""
    return np.broadcast_to(with_level(_ah(), decibels), (count, 1, 80, 16)).copy()


def _silence() -> Mel:
    return np.full((1, 1, 80, 16), -4, np.float32)


def _dark_area(image: Image) -> int:
    return int((image[0, 110:180, 90:168].mean(-1) < 45).sum())


def test_graph_is_opset_17_of_allowed_operators_and_float32(model: onnx.ModelProto) -> None:
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert {node.op_type for node in model.graph.node} <= ALLOWED_OPERATORS
    assert {tensor.data_type for tensor in model.graph.initializer} <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}


def test_tensors_have_the_lip_sync_contract(model: onnx.ModelProto) -> None:
    def spec(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [d.dim_param or d.dim_value for d in tensor.shape.dim]

    image = [onnx.TensorProto.UINT8, ["N", SIZE, SIZE, 3]]
    assert [spec(v) for v in model.graph.input] == [("face", *image), ("audio", onnx.TensorProto.FLOAT, ["N", 1, 80, 16])]
    assert [spec(v) for v in model.graph.output] == [("mouth", *image)]


def test_two_builds_are_the_same_file(network: TfliteNetwork, model: onnx.ModelProto) -> None:
    assert build_mouth_warp(network, SIZE).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("seam_row", [130.0, 135.0, 140.0])
def test_closed_mouth_is_bit_identical_in_silence(warp: Warp, seam_row: float) -> None:
    face = _face(seam_row=seam_row)[None]
    np.testing.assert_array_equal(warp(face, _silence()), face)


def test_room_noise_38_db_below_speech_keeps_the_mouth_closed(warp: Warp) -> None:
    face = _face()[None]
    np.testing.assert_array_equal(warp(face, _speech(-38)), face)


@pytest.mark.parametrize("gap", [0, 10])
def test_pixels_outside_the_paste_region_are_bit_identical(warp: Warp, gap: int) -> None:
    rng = np.random.default_rng(0)
    face = np.clip(_face(gap=gap)[None].astype(np.int16) + rng.integers(-3, 4, (1, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
    changed = (warp(face, _speech(0)) != face).any((0, -1))
    x1, y1, x2, y2 = (round(edge * SIZE) for edge in PASTE_REGION)
    assert changed[y1:y2, x1:x2].any()
    changed[y1:y2, x1:x2] = False
    assert not changed.any()


def test_edge_of_the_paste_region_has_no_step(warp: Warp) -> None:
    face = _face()[None]
    difference = abs(warp(face, _speech(0)).astype(int) - face)
    x1, y1, x2, y2 = (round(edge * SIZE) for edge in PASTE_REGION)
    border = [difference[0, y1 : y1 + 2], difference[0, y2 - 2 : y2], difference[0, :, x1 : x1 + 2], difference[0, :, x2 - 2 : x2]]
    assert max(int(strip.max()) for strip in border) <= 4


def test_each_item_of_a_batch_equals_its_batch_1_run(warp: Warp) -> None:
    faces = np.stack([_face(), _face(gap=10), _face(seam_row=139.0), np.full((SIZE, SIZE, 3), 90, np.uint8)])
    audio = np.concatenate([_speech(-3), _speech(-12), _silence(), _speech(0)])
    together = warp(faces, audio)
    for index in range(len(faces)):
        alone = warp(faces[index : index + 1], audio[index : index + 1])
        assert abs(alone[0].astype(int) - together[index]).max() <= 1


@pytest.mark.parametrize("count", [2, 3, 8])
def test_every_value_inside_is_the_same_to_the_last_bit_however_many_items_a_batch_has(model: onnx.ModelProto, portrait: Image, count: int) -> None:
    """Bytes alone hid it: one in a hundred million differed, and so did the render of a job that was begun again."""
    inside = onnx.ModelProto()
    inside.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name not in known]
    inside.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(inside.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    faces = np.stack([np.roll(portrait, shift, (0, 1)) for shift in rng.integers(-3, 4, (count, 2))])
    audio = rng.uniform(-4, 4, (count, 1, 80, 16)).astype(np.float32)
    together = session.run(names, {"face": faces, "audio": audio})
    for item in range(count):
        alone = session.run(names, {"face": faces[item : item + 1], "audio": audio[item : item + 1]})
        differ = [name for name, batch, one in zip(names, together, alone, strict=True) if len(batch) == count and (batch[item] != one[0]).any()]
        assert not differ


def test_mouth_opens_further_the_louder_the_speech(warp: Warp) -> None:
    levels = [-30.0, -24.0, -18.0, -12.0, -6.0, 0.0]
    areas = [_dark_area(warp(_face()[None], _speech(level))) for level in levels]
    assert areas == sorted(areas)
    assert areas[-1] > areas[2] + 100 > areas[0] + 200


def test_small_changes_of_level_make_small_changes_of_the_picture(warp: Warp) -> None:
    levels = np.arange(-40.0, 2.0, 0.5)
    frames = np.concatenate([warp(_face()[None], _speech(level)) for level in levels]).astype(int)
    steps = abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert steps.max() < 0.35


def test_opening_follows_the_middle_of_the_window(warp: Warp) -> None:
    def area(first: int, last: int) -> int:
        audio = _silence()
        audio[..., first:last] = _speech(0)[..., first:last]
        return _dark_area(warp(_face()[None], audio))

    assert area(0, 3) == area(0, 0)
    assert area(7, 12) > area(0, 5)


def test_hiss_opens_less_than_a_vowel_of_the_same_level(warp: Warp) -> None:
    def band(first: int, last: int) -> Mel:
        audio = _silence()
        audio[:, :, first:last] = 2.0
        return audio

    assert _dark_area(warp(_face()[None], band(60, 80))) < _dark_area(warp(_face()[None], band(4, 24)))


def test_mouth_waits_for_a_sound_out_of_digital_silence(warp: Warp) -> None:
    audio = _silence()
    audio[..., 13:] = _speech(0)[..., 13:]  # 62 ms after the frame's time
    assert _dark_area(warp(_face()[None], audio)) == 0


def test_dull_or_narrow_speech_opens_the_mouth_nearly_as_far(warp: Warp) -> None:
    def without(first: int, last: int) -> Mel:
        audio = _speech(0)
        audio[:, :, first:last] -= 2.4
        return audio

    whole = _dark_area(warp(_face()[None], _speech(0)))
    for name, audio in {"muffled above 1.8 kHz": without(29, 80), "a telephone's": np.minimum(without(0, 4), without(50, 80))}.items():
        assert _dark_area(warp(_face()[None], audio)) > 0.8 * whole, name


def test_mouth_opens_where_the_lips_are_when_landmarks_are_off(warp: Warp) -> None:
    for row, column in ((130.0, 128.5), (140.0, 128.5), (135.0, 124.0), (135.0, 133.0)):
        face = _face(seam_row=row, seam_column=column)[None]
        dark = warp(face, _speech(-3))[0].mean(-1) < 45
        ys, xs = np.nonzero(dark[112:182, 90:168])
        assert abs(xs.mean() + 90 - column) < 3.5
        # The depth begins at the seam (less what the upper lip rises) and hangs below it.
        assert row - 5 < ys.min() + 112 < row + 4


def test_open_source_mouth_is_closed_in_silence(warp: Warp) -> None:
    def teeth(image: Image) -> int:
        return int(((image[0, 112:170, 96:161].min(-1) > 150) & (np.ptp(image[0, 112:170, 96:161], -1) < 40)).sum())

    smile = _face(gap=10)[None]
    assert teeth(warp(smile, _silence())) < 0.15 * teeth(smile)


@pytest.mark.parametrize("column", [100, 128, 156])
def test_collar_below_the_chin_hardly_rises_when_an_open_mouth_closes(warp: Warp, column: int) -> None:
    """Once it rose like a wave with the chin, further than the lip itself."""
    gap, collar_row = 16, 208
    face = _face(gap=gap)[None]
    face[:, collar_row:] = 250
    closed = warp(face, _silence())
    risen = collar_row - int(np.flatnonzero(closed[0, :, column].min(-1) > 230)[0])
    assert risen < gap * 2 / 3


def test_smile_keeps_its_teeth_in_loud_speech(warp: Warp) -> None:
    def bright(image: Image) -> int:
        return int((image[0, 112:175, 96:161].min(-1) > 165).sum())

    smile = _face(gap=10)[None]
    assert bright(warp(smile, _speech(0))) > 0.6 * bright(smile)


@pytest.mark.parametrize("gap", [9, 11])
def test_no_strip_of_the_lower_lip_hangs_below_the_teeth_of_a_smile(warp: Warp, gap: int) -> None:
    middle = warp(_face(gap=gap)[None], _speech(3))[0, 112:180, 124:133].mean(1)
    light, redness = middle.mean(-1), middle[:, 0] - middle[:, 1]
    teeth, depth = (light > 150) & (redness < 30), light < 55
    inside = slice(int(np.flatnonzero(teeth)[0]), int(np.flatnonzero(depth)[-1]))
    assert teeth[inside].sum() >= 4
    assert ((light > 60) & (redness > 50))[inside].sum() == 0


def test_grey_picture_stays_grey(warp: Warp) -> None:
    grey = np.repeat(cv2.cvtColor(_face(), cv2.COLOR_RGB2GRAY)[None, ..., None], 3, -1)
    drawn = warp(np.asarray(grey, np.uint8), _speech(0))
    assert np.ptp(drawn.astype(int), -1).max() <= 2
    assert (drawn != grey).any()


def test_painted_depth_follows_the_exposure(warp: Warp) -> None:
    dark_face = np.asarray(_face() // 4, np.uint8)[None]
    drawn = warp(dark_face, _speech(0))
    assert drawn[0, 110:190, 90:168].max() <= dark_face.max() + 8


@pytest.mark.parametrize("size", [128, 192, 384])
def test_other_sizes_open_too_and_keep_silence(warp: Warp, network: TfliteNetwork, portrait: Image, size: int) -> None:
    closed = warp(portrait[None], _silence())[0]
    face = np.asarray(cv2.resize(closed, (size, size), interpolation=cv2.INTER_AREA if size < SIZE else cv2.INTER_CUBIC), np.uint8)[None]
    resized_warp = _session(build_mouth_warp(network, size))
    np.testing.assert_array_equal(resized_warp(face, _silence()), face)
    assert (abs(resized_warp(face, _speech(0)).astype(int) - face).max(-1) > 40).mean() > 0.005


def test_lips_are_found_on_a_photograph(model: onnx.ModelProto, portrait: Image) -> None:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.helper.make_tensor_value_info("lip_landmarks", onnx.TensorProto.FLOAT, ["N", 80, 2]))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    (lips,) = session.run(["lip_landmarks"], {"face": portrait[None], "audio": _silence()})[0]
    left, right, upper, lower = lips[20], lips[30], lips[35], lips[25]
    np.testing.assert_allclose(left, BY_EYE[0], atol=4)
    np.testing.assert_allclose(right, BY_EYE[1], atol=4)
    np.testing.assert_allclose(upper, BY_EYE[2], atol=3)
    np.testing.assert_allclose(lower, BY_EYE[3], atol=3)


def test_region_is_sampled_bilinearly_and_shows_its_edge_outside() -> None:
    roi = Roi(128, 20, 30, 60, 66)
    graph = Graph("sample")
    image, x, y = (graph.input(name, FLOAT, ["N", *shape]) for name, shape in (("image", (3, 36, 40)), ("x", (9, 11)), ("y", (9, 11))))
    graph.output(roi.sample(image, x, y), "sampled", FLOAT, ["N", 3, 9, 11])
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (1, 3, 36, 40)).astype(np.float32)
    columns, rows = rng.uniform(-6, 46, (9, 11)).astype(np.float32), rng.uniform(-6, 42, (9, 11)).astype(np.float32)
    columns[0, :2], rows[0, :2] = (0, 39), (0, 35)
    units = {"x": (columns[None] + 20.5) * 2 - 0.5, "y": (rows[None] + 30.5) * 2 - 0.5}
    (sampled,) = session.run(["sampled"], {"image": picture, **units})
    at_x, at_y = columns.clip(0, 39), rows.clip(0, 35)
    left, top = np.floor(at_x).astype(int).clip(0, 38), np.floor(at_y).astype(int).clip(0, 34)
    to_right, to_bottom = at_x - left, at_y - top
    upper, lower = (picture[0][:, r, left] * (1 - to_right) + picture[0][:, r, left + 1] * to_right for r in (top, top + 1))
    np.testing.assert_allclose(sampled[0], upper * (1 - to_bottom) + lower * to_bottom, atol=0.02)


def test_a_wrong_network_file_is_refused() -> None:
    with pytest.raises(UnsuitableModel, match=r"has sha256 .* expected e06a804e"):
        lip_network(b"not the network")


@pytest.mark.parametrize("fill", [0, 128, 255])
def test_picture_without_a_face_gives_a_picture(warp: Warp, fill: int) -> None:
    face = np.full((1, SIZE, SIZE, 3), fill, np.uint8)
    assert warp(face, _speech(0)).shape == face.shape


def test_crop_too_small_for_a_seam_is_refused(network: TfliteNetwork) -> None:
    with pytest.raises(ValueError, match="at least 128 px, got 96"):
        build_mouth_warp(network, 96)
