"""What the onnxruntime backend makes of a configuration: providers, threads, and no silent fall-back to the CPU."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from deploy.local.install import BACKEND_SOURCE
from orchestrator.cores import available_cores
from tests.unit.test_cores import CGROUPS, QUOTAS, with_quota


class ModelError(Exception):
    """Stands for Triton's TritonModelException."""


@pytest.fixture(scope="module")
def backend() -> Any:
    """The backend, imported outside Triton."""
    utils = ModuleType("triton_python_backend_utils")
    utils.TritonModelException = ModelError  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("onnxruntime_backend", BACKEND_SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", utils)
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A model that negates."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negate",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "model.onnx"


def test_gpu_instance_gets_tensorrt_before_cuda_on_its_own_device(backend: Any) -> None:
    parameters = {"precision_mode": "FP16", "max_workspace_size_bytes": "1000", "trt_engine_cache_enable": "1", "trt_dla_enable": "false"}
    accelerators = [{"name": "tensorrt", "parameters": parameters}, {"name": "cuda", "parameters": {"gpu_mem_limit": "5"}}]
    config = {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": accelerators}}}
    assert backend.wanted_providers(config, "GPU", "3") == [
        (
            "TensorrtExecutionProvider",
            {
                "device_id": "3",
                "trt_max_workspace_size": "1000",
                "trt_engine_cache_enable": "True",
                "trt_dla_enable": "False",
                "trt_fp16_enable": "True",
            },
        ),
        ("CUDAExecutionProvider", {"device_id": "3", "gpu_mem_limit": "5"}),
    ]


def test_each_gpu_keeps_engines_of_its_own(backend: Any) -> None:
    parameters = {"trt_engine_cache_path": "engines", "trt_timing_cache_path": "engines"}
    config = {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt", "parameters": parameters}]}}}
    folders = [backend.wanted_providers(config, "GPU", device)[0][1]["trt_engine_cache_path"] for device in ("0", "1")]
    assert folders == ["engines", "engines-1"]
    assert backend.wanted_providers(config, "GPU", "1")[0][1]["trt_timing_cache_path"] == "engines-1"


def test_engine_that_tensorrt_does_not_read_is_built_anew(backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX Runtime 1.24 and 1.31 say it."""
    warnings: list[str] = []
    monkeypatch.setattr(backend.pb_utils, "Logger", SimpleNamespace(log_warn=warnings.append), raising=False)
    engine = tmp_path / "lip_sync_TRTKernel_0_sm89.engine"
    engine.write_bytes(b"cut off")
    failure = f"[ONNXRuntimeError] : 11 : EP_FAIL : TensorRT EP could not deserialize engine from cache: {engine}"

    def open_there() -> str:
        if engine.exists():
            raise RuntimeError(failure)
        return "opened"

    assert backend.without_stale_engines(open_there) == "opened"
    assert len(warnings) == 1 and str(engine) in warnings[0]
    engine.mkdir()
    with pytest.raises(RuntimeError, match="EP_FAIL"):
        backend.without_stale_engines(open_there)


def test_cpu_instance_gets_the_cpu_provider_whatever_the_accelerators(backend: Any) -> None:
    config = {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"name": "tensorrt"}]}}}
    assert backend.wanted_providers(config, "CPU", "0") == [("CPUExecutionProvider", {})]


def test_provider_that_is_not_built_in_is_an_error(backend: Any, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"CUDAExecutionProvider is not in the installed ONNX Runtime .*: install onnxruntime-gpu"):
        backend.open_session(model_file, backend.ort.SessionOptions(), [("CUDAExecutionProvider", {})])


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_provider_that_does_not_start_is_an_error(backend: Any, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "CUDAExecutionProvider" in backend.ort.get_available_providers():
        pytest.skip("ONNX Runtime has CUDA here")
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(backend.ort, "preload_dlls", lambda: None)
    with pytest.raises(
        ModelError,
        match=r"CUDAExecutionProvider did not start, .*libonnxruntime_providers_cuda.so: cannot open shared object file.*: install onnxruntime-gpu",
    ):
        backend.open_session(model_file, backend.ort.SessionOptions(), [("CUDAExecutionProvider", {})])


def test_provider_that_fails_is_an_error_with_its_cause_and_no_other_takes_over(
    backend: Any, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ONNX Runtime 1.31 for CUDA 13 says with a driver for CUDA 12, of which there is none here."""
    session = backend.open_session(model_file, backend.ort.SessionOptions(), [("CPUExecutionProvider", {})])

    def open_there(*_: Any, enable_fallback: int = 1, **__: Any) -> Any:
        if enable_fallback:
            return session
        raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient\nfor CUDA runtime version ; GPU=-1. ")

    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(backend.ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(backend.ort, "InferenceSession", open_there)
    monkeypatch.setattr(backend, "why_not", lambda _: "")
    with pytest.raises(ModelError, match=r"model.onnx cannot be opened on CUDAExecutionProvider: CUDA failure 35: .* insufficient for .*; GPU=-1\.$"):
        backend.open_session(model_file, backend.ort.SessionOptions(), [("CUDAExecutionProvider", {})])


def test_provider_that_fails_in_a_run_is_not_replaced_by_the_cpu(backend: Any, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = backend.open_session(model_file, backend.ort.SessionOptions(), [("CPUExecutionProvider", {})])
    inner = MagicMock(wraps=session._sess)
    inner.run.side_effect = EPFail("cuDNN has no memory")
    monkeypatch.setattr(session, "_sess", inner)
    with pytest.raises(EPFail, match="cuDNN has no memory"):
        session.run(None, {"x": np.zeros((1, 1), np.float32)})


@pytest.mark.parametrize(
    ("error", "ends"), [("CUDA failure 700: an illegal memory access was encountered", True), ("no memory for this batch", False)]
)
def test_process_ends_when_its_gpu_refuses_what_it_ran_before(backend: Any, error: str, ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded Triton is started again without it; this process would refuse every request from now on."""

    def run(names: list[str] | None, feed: dict[str, Any]) -> list[Any]:
        if ends or feed is not model.trial:
            raise RuntimeError(error)
        return []

    def leave(code: int) -> None:
        raise SystemExit(code)

    logged: list[str] = []
    utils = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: np.zeros((1, 1), np.float32)),
        Logger=SimpleNamespace(log_error=logged.append),
        InferenceResponse=lambda error: error,
        TritonError=str,
    )
    monkeypatch.setattr(backend, "pb_utils", utils)
    monkeypatch.setattr(backend, "NUMPY_2", False)
    monkeypatch.setattr(backend.os, "_exit", leave)
    model = backend.TritonPythonModel()
    model.batches, model.pace, model.input_names, model.output_names = True, None, ["x"], ["y"]
    model.session, model.trial = SimpleNamespace(run=run), {"x": np.zeros((1, 1), np.float32)}
    requests = [SimpleNamespace(requested_output_names=lambda: ["y"])] * 2
    if ends:
        with pytest.raises(SystemExit):
            model.execute(requests)
        assert len(logged) == 1 and error in logged[0]
    else:
        assert model.execute(requests) == [error, error] and not logged
    model.trial = None  # as of a model on a CPU
    assert model.execute(requests) == [error, error]


def test_parameters_reach_onnx_runtime(backend: Any) -> None:
    parameters = {"intra_op_thread_count": "3", "inter_op_thread_count": "2", "execution_mode": "1", "enable_mem_arena": "0"}
    parameters["session.intra_op.allow_spinning"] = "0"
    config = {
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
        "optimization": {"graph": {"level": 2}},
    }
    options = backend.session_options(config)
    assert (options.intra_op_num_threads, options.inter_op_num_threads, options.enable_cpu_mem_arena) == (3, 2, False)
    assert options.execution_mode == backend.ort.ExecutionMode.ORT_PARALLEL
    assert options.graph_optimization_level == backend.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_instances_share_the_cores(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2)))
    assert backend.default_thread_count({"instance_group": [{"count": 2}]}) == 1
    assert backend.default_thread_count({"instance_group": [{"count": 5}]}) == 1


@pytest.mark.parametrize("cgroup", CGROUPS)
@pytest.mark.parametrize(("quota", "expected"), QUOTAS)
def test_backend_counts_the_same_cores_as_the_orchestrator(
    backend: Any, quota: str, expected: int, cgroup: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands alone, so it has a function of its own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert backend.available_cores(tmp_path) == available_cores(tmp_path) == 8
    limited = with_quota(tmp_path, quota, cgroup)
    assert backend.available_cores(limited) == available_cores(limited) == expected


def test_it_is_open_only_on_one_thread_of_a_cpu_in_what_batches_a_model_runs(backend: Any) -> None:
    cpu: list[Any] = [("CPUExecutionProvider", {})]
    one, two = backend.ort.SessionOptions(), backend.ort.SessionOptions()
    one.intra_op_num_threads, two.intra_op_num_threads = 1, 2
    plain = {"max_batch_size": 8, "dynamic_batching": {"preferred_batch_size": [8]}}  # as Triton completes it
    tuned = {"max_batch_size": 8, "dynamic_batching": {"preferred_batch_size": [4]}}
    assert backend.leaves_batches_open(plain, cpu, one) and backend.leaves_batches_open({"max_batch_size": 8}, cpu, one)
    assert not backend.leaves_batches_open(plain, [("CUDAExecutionProvider", {}), *cpu], one)
    assert not backend.leaves_batches_open(plain, cpu, two), "threads share a batch better than one item"
    assert not backend.leaves_batches_open(tuned, cpu, one), "the size was measured"


ITEM_SIZE = 512
EACH_WITH_EACH = [
    helper.make_node("Reshape", ["x", "column"], ["c"]),
    helper.make_node("Transpose", ["c"], ["r"]),
    helper.make_node("Add", ["c", "r"], ["sums"]),
    helper.make_node("ReduceMin", ["sums"], ["least"], axes=[1]),
    helper.make_node("Reshape", ["least", "items"], ["y"]),
]


@pytest.mark.parametrize(
    ("nodes", "is_faster_item_by_item"),
    [
        ([helper.make_node("Neg", ["x"], ["y"])], False),
        (EACH_WITH_EACH, True),
        ([helper.make_node("Reshape", ["x", "item"], ["y"])], True),
    ],
    ids=["a run costs more than an item", "cost grows with the batch squared", "refuses batches"],
)
def test_one_thread_keeps_to_what_was_faster(backend: Any, nodes: list[Any], is_faster_item_by_item: bool) -> None:
    session, pace = open_on_one_thread(backend, nodes), backend.BatchPace(keeps_memory=True)
    batch = {"x": np.zeros((8, ITEM_SIZE), np.float32)}
    for _ in range(2 * backend.TRIALS_OF_EACH):
        assert pace.run(session, ["y"], batch)[0].shape == (8, ITEM_SIZE)
    assert pace.is_item_by_item is is_faster_item_by_item


def test_model_that_fails_says_so_and_is_tried_again(backend: Any) -> None:
    session, pace = open_on_one_thread(backend, [helper.make_node("Reshape", ["x", "item"], ["y"])]), backend.BatchPace(keeps_memory=False)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        pace.run(session, ["y"], {"x": np.zeros((2, ITEM_SIZE + 1), np.float32)})
    assert pace.is_item_by_item is None and pace.item_s == {True: [], False: []}


def open_on_one_thread(backend: Any, nodes: list[Any]) -> Any:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", ITEM_SIZE]) for name in "xy")
    shapes = {"column": [-1, 1], "items": [-1, ITEM_SIZE], "item": [1, ITEM_SIZE]}
    constants = [helper.make_tensor(name, TensorProto.INT64, [2], shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = backend.ort.SessionOptions()
    options.intra_op_num_threads = 1
    return backend.ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_batch_that_runs_item_by_item_keeps_its_order(backend: Any, tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMax", ["x"], ["largest"], axes=[0]), helper.make_node("Sub", ["x", "largest"], ["y"])]
    nodes.append(helper.make_node("Neg", ["x"], ["negative"]))
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("x", "y", "negative")}
    graph = helper.make_graph(nodes, "tells how many run together", [values["x"]], [values["y"], values["negative"]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    session = backend.ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {"x": np.array([[1.0], [3.0], [2.0]], np.float32)}
    for item_by_item, expected in ((False, [-2.0, 0.0, -1.0]), (True, [0.0, 0.0, 0.0])):
        results = backend.run_batch(session, ["negative", "y"], feed, item_by_item=item_by_item)
        assert [array.ravel().tolist() for array in results] == [[-1.0, -3.0, -2.0], expected]


def test_output_without_a_row_per_item_is_refused(backend: Any) -> None:
    with pytest.raises(ValueError, match=r"answered 3 items with an output of shape \[1, 4\]: its batch axis is not dynamic"):
        backend.split_results([np.zeros((1, 4))], [1, 2])


def test_fixed_batch_axis_is_reported(backend: Any) -> None:
    expected = {"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}
    found = type("Found", (), {"name": "x", "type": "tensor(float)", "shape": [1, 4]})
    assert backend.compare_tensor("input 'x'", expected, found, 8) == ["max_batch_size is 8, but input 'x' has no dynamic batch axis: found [1, 4]"]


def node(name: str, provider: str, output_bytes: int, duration_us: int = 10) -> dict[str, Any]:
    facts = {"provider": provider, "op_name": "Conv", "output_size": str(output_bytes)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration_us, "args": facts}


def test_profile_of_a_real_session_counts_its_operators(backend: Any, model_file: Path, tmp_path: Path) -> None:
    options = backend.ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = backend.ort.InferenceSession(model_file, options, providers=["CPUExecutionProvider"])
    zeros, placement = backend.try_out(session, {"max_batch_size": 4, "input": [{"name": "x", "dims": ["1"]}]})
    assert zeros is not None and zeros["x"].shape == (1, 1)
    assert placement.operators == {"CPUExecutionProvider": 1}
    assert placement.large_on_cpu == []


def test_profile_is_summed_up_by_provider(backend: Any, tmp_path: Path) -> None:
    events = [node("a", "CUDAExecutionProvider", 10**6, 40), node("b", "CUDAExecutionProvider", 8), node("c", "CPUExecutionProvider", 65536, 3)]
    other = [{"cat": "Session", "name": "model_run", "dur": 999, "args": {}}, {"cat": "Node", "name": "a_fence_before", "dur": 9, "args": {}}]
    (tmp_path / "profile.json").write_text(json.dumps(events + other))
    placement = backend.read_profile(tmp_path / "profile.json")
    assert placement.operators == {"CUDAExecutionProvider": 2, "CPUExecutionProvider": 1}
    assert placement.duration_us == {"CUDAExecutionProvider": 50, "CPUExecutionProvider": 3}
    assert placement.large_on_cpu == [], "a shape computed on the CPU is as it should be"


def test_operator_that_falls_back_to_the_cpu_is_refused_by_name_unless_that_is_accepted(backend: Any, tmp_path: Path) -> None:
    events = [node("a", "CUDAExecutionProvider", 10**6), node("upsample", "CPUExecutionProvider", 10**6)]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    placement = backend.read_profile(tmp_path / "profile.json")
    problem = backend.misplaced(placement, ["CUDAExecutionProvider"], {})
    assert "operators that CUDAExecutionProvider cannot run and that would work on the CPU: Conv upsample" in problem
    accepted = {"parameters": {"allow_cpu_operators": {"string_value": "true"}}}
    assert backend.misplaced(placement, ["CUDAExecutionProvider"], accepted) is None
    assert backend.misplaced(placement, ["CPUExecutionProvider"], {}) is None


def test_provider_that_takes_no_operator_is_refused(backend: Any) -> None:
    placement = backend.Placement({"CUDAExecutionProvider": 7}, {}, [])
    assert "TensorrtExecutionProvider, which then ran none" in backend.misplaced(
        placement, ["TensorrtExecutionProvider", "CUDAExecutionProvider"], {}
    )
    assert backend.misplaced(placement, ["CUDAExecutionProvider"], {}) is None
