"""The self-test on the real Triton, what it refuses, and what it makes of GPUs that only a stand-in's metrics show."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from prometheus_client import CollectorRegistry, generate_latest

from deploy.local.server import LocalTriton
from orchestrator.api.metrics import TritonCollector
from orchestrator.errors import ContractMismatch, GpuUnavailable
from orchestrator.inference import selftest
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_DETECTOR, FACE_ENHANCER, FACE_LANDMARKS, LIP_SYNC, VOICE_ACTIVITY, describe_model
from orchestrator.inference.golden import LANDMARKS5, check_golden, golden_crop, golden_inputs
from orchestrator.inference.placement import UNKNOWN
from orchestrator.inference.selftest import check_proof, self_test, watch_gpus
from orchestrator.models.config import ModelConfig, Tensor
from orchestrator.settings import Device, Settings
from tests.web import web_server


@contextmanager
def metrics_with_gpu(utilisation: list[float]) -> Iterator[str]:
    """Serve metrics of a Triton with a GPU, one reading after the other, the last for ever; give the address."""
    readings = iter(utilisation)
    last = [utilisation[-1]]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            last[0] = next(readings, last[0])
            body = f'# TYPE nv_gpu_utilization gauge\nnv_gpu_utilization{{gpu_uuid="GPU-stand-in"}} {last[0]}\n'.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with web_server(Handler) as url:
        yield url.removeprefix("http://")


def test_each_role_tells_pack_licence_device_provider_and_speed(triton: LocalTriton) -> None:
    with TritonClient(triton.grpc_address, metrics_address=triton.metrics_address) as client:
        found = self_test(client, "cpu")
    assert found.server == "Triton 2.51.0"
    assert {role: (status.pack, status.licence) for role, status in found.roles.items()} == {
        FACE_DETECTOR: ("centerface", "MIT"),
        LIP_SYNC: ("mouth-warp", "Apache-2.0"),
        VOICE_ACTIVITY: ("silero", "MIT"),
    }
    for status in found.roles.values():
        assert (status.device, status.instance_count, status.max_batch_size, status.test_batch_size) == ("CPU", 2, 8, 8)
        assert status.execution_provider == "CPUExecutionProvider"
        assert status.provider_source == "reported by the backend, from a trial run"
        assert status.operators["CPUExecutionProvider"] > 50
        assert status.ms_per_item_batch_1 > 0 and status.ms_per_item_batch_max > 0
        assert status.execution_count >= 8, "one whole batch, two single items, three timed runs of each"
        assert status.notes == ()
    assert found.gpu_utilisation == {} and found.notes == ()


def test_service_shows_how_busy_tritons_gpus_are(triton: LocalTriton) -> None:
    with metrics_with_gpu([0.37]) as address, TritonClient(triton.grpc_address, metrics_address=address) as client:
        registry = CollectorRegistry()
        registry.register(TritonCollector(client))
        assert 'lipsync_gpu_utilization{gpu="GPU-stand-in"} 0.37' in generate_latest(registry).decode()


def test_without_metrics_the_self_test_passes_and_says_what_it_cannot_know(triton: LocalTriton) -> None:
    with TritonClient(triton.grpc_address, metrics_address="127.0.0.1:1") as client:
        found = self_test(client)
    assert found.notes == ("no metrics at 127.0.0.1:1: utilisation and execution providers cannot be read",)
    assert found.roles[LIP_SYNC].provider_source == "by configuration: CPU instances have no other"


@pytest.mark.parametrize("wanted", ["gpu", "tensorrt"])
def test_cpu_instances_are_refused_where_a_gpu_is_asked_for(client: TritonClient, wanted: Device) -> None:
    with pytest.raises(GpuUnavailable, match=rf"face_detector runs on the CPU though device {wanted} is asked for: its instances are KIND_CPU"):
        self_test(client, wanted)


def test_cpu_instances_beside_a_gpu_are_refused_unless_the_cpu_is_asked_for(triton: LocalTriton) -> None:
    with metrics_with_gpu([0.0]) as address, TritonClient(triton.grpc_address, metrics_address=address) as client:
        with pytest.raises(GpuUnavailable, match=r"runs on the CPU though Triton at .* sees GPU-stand-in"):
            self_test(client, "auto")
        assert self_test(client, "cpu").roles[LIP_SYNC].device == "CPU"


def test_gpu_at_work_is_seen_while_models_run(triton: LocalTriton) -> None:
    with metrics_with_gpu([0.0, 0.0, 0.42]) as address, TritonClient(triton.grpc_address, metrics_address=address) as client:
        assert watch_gpus(client, [LIP_SYNC]) == {"GPU-stand-in": 0.42}


def test_gpu_that_stays_idle_is_seen(triton: LocalTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "GPU_PROOF_S", 0.5)
    with metrics_with_gpu([0.0]) as address, TritonClient(triton.grpc_address, metrics_address=address) as client:
        assert watch_gpus(client, [LIP_SYNC]) == {"GPU-stand-in": 0.0}


def test_gpus_that_show_no_work_are_an_error_unless_the_backend_saw_the_models_run_there(client: TritonClient) -> None:
    status = replace(self_test(client).roles[LIP_SYNC], device="GPU", execution_provider="CUDAExecutionProvider")
    assert check_proof("host:8001", {LIP_SYNC: status}, {"GPU-1": 0.0, "GPU-2": 0.4}) == []
    assert "it cannot on MIG" in check_proof("host:8001", {LIP_SYNC: status}, {})[0]
    assert "though its backend saw the models' operators run on one" in check_proof("host:8001", {LIP_SYNC: status}, {"GPU-1": 0.0})[0]
    unproven = replace(status, execution_provider=UNKNOWN)
    with pytest.raises(GpuUnavailable, match=r"Triton at host:8001 has lip_sync on GPU instances, but no GPU showed any work within 6 s"):
        check_proof("host:8001", {FACE_DETECTOR: status, LIP_SYNC: unproven}, {"GPU-1": 0.0})


def faces_with(points: object, box: tuple[float, ...] = (0.35, 0.23, 0.66, 0.61)) -> np.ndarray[Any, np.dtype[np.float32]]:
    row = np.zeros((1, 1, 15), np.float32)
    row[0, 0, :5] = (*box, 0.9)
    row[0, 0, 5:] = np.ravel(np.asarray(points, np.float32))
    return row * 100


def test_detector_has_to_find_the_golden_face_and_its_points() -> None:
    assert check_golden(FACE_DETECTOR, 100, {}, faces_with(LANDMARKS5)) == []
    assert "face_landmarks role" in check_golden(FACE_DETECTOR, 100, {}, faces_with(np.zeros((5, 2))))[0]
    with pytest.raises(ContractMismatch, match="expected the face of a portrait"):
        check_golden(FACE_DETECTOR, 100, {}, faces_with(LANDMARKS5, (0.0, 0.0, 0.1, 0.1)))
    with pytest.raises(ContractMismatch, match="expected eyes, nose and mouth corners within"):
        check_golden(FACE_DETECTOR, 100, {}, faces_with([point[::-1] for point in LANDMARKS5]))
    with pytest.raises(ContractMismatch, match="expected finite numbers"):
        check_golden(FACE_DETECTOR, 100, {}, faces_with(np.full((5, 2), np.nan)))


def test_lip_model_has_to_answer_with_a_picture_and_is_remarked_on_when_it_is_another() -> None:
    face = golden_crop(64, "ffhq_512")[None]
    assert check_golden(LIP_SYNC, 64, {"face": face}, face) == []
    assert "does not look like the face" in check_golden(LIP_SYNC, 64, {"face": face}, 255 - face)[0]
    with pytest.raises(ContractMismatch, match="expected a picture uint8"):
        check_golden(LIP_SYNC, 64, {"face": face}, np.zeros_like(face))


def test_golden_batch_begins_with_the_same_face_whatever_its_size(client: TritonClient) -> None:
    description = describe_model(client, LIP_SYNC)
    one, many = golden_inputs(description, 1), golden_inputs(description, 8)
    assert all((one[name][0] == many[name][0]).all() for name in one)
    assert len({many["face"][index].tobytes() for index in range(7)}) == 7


def model_folder(repository: Path, config: ModelConfig, graph: onnx.GraphProto) -> None:
    place = repository / config.role
    (place / "1").mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), place / "1" / "model.onnx")
    (place / "config.pbtxt").write_text(config.to_pbtxt("cpu"))


def test_optional_roles_are_tested_where_there_is_a_model(tmp_path: Path) -> None:
    settings = Settings(device="cpu")
    for role in (FACE_DETECTOR, LIP_SYNC):
        (tmp_path / role).symlink_to(settings.model_repository / role)
    info = helper.make_tensor_value_info
    picture = [info(name, TensorProto.UINT8, ["N", 64, 64, 3]) for name in ("face", "enhanced")]
    enhancer = ModelConfig(
        FACE_ENHANCER,
        (Tensor("face", "TYPE_UINT8", (64, 64, 3)),),
        (Tensor("enhanced", "TYPE_UINT8", (64, 64, 3)),),
        4,
        100,
        {"crop_template": "ffhq_512"},
    )
    model_folder(tmp_path, enhancer, helper.make_graph([helper.make_node("Identity", ["face"], ["enhanced"])], "same", picture[:1], picture[1:]))
    with LocalTriton.start(settings.triton_home, tmp_path) as server, TritonClient(server.grpc_address) as client:
        found = self_test(client)
    assert list(found.roles) == [FACE_DETECTOR, LIP_SYNC, FACE_ENHANCER]
    assert found.roles[FACE_ENHANCER].notes == ()


def test_landmarks_have_to_lie_on_the_crop() -> None:
    spread = np.random.default_rng(0).uniform(0.1, 0.9, (1, 98, 2)).astype(np.float32)
    assert check_golden(FACE_LANDMARKS, 64, {}, spread) == []
    for wrong in (spread * 112, np.full_like(spread, 0.5)):
        with pytest.raises(ContractMismatch, match="expected points over the crop"):
            check_golden(FACE_LANDMARKS, 64, {}, wrong)


def test_model_that_mixes_up_its_batch_is_refused(tmp_path: Path) -> None:
    """Its first item depends on the last: what a graph with a baked batch of one does after only its first dimension was renamed."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["face", "last", "end", "axis"], ["one"]),
            helper.make_node("Div", ["face", "two"], ["half"]),
            helper.make_node("Div", ["one", "two"], ["other"]),
            helper.make_node("Add", ["half", "other"], ["mouth"]),
        ],
        "mixer",
        [info("face", TensorProto.UINT8, ["N", 64, 64, 3]), info("audio", TensorProto.FLOAT, ["N", 1, 80, 16])],
        [info("mouth", TensorProto.UINT8, ["N", 64, 64, 3])],
        [
            helper.make_tensor("last", TensorProto.INT64, [1], [-1]),
            helper.make_tensor("end", TensorProto.INT64, [1], [2**31]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
            helper.make_tensor("two", TensorProto.UINT8, [], [2]),
        ],
    )
    config = ModelConfig(
        LIP_SYNC,
        (Tensor("face", "TYPE_UINT8", (64, 64, 3)), Tensor("audio", "TYPE_FP32", (1, 80, 16))),
        (Tensor("mouth", "TYPE_UINT8", (64, 64, 3)),),
        8,
        100,
        # On one thread so small a model runs item by item, and answers rightly.
        {"crop_template": "ffhq_512", "audio_frontend": "wav2lip_mel", "paste_region": "0,0,1,1", "intra_op_thread_count": "2"},
    )
    model_folder(tmp_path, config, graph)
    settings = Settings(device="cpu")
    (tmp_path / FACE_DETECTOR).symlink_to(settings.model_repository / FACE_DETECTOR)
    with (
        LocalTriton.start(settings.triton_home, tmp_path) as server,
        TritonClient(server.grpc_address) as client,
        pytest.raises(ContractMismatch, match="lip_sync answers an item differently alone and in a batch of 8"),
    ):
        self_test(client)
