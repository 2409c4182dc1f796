"""The client against the real Triton, and its error map against everything gRPC can say."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import onnx
import psutil
import pytest
from onnx import helper
from tritonclient.utils import InferenceServerException

from deploy.local.server import LocalTriton
from orchestrator import errors
from orchestrator.api.metrics import TritonCollector
from orchestrator.inference import client as client_module
from orchestrator.inference.client import TritonClient
from orchestrator.inference.detector import FaceDetector
from orchestrator.inference.golden import LANDMARKS5, POINT_TOLERANCE, golden_inputs
from orchestrator.inference.lip_model import LipModel
from orchestrator.inference.selftest import check_ready, self_test
from orchestrator.inference.translate import translate_errors
from orchestrator.settings import Settings
from preprocess.orientation import UPRIGHT
from tests.programs import wait_until


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        ("StatusCode.DEADLINE_EXCEEDED", "Deadline Exceeded", errors.InferenceTimeout),
        ("StatusCode.UNAVAILABLE", "failed to connect to all addresses", errors.InferenceUnavailable),
        ("StatusCode.UNAVAILABLE", "Exceeds maximum queue size", errors.InferenceOverloaded),
        ("StatusCode.UNAVAILABLE", "Request timeout expired", errors.InferenceOverloaded),
        ("StatusCode.NOT_FOUND", "Request for unknown model: 'x' is not found", errors.ContractMismatch),
        ("StatusCode.NOT_FOUND", "Request for unknown model: 'x' has no available versions", errors.InferenceUnavailable),
        ("StatusCode.CANCELLED", "CANCELLED", errors.InferenceUnavailable),
        ("StatusCode.INVALID_ARGUMENT", "unexpected shape for input", errors.InferenceRejected),
        ("StatusCode.INTERNAL", "onnx runtime error", errors.InferenceRejected),
        (None, "unable to parse", errors.InferenceRejected),
        (
            "StatusCode.INTERNAL",
            "shared memory size specified with the request for output 'faces' (2880 bytes) should be at least 4800 bytes to hold the results",
            errors.InferenceUnavailable,
        ),
    ],
)
def test_each_of_tritons_errors_becomes_one_of_ours(status: str | None, message: str, expected: type[errors.RenderError]) -> None:
    with pytest.raises(errors.InferenceError) as caught, translate_errors("host:1"):
        raise InferenceServerException(message, status=status)
    assert type(caught.value) is expected
    assert "host:1" in str(caught.value) and str(caught.value).endswith(".")


def test_self_test_passes_on_the_projects_models(client: TritonClient) -> None:
    assert set(self_test(client).roles) == {"face_detector", "lip_sync", "voice_activity"}


def test_requests_from_many_threads_each_get_their_own_answer(client: TritonClient) -> None:
    lip_model = LipModel(client)
    silence = np.full((80, 16), -4.0, np.float32)
    results: dict[int, Future[np.ndarray[Any, np.dtype[np.uint8]]]] = {}

    def ask(level: int) -> None:
        results[level] = lip_model.generate([np.full((lip_model.size_px, lip_model.size_px, 3), level, np.uint8)], [silence])

    threads = [threading.Thread(target=ask, args=(level,)) for level in range(10, 200, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for level, future in results.items():
        assert (future.result() == level).all(), "a flat picture stays flat"


def test_wrong_shape_is_rejected_and_the_client_lives_on(client: TritonClient) -> None:
    with pytest.raises(errors.InferenceRejected):
        client.infer("face_detector", {"image": np.zeros((1, 3, 3, 3), np.uint8)}, "faces").result()
    assert FaceDetector(client).detect(np.zeros((1, 384, 384, 3), np.uint8)).result().shape == (1, 16, 15)


def test_pictures_of_different_shapes_at_the_same_time_each_get_their_own_faces(client: TritonClient) -> None:
    detector = FaceDetector(client)
    picture = golden_inputs(detector.description, 1)["image"][0]
    shapes = [detector.letterbox(size_wh, UPRIGHT).canvas_wh for size_wh in ((1920, 1080), (1080, 1920), (640, 640), (320, 2400))]
    assert shapes == [(384, 224), (224, 384), (384, 384), (96, 384)]
    images = [np.ascontiguousarray(cv2.resize(picture, (min(shape), min(shape)), interpolation=cv2.INTER_AREA), np.uint8) for shape in shapes]
    images = [
        np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)))
        for image, (width, height) in zip(images, shapes, strict=True)
    ]
    futures = [detector.detect(np.stack([image] * count)) for count in (1, 3) for image in images]
    for future, image in zip(futures, [*images, *images], strict=True):
        points = future.result()[:, 0, 5:].reshape(-1, 5, 2) / min(image.shape[:2])
        assert np.abs(points - np.asarray(LANDMARKS5)).max() < POINT_TOLERANCE


def test_open_sizes_have_to_say_how_large_they_may_be(client: TritonClient, monkeypatch: pytest.MonkeyPatch) -> None:
    config = client.config("face_detector")
    del config["parameters"]["largest_px"]
    monkeypatch.setattr(client, "config", lambda model: config)
    with pytest.raises(errors.ContractMismatch, match=r"expected input image UINT8 \[S, S, 3\], found image UINT8 \[-1, -1, 3\]"):
        FaceDetector(client)


def test_model_that_does_not_fit_its_role_is_refused_with_expected_and_found(tmp_path: Path) -> None:
    """A float model under the name of the lip model: the mistake that used to end in garbage frames."""
    settings = Settings(device="cpu")
    face = helper.make_tensor_value_info("face", onnx.TensorProto.FLOAT, ["N", 3, 96, 96])
    mouth = helper.make_tensor_value_info("mouth", onnx.TensorProto.FLOAT, ["N", 3, 96, 96])
    graph = helper.make_graph([helper.make_node("Identity", ["face"], ["mouth"])], "wrong", [face], [mouth])
    place = tmp_path / "lip_sync"
    (place / "1").mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), place / "1" / "model.onnx")
    (place / "config.pbtxt").write_text(
        'name: "lip_sync"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'
        'input [ { name: "face", data_type: TYPE_FP32, dims: [3, 96, 96] } ]\n'
        'output [ { name: "mouth", data_type: TYPE_FP32, dims: [3, 96, 96] } ]\n'
        "instance_group [ { kind: KIND_CPU } ]\n"
    )
    with LocalTriton.start(settings.triton_home, tmp_path) as server, TritonClient(server.grpc_address) as client:
        with pytest.raises(errors.ContractMismatch) as caught:
            LipModel(client)
        assert "expected input face UINT8 [S, S, 3], found face FP32 [3, 96, 96]" in str(caught.value)
        assert "expected input audio FP32" in str(caught.value)
        with pytest.raises(errors.ContractMismatch, match="face_detector"):
            FaceDetector(client)


def test_triton_that_dies_fails_the_request_and_hangs_nobody() -> None:
    settings = Settings(device="cpu")
    server = LocalTriton.start(settings.triton_home, settings.model_repository)
    with TritonClient(server.grpc_address) as client:
        detector = FaceDetector(client)
        futures = [detector.detect(np.zeros((8, 384, 384, 3), np.uint8)) for _ in range(4)]
        server.stop()
        outcomes = [future.exception(timeout=30) for future in futures]
        assert all(outcome is None or isinstance(outcome, errors.InferenceError) for outcome in outcomes)
        with pytest.raises(errors.InferenceUnavailable):
            detector.detect(np.zeros((1, 384, 384, 3), np.uint8)).result(timeout=30)


def test_triton_that_is_told_to_end_refuses_nothing_for_good(own_tritonservers: Callable[[], list[psutil.Process]]) -> None:
    """It lets go of its models before it stops to answer, which was taken for a Triton without them: no job tries that again."""
    settings = Settings(device="cpu")
    met: list[errors.RenderError] = []
    with LocalTriton.start(settings.triton_home, settings.model_repository) as server, TritonClient(server.grpc_address) as client:
        detector, images = FaceDetector(client), np.zeros((1, 384, 384, 3), np.uint8)
        [triton] = own_tritonservers()
        is_gone = threading.Event()

        def ask(question: Callable[[], object]) -> None:
            while not is_gone.is_set():
                try:
                    question()
                except errors.RenderError as exc:
                    met.append(exc)

        questions = (lambda: detector.detect(images).result(), lambda: FaceDetector(client), lambda: check_ready(client))
        threads = [threading.Thread(target=ask, args=(question,)) for question in 2 * questions]
        for thread in threads:
            thread.start()
        triton.terminate()
        wait_until(lambda: server.poll() is not None, "Triton has ended")
        is_gone.set()
        for thread in threads:
            thread.join()
    assert {type(error) for error in met} == {errors.InferenceUnavailable}


def test_requests_under_way_when_the_client_goes_to_another_triton_end_by_themselves(triton: LocalTriton) -> None:
    """Closing their channel once ended them as refused, which no job tries again."""
    with TritonClient(triton.grpc_address) as client:
        detector = FaceDetector(client)
        futures = [detector.detect(np.zeros((8, 384, 384, 3), np.uint8)) for _ in range(4)]
        client.reconnect(triton.grpc_address)
        assert [future.result(timeout=30).shape for future in futures] == [(8, 16, 15)] * 4


def test_no_answer_is_taken_for_a_while_after_a_models_process_was_given_up(client: TritonClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine stood still, Triton's Python backend gives requests the answers of others until it is started again."""
    gone = InferenceServerException("Stub process 'lip_sync_0_1' is not healthy.", status="StatusCode.INTERNAL")
    with TritonClient(client.address) as ours:
        detector = FaceDetector(ours)
        images = np.zeros((1, 384, 384, 3), np.uint8)
        assert not ours._shared[0].has_answered(gone)
        with pytest.raises(errors.InferenceUnavailable, match="not in time"):
            detector.detect(images).result()
        assert not ours.is_server_ready(), "else a render would use its attempts up meanwhile"
        ours.reconnect(client.address)
        assert ours.is_server_ready()
        assert detector.detect(images).result().shape == (1, 16, 15), "another Triton"
        monkeypatch.setattr(client_module, "DISTRUST_S", 0.0)
        assert not ours._shared[0].has_answered(gone)
        assert detector.detect(images).result().shape == (1, 16, 15)


def test_metrics_ask_triton_for_all_models_at_once(triton: LocalTriton) -> None:
    with TritonClient(triton.grpc_address) as own:
        with mock.patch.object(own._shared[0].grpc, "_client_stub", wraps=own._shared[0].grpc._client_stub) as asked:
            metrics = {metric.name: metric for metric in TritonCollector(own).collect()}
        calls = [call[0] for call in asked.method_calls]
    models = {sample.labels["model"] for sample in metrics["lipsync_triton_inferences"].samples}
    assert {"face_detector", "lip_sync", "voice_activity"} <= models
    assert sorted(calls) == ["ModelStatistics", "ServerReady"]
