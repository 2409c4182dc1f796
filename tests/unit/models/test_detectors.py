"""What each detector's numbers mean: a scripted network says one face in the network's own terms, and the box is worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.errors import UnsuitableModel
from orchestrator.models.detection import choose_faces, finish_detector
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.network import read_network
from orchestrator.models.options import PackOptions
from orchestrator.models.packs import PACKS
from orchestrator.models.wrapping import wrap
from tests.networks import save_scripted

SIZE_PX = 128
ROW, COLUMN = 5, 3
"""The cell of the stride-16 map that sees the face."""


def detect(pack: str, path: Path, size_px: int | None = SIZE_PX) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Return the (16, 15) faces of an installed pack on some picture, and its parameters."""
    fit = PACKS[pack].fit
    assert fit is not None
    wrapping = fit(read_network(path), PackOptions(size_px=size_px))
    side = wrapping.config.inputs[0].dims[0]
    session = onnxruntime.InferenceSession(wrap(wrapping).model.SerializeToString(), providers=["CPUExecutionProvider"])
    faces = session.run(None, {"image": np.full((2, side, side, 3), 90, np.uint8)})[0]
    np.testing.assert_array_equal(faces[0], faces[1])
    return np.asarray(faces[0]), dict(wrapping.config.parameters)


def tables(sizes: dict[str, int], anchors: int) -> dict[str, NDArray[np.float32]]:
    """Return empty tables `name_stride` for each stride."""
    return {f"{name}_{s}": np.zeros((anchors * (SIZE_PX // s) ** 2, n), np.float32) for name, n in sizes.items() for s in (8, 16, 32)}


def one_face(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    assert (faces[:, 4] > 0).tolist() == [True] + [False] * 15
    assert not faces[1:].any()
    return np.asarray(faces[0])


@pytest.mark.parametrize("sides", [("H", "W"), (SIZE_PX, SIZE_PX)], ids=["free size", "fixed size"])
def test_yunet(tmp_path: Path, sides: tuple[Any, Any]) -> None:
    parts = tables({"cls": 1, "obj": 1, "bbox": 4, "kps": 10}, anchors=1)
    cell = ROW * (SIZE_PX // 16) + COLUMN
    parts["cls_16"][cell], parts["obj_16"][cell] = 0.9, 0.4
    parts["bbox_16"][cell] = 0.5, 0.25, np.log(2), np.log(3)
    parts["kps_16"][cell] = np.arange(10) / 10
    face = one_face(detect("yunet", save_scripted(tmp_path / "y.onnx", list(parts.items()), ("N", 3, *sides)))[0])
    cx, cy = 3.5 * 16, 5.25 * 16
    points = [16 * (index / 10 + (ROW if index % 2 else COLUMN)) for index in range(10)]
    np.testing.assert_allclose(face, [cx - 16, cy - 24, cx + 16, cy + 24, 0.6, *points], rtol=1e-5)


@pytest.mark.parametrize("has_points", [True, False], ids=["with points", "without points"])
def test_scrfd(tmp_path: Path, has_points: bool) -> None:
    parts = tables({"score": 1, "bbox": 4} | ({"kps": 10} if has_points else {}), anchors=2)
    cell = 2 * (ROW * (SIZE_PX // 16) + COLUMN) + 1
    parts["score_16"][cell] = 0.7
    parts["bbox_16"][cell] = 1, 2, 1.5, 2.5
    if has_points:
        parts["kps_16"][cell] = np.arange(10) / 10 - 0.5
    faces, parameters = detect("scrfd", save_scripted(tmp_path / "s.onnx", list(parts.items()), ("N", 3, "H", "W")))
    x, y = COLUMN * 16, ROW * 16
    points = [16 * (index / 10 - 0.5) + (y if index % 2 else x) for index in range(10)] if has_points else [0] * 10
    np.testing.assert_allclose(one_face(faces), [x - 16, y - 32, x + 24, y + 40, 0.7, *points], rtol=1e-5)
    assert parameters["landmarks"] == ("5" if has_points else "none")


def test_scrfd_that_folds_the_batch_into_rows_is_refused_with_the_reason(tmp_path: Path) -> None:
    parts = tables({"score": 1, "bbox": 4, "kps": 10}, anchors=2)
    path = save_scripted(tmp_path / "folded.onnx", list(parts.items()), (1, 3, "H", "W"), declared=())
    with pytest.raises(UnsuitableModel, match="folds the batch into the rows") as caught:
        detect("scrfd", path)
    assert "output FLOAT [N, 2 H/8 W/8, 1]" in str(caught.value) and "output score_8 FLOAT [512, 1]" in str(caught.value)


@pytest.mark.parametrize("is_probability", [True, False], ids=["after softmax", "before softmax"])
def test_retinaface(tmp_path: Path, is_probability: bool) -> None:
    count = 42 * (SIZE_PX // 32) ** 2
    loc, conf, landms = (np.zeros((count, size), np.float32) for size in (4, 2, 10))
    anchor = 2 * (SIZE_PX // 8) ** 2 + 2 * (ROW * (SIZE_PX // 16) + COLUMN)  # the smaller of two: 64 px
    conf[:, 0] = 20
    conf[anchor] = 0, np.log(4)
    loc[anchor] = 1, -0.5, 0.5, -1
    landms[anchor] = np.arange(10) - 5
    path = tmp_path / "r.onnx"
    save_scripted(path, [("loc", loc), ("conf", conf), ("landms", landms)], (1, 3, SIZE_PX, SIZE_PX), (1,), "input0")
    if is_probability:
        import onnx

        model = onnx.load(path)
        node = next(node for node in model.graph.node if "conf" in node.output)
        node.CopyFrom(onnx.helper.make_node("Softmax", node.input, node.output, axis=2))
        onnx.save(model, path)
    face = one_face(detect("retinaface", path)[0])
    cx, cy = (COLUMN + 0.5) * 16 + 6.4, (ROW + 0.5) * 16 - 3.2
    w, h = 64 * np.exp(0.1), 64 * np.exp(-0.2)
    points = [(index - 5) * 6.4 + ((ROW if index % 2 else COLUMN) + 0.5) * 16 for index in range(10)]
    np.testing.assert_allclose(face, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, 0.8, *points], rtol=1e-4)


@pytest.mark.parametrize("shape_hw", [(128, 192), (192, 128)], ids=["wide", "high"])
@pytest.mark.parametrize("pack", ["yunet", "scrfd", "retinaface"])
def test_oblong_networks_see_the_square_picture_at_their_top_left(tmp_path: Path, pack: str, shape_hw: tuple[int, int]) -> None:
    """The face is the same one as above; only the number of its cell depends on the width."""
    height, width = shape_hw
    cell = ROW * (width // 16) + COLUMN
    counts = {s: (height // s) * (width // s) for s in (8, 16, 32)}
    if pack == "retinaface":
        loc, conf, landms = (np.zeros((2 * sum(counts.values()), size), np.float32) for size in (4, 2, 10))
        conf[:, 0] = 20
        conf[2 * counts[8] + 2 * cell] = 0, 9
        outputs = [("loc", loc), ("conf", conf), ("landms", landms)]
        expected = [56 - 32, 88 - 32, 56 + 32, 88 + 32]
    elif pack == "yunet":
        sizes = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
        parts = {f"{name}_{s}": np.zeros((counts[s], n), np.float32) for name, n in sizes.items() for s in counts}
        parts["cls_16"][cell] = parts["obj_16"][cell] = 0.9
        outputs, expected = list(parts.items()), [48 - 8, 80 - 8, 48 + 8, 80 + 8]
    else:
        parts = {f"{name}_{s}": np.zeros((2 * counts[s], n), np.float32) for name, n in {"score": 1, "bbox": 4, "kps": 10}.items() for s in counts}
        parts["score_16"][2 * cell], parts["bbox_16"][2 * cell] = 0.9, 1
        outputs, expected = list(parts.items()), [48 - 16, 80 - 16, 48 + 16, 80 + 16]
    path = save_scripted(tmp_path / "oblong.onnx", outputs, (1, 3, height, width), (1,))
    faces, _ = detect(pack, path, size_px=None)
    np.testing.assert_allclose(one_face(faces)[:4], expected, rtol=1e-5)


def test_ultraface(tmp_path: Path) -> None:
    scores = np.tile(np.array([1, 0], np.float32), (4420, 1))
    boxes = np.zeros((4420, 4), np.float32)
    scores[77] = 0.1, 0.9
    boxes[77] = 0.25, 0.5, 0.5, 0.75
    path = save_scripted(tmp_path / "u.onnx", [("scores", scores), ("boxes", boxes)], (1, 3, 240, 320), (1,))
    faces, parameters = detect("ultraface", path, size_px=None)
    np.testing.assert_allclose(one_face(faces), [160, 320, 320, 480, 0.9] + [0] * 10, rtol=1e-5)
    assert parameters["landmarks"] == "none"


@pytest.fixture(scope="module")
def chooser() -> onnxruntime.InferenceSession:
    graph = Graph("choose")
    rows = graph.input("rows", FLOAT, ["N", 300, 15])
    finish_detector(graph, rows.slice(2, 0, 4), rows.slice(2, 4, 5), rows.slice(2, 5, 15), 0.3, 0.4)
    return onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])


@given(seed=st.integers(0, 2**32 - 1), crowding=st.floats(5, 400))
@settings(max_examples=40)
def test_choice_is_the_textbooks_greedy_one(chooser: onnxruntime.InferenceSession, seed: int, crowding: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, crowding, (2, 300, 2))
    sides = random.uniform(10, 60, (2, 300, 2)) * random.choice([1, 1, -1], (2, 300, 2))  # networks may answer corners the wrong way round
    rows = np.concatenate([corners, corners + sides, random.uniform(0, 1, (2, 300, 11))], axis=2).astype(np.float32)
    found = chooser.run(None, {"rows": rows})[0]
    for item, faces in zip(rows, found, strict=True):
        np.testing.assert_array_equal(faces, choose_faces(item, 0.3, 0.4))
        assert (np.diff(faces[:, 4]) <= 0).all()
        assert not faces[faces[:, 4] == 0].any()
