"""The detector's graph against a plain reading of the network's own maps, and on a photograph."""

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from orchestrator.models.repository import read_versions
from orchestrator.settings import Settings

SIZE_PX = 384


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    versions = [version for version in read_versions(Settings().model_repository, "face_detector") if version.pack == "centerface"]
    return onnx.load(versions[-1].folder / "model.onnx")


@pytest.fixture(scope="module")
def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=[(SIZE_PX, SIZE_PX), (224, SIZE_PX), (SIZE_PX, 224)], ids=["square", "landscape", "portrait"])
def shape_hw(request: pytest.FixtureRequest) -> tuple[int, int]:
    height, width = request.param
    return height, width


@pytest.fixture(scope="module")
def picture(portrait: NDArray[np.uint8], shape_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the portrait at the top left of a picture of another shape, its face whole."""
    small = cv2.resize(portrait, (min(shape_hw), min(shape_hw)), interpolation=cv2.INTER_AREA)
    whole = np.zeros((*shape_hw, 3), np.uint8)
    whole[: small.shape[0], : small.shape[1]] = small
    return whole


@pytest.fixture(scope="module")
def portrait() -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(astronaut(), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def test_finds_the_astronauts_face_and_its_five_points(session: onnxruntime.InferenceSession, picture: NDArray[np.uint8]) -> None:
    (faces,) = session.run(None, {"image": picture[None]})[0]
    assert faces.shape == (16, 15)
    assert faces[0, 4] > 0.8
    assert not faces[1:].any(), "one face, and zero rows behind it"
    # By eye, in the 512 px photograph: eyes, tip of the nose, corners of the mouth.
    by_eye = np.array([[203, 101], [248, 103], [224, 124], [204, 144], [242, 145]], np.float32)
    assert np.abs(faces[0, 5:].reshape(5, 2) * 512 / min(picture.shape[:2]) - by_eye).max() < 6


def test_decodes_the_maps_as_the_networks_author_does(
    model: onnx.ModelProto, session: onnxruntime.InferenceSession, picture: NDArray[np.uint8]
) -> None:
    names = [f"network.{name}" for name in (537, 538, 539, 540)]
    network = onnx.ModelProto()
    network.CopyFrom(model)
    network.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    heat, scale, offset, points = onnxruntime.InferenceSession(network.SerializeToString()).run(names, {"image": picture[None]})
    row, column = np.unravel_index(heat[0, 0].argmax(), heat.shape[2:])
    h, w = np.exp(scale[0, :, row, column]) * 4
    y1 = (row + offset[0, 0, row, column] + 0.5) * 4 - h / 2
    x1 = (column + offset[0, 1, row, column] + 0.5) * 4 - w / 2
    expected = [x1, y1, x1 + w, y1 + h, heat[0, 0, row, column]]
    for point in range(5):
        expected += [x1 + points[0, 2 * point + 1, row, column] * w, y1 + points[0, 2 * point, row, column] * h]
    np.testing.assert_allclose(session.run(None, {"image": picture[None]})[0][0, 0], expected, rtol=1e-4, atol=1e-3)


def test_picture_without_its_black_rows_shows_the_same_face(session: onnxruntime.InferenceSession, portrait: NDArray[np.uint8]) -> None:
    square = np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8)
    square[:216] = portrait[:216]
    whole, cut = (session.run(None, {"image": image[None]})[0][0, 0] for image in (square, square[:224]))
    assert np.abs(whole[5:] - cut[5:]).max() < 1.0 and abs(whole[4] - cut[4]) < 0.02


def test_two_faces_come_best_first_and_each_item_of_a_batch_equals_its_own_run(
    session: onnxruntime.InferenceSession, portrait: NDArray[np.uint8]
) -> None:
    half = cv2.resize(portrait, (SIZE_PX // 2, SIZE_PX // 2), interpolation=cv2.INTER_AREA)
    pair = np.full_like(portrait, 127)
    pair[: SIZE_PX // 2] = np.hstack([half, half[:, ::-1]])
    batch = np.stack([portrait, pair, np.zeros_like(portrait)])
    together = session.run(None, {"image": batch})[0]
    for item, alone in zip(together, batch, strict=True):
        np.testing.assert_allclose(item, session.run(None, {"image": alone[None]})[0][0], atol=1e-3)
    assert (together[1, :3, 4] > 0).tolist() == [True, True, False]
    assert together[1, 0, 4] >= together[1, 1, 4]
    assert not together[2].any()
