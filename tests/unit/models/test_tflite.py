"""TFLite networks as ONNX: against TensorFlow Lite's own interpreter, and MediaPipe's custom operators against plain numpy."""

from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from orchestrator.errors import InputError, UnreadableModel, UnsuitableModel
from orchestrator.models.graph import FLOAT, Graph
from orchestrator.models.lip_lines import SOURCE_MEMBER, SOURCE_PACKAGE
from orchestrator.models.mediapipe_operators import cut_out, landmarks_to_transform, transform_landmarks
from orchestrator.models.network import read_network
from orchestrator.models.sources import package_member
from orchestrator.models.tflite import TfliteNetwork

MESH = SOURCE_MEMBER.replace("_with_attention", "")


def _run(graph: Graph, **inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value, np.float32) for value in session.run(None, inputs)]


@pytest.fixture(scope="module")
def mesh() -> bytes:
    with package_member(SOURCE_PACKAGE, MESH) as file:
        return file.read_bytes()


def test_mesh_equals_tensorflow_lites_interpreter(mesh: bytes, portrait: NDArray[np.uint8]) -> None:
    image = np.asarray(cv2.resize(portrait, (192, 192), interpolation=cv2.INTER_AREA), np.float32) / 255
    interpreter = Interpreter(model_content=mesh)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    expected = [interpreter.get_tensor(detail["index"]).ravel() for detail in interpreter.get_output_details()]

    graph = Graph("mesh")
    landmarks, face = TfliteNetwork(mesh).append_to(graph, graph.input("image", FLOAT, ["N", 3, 192, 192]), ["conv2d_21", "conv2d_31"])
    graph.output(landmarks, "landmarks", FLOAT, ["N", 1404, 1, 1])
    graph.output(face, "face", FLOAT, ["N", 1, 1, 1])
    found = _run(graph, image=np.stack([image.transpose(2, 0, 1)] * 2))
    for values, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(values.reshape(2, -1), np.stack([reference] * 2), rtol=1e-4, atol=1e-2)


def test_cut_out_is_turned_with_the_landmarks_and_holds_them_with_room_around() -> None:
    angle = np.deg2rad(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # A rectangle of 8 x 4 around (20, 25), turned; the first two points lie along its longer side.
    corners = (turn @ np.array([[-4, -2], [4, -2], [4, 2], [-4, 2]]).T).T + np.array([20, 25])
    graph = Graph("transform")
    landmarks = graph.input("landmarks", FLOAT, ["N", 4, 3])
    options = {"left_rotation_idx": 0, "right_rotation_idx": 1, "subset_idxs": [0, 1, 2, 3]} | {
        "scale_x": 1.5, "scale_y": 2.0, "output_width": 16, "output_height": 16
    }  # fmt: skip
    graph.output(landmarks_to_transform(graph, options, landmarks), "transform", FLOAT, ["N", 2, 4])
    (transform,) = _run(graph, landmarks=np.concatenate([corners, np.ones((4, 1))], axis=1)[None].astype(np.float32))
    edges = np.array([[0, 0, 0, 1], [16, 0, 0, 1], [16, 16, 0, 1], [0, 16, 0, 1]], np.float32)
    expected = (turn @ np.array([[-6, -4], [6, -4], [6, 4], [-6, 4]]).T).T + np.array([20, 25])
    np.testing.assert_allclose(edges @ transform[0].T, expected, atol=1e-4)


def test_cut_out_shows_the_features_at_the_mapped_places() -> None:
    graph = Graph("cut out")
    features, transform = graph.input("features", FLOAT, ["N", 2, 48, 48]), graph.input("transform", FLOAT, ["N", 2, 4])
    graph.output(cut_out(graph, {"output_height": 4, "output_width": 4}, features, transform), "cut", FLOAT, ["N", 2, 4, 4])
    rows, columns = np.mgrid[0:48, 0:48] + 0.5  # positions of pixel centres, as MediaPipe counts them
    matrix = np.array([[[0.5, 0.25, 0, 10], [-0.25, 0.5, 0, 30]]], np.float32)
    (cut,) = _run(graph, features=np.stack([columns, rows])[None].astype(np.float32), transform=matrix)
    for row, column in np.ndindex(4, 4):
        np.testing.assert_allclose(cut[0, :, row, column], matrix[0] @ (column + 0.5, row + 0.5, 0, 1), atol=1e-4)


def test_landmarks_go_back_to_the_picture() -> None:
    graph = Graph("back")
    landmarks, transform = graph.input("landmarks", FLOAT, ["N", 2, 2]), graph.input("transform", FLOAT, ["N", 2, 4])
    graph.output(transform_landmarks(graph, {}, landmarks, transform), "points", FLOAT, ["N", 2, 2])
    matrix = np.array([[[2, 0, 0, 1], [0, 3, 0, -1]]], np.float32)
    (points,) = _run(graph, landmarks=np.array([[[1, 1], [0, 5]]], np.float32), transform=matrix)
    np.testing.assert_allclose(points[0], [[3, 2], [1, 14]])


def test_other_bytes_and_other_networks_are_refused(mesh: bytes) -> None:
    with pytest.raises(InputError, match="not a TFLite model"):
        TfliteNetwork(b"0123456789")
    graph = Graph("other")
    with pytest.raises(InputError, match="no tensor output_lips"):
        TfliteNetwork(mesh).append_to(graph, graph.input("image", FLOAT, ["N", 3, 192, 192]), ["output_lips"])


def test_file_as_a_whole_is_read_like_an_onnx_network(mesh: bytes, tmp_path: Path) -> None:
    path = tmp_path / "face_landmark.tflite"
    path.write_bytes(mesh)
    assert read_network(path).describe() == [
        "input input_1 FLOAT [N, 3, 192, 192]", "output conv2d_21 FLOAT [N, 1404]", "output conv2d_31 FLOAT [N, 1]"
    ]  # fmt: skip
    for cut in (8, 100, len(mesh) // 2):
        path.write_bytes(mesh[:cut])
        with pytest.raises((UnreadableModel, UnsuitableModel)):
            read_network(path)
