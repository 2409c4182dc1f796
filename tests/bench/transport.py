"""(b) What Triton costs: its inferences over the same ones by ONNX Runtime inside the process; and shared memory over gRPC by size of crop."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from orchestrator.inference.client import TritonClient
from orchestrator.inference.lip_model import LipModel
from orchestrator.models.config import ModelConfig, Tensor
from tests.bench.calls import call_for, in_process
from tests.bench.scores import Figure
from tests.bench.workbench import Workbench, ratios, side_by_side

LIMIT = (
    "Below 1 only where two instances fill the cores better than one session's threads do. Copies in and out and Triton's own work, about 0.1 ms a "
    "frame at 256 px, are what a model of no cost would show."
)
TRANSPORT_LIMIT = "Both ways copy a crop into Triton's process and back; shared memory leaves out protobuf and the socket. A model that only copies."
CROPS_PX = (96, 256, 512)


def measure(bench: Workbench) -> Iterator[Figure]:
    """Measure both models, then both ways for tensors."""
    yield _against_onnxruntime(bench, "mouth-warp", bench.client, bench.settings.model_repository)
    yield _against_onnxruntime(bench, "wav2lip-96", bench.dear_client, bench.dear_repository)
    for size_px in CROPS_PX:
        yield _shared_memory(bench, size_px)


def _against_onnxruntime(bench: Workbench, name: str, client: TritonClient, repository: Path) -> Figure:
    seconds, model = bench.effort.model_s, LipModel(client)
    direct = in_process(repository, client)
    triton, process = side_by_side(bench.effort.rounds, lambda: call_for(model, seconds), lambda: direct(seconds))
    detail = {
        "triton_ms_per_frame": [round(1e3 * each, 3) for each in triton],
        "onnxruntime_ms_per_frame": [round(1e3 * each, 3) for each in process],
        "transport": client.transport,
    }
    return Figure(f"b/{name}", ratios(triton, process), "lower", 1.03, LIMIT, detail)


def _shared_memory(bench: Workbench, size_px: int) -> Figure:
    seconds = bench.effort.model_s / 2
    address = bench.serve(write_copier(bench.folder / f"copier-{size_px}", size_px)).address
    with TritonClient(address, transport="shared_memory") as shared, TritonClient(address, transport="grpc") as grpc:
        by_memory, by_grpc = LipModel(shared), LipModel(grpc)
        memory, messages = side_by_side(bench.effort.rounds, lambda: call_for(by_memory, seconds), lambda: call_for(by_grpc, seconds))
    detail = {
        "shared_memory_ms_per_frame": [round(1e3 * each, 4) for each in memory],
        "grpc_ms_per_frame": [round(1e3 * each, 4) for each in messages],
    }
    return Figure(f"b/shared-memory-over-grpc/{size_px}px", ratios(memory, messages), "lower", None, TRANSPORT_LIMIT, detail)


def write_copier(repository: Path, size_px: int) -> Path:
    """Write a repository with a lip model that returns the face it was given."""
    face = helper.make_tensor_value_info("face", TensorProto.UINT8, ["N", size_px, size_px, 3])
    audio = helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["N", 1, 80, 16])
    output = helper.make_tensor_value_info("mouth", TensorProto.UINT8, ["N", size_px, size_px, 3])
    nodes = [
        helper.make_node("ReduceMax", ["audio"], ["loudest"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["loudest", "nothing"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["zero_byte"], to=TensorProto.UINT8),
        helper.make_node("Max", ["face", "zero_byte"], ["mouth"]),
    ]
    nothing = helper.make_tensor("nothing", TensorProto.FLOAT, [], [0.0])
    graph = helper.make_graph(nodes, "copier", [face, audio], [output], [nothing])
    folder = repository / "lip_sync"
    (folder / "1").mkdir(parents=True)
    (folder / "configs").mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "1" / "model.onnx")
    config = ModelConfig(
        "lip_sync",
        (Tensor("face", "TYPE_UINT8", (size_px, size_px, 3)), Tensor("audio", "TYPE_FP32", (1, 80, 16))),
        (Tensor("mouth", "TYPE_UINT8", (size_px, size_px, 3)),),
        8,
        0,
        {"crop_template": "lower_face", "audio_frontend": "wav2lip_mel", "paste_region": "0,0,1,1"},
    )
    (folder / "config.pbtxt").write_text(config.to_pbtxt("gpu"))
    (folder / "configs" / "cpu.pbtxt").write_text(config.to_pbtxt("cpu"))
    return repository
