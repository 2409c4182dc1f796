"""What Triton is told about a model, what the model is, and what the code expects: three descriptions that must be one."""

import hashlib
from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import text_format
from onnx import helper
from tritonclient.grpc import model_config_pb2

from orchestrator.inference.contract import CONTRACTS
from orchestrator.models.config import CONFIG_FILES, Device, ModelConfig, Tensor
from orchestrator.models.gpu_graph import GraphTraits, fits_one_engine, graph_traits
from orchestrator.models.packs import PACKS
from orchestrator.models.repository import installed_pack, served_version
from orchestrator.settings import Settings

ONNX_TYPES: dict[int, str] = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}


NATIVE_TENSORRT_PARAMETERS = {
    "precision_mode",
    "max_workspace_size_bytes",
    "int8_calibration_table_name",
    "int8_use_native_calibration_table",
    "trt_max_partition_iterations",
    "trt_min_subgraph_size",
    "trt_dla_enable",
    "trt_dla_core",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_engine_cache_prefix",
    "trt_dump_subgraphs",
    "trt_force_sequential_engine_build",
    "trt_context_memory_sharing_enable",
    "trt_layer_norm_fp32_fallback",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "trt_force_timing_cache",
    "trt_detailed_build_log",
    "trt_build_heuristics_enable",
    "trt_sparsity_enable",
    "trt_builder_optimization_level",
    "trt_auxiliary_streams",
    "trt_tactic_sources",
    "trt_extra_plugin_lib_paths",
    "trt_profile_min_shapes",
    "trt_profile_max_shapes",
    "trt_profile_opt_shapes",
    "trt_cuda_graph_enable",
    "trt_dump_ep_context_model",
    "trt_ep_context_file_path",
    "trt_ep_context_embed_mode",
}


def folder(role: str) -> Path:
    return Settings().model_repository / role


def model_file(role: str) -> Path:
    version = served_version(Settings().model_repository, role)
    assert version is not None
    return version.folder / "model.onnx"


def read_config(role: str, device: Device) -> Any:
    """Parse a configuration with Triton's own protobuf; an unknown or misspelt field is an error."""
    return text_format.Parse((folder(role) / CONFIG_FILES[device]).read_text(), model_config_pb2.ModelConfig())


WHICH = ("min", "opt", "max")


def shapes_of(config: Any) -> dict[str, dict[str, list[int]]]:
    """Return the least, the usual (16:9, landscape) and the largest shape of each input."""
    found = {}
    for tensor in config.input:
        if -1 in tensor.dims:
            largest = int(config.parameters["largest_px"].string_value)
            found[tensor.name] = {"min": [96, 96, 3], "opt": [largest * 7 // 12, largest, 3], "max": [largest, largest, 3]}
        else:
            found[tensor.name] = {which: list(tensor.dims) for which in WHICH}
    return found


def closed(config: Any) -> dict[str, list[int]]:
    """Return the largest shape of each input."""
    return {name: dims["max"] for name, dims in shapes_of(config).items()}


@pytest.mark.parametrize("device", CONFIG_FILES)
@pytest.mark.parametrize("role", CONTRACTS)
def test_config_parses_and_asks_for_the_right_device_batching_and_warm_up(role: str, device: Device) -> None:
    config = read_config(role, device)
    assert config.name == role
    assert config.backend == "onnxruntime"
    assert config.max_batch_size > 1
    kind = "KIND_CPU" if device == "cpu" else "KIND_GPU"
    count = 1 if device == "tensorrt" else 2
    assert [(group.kind, group.count) for group in config.instance_group] == [(model_config_pb2.ModelInstanceGroup.Kind.Value(kind), count)]
    batching = config.dynamic_batching
    assert batching.max_queue_delay_microseconds > 0
    if count > 1:
        assert batching.priority_levels == batching.default_priority_level == 2
        assert batching.default_queue_policy.timeout_action == model_config_pb2.ModelQueuePolicy.TimeoutAction.Value("REJECT")
        assert batching.default_queue_policy.max_queue_size > 0
        assert batching.default_queue_policy.default_timeout_microseconds > 0
    else:
        assert not batching.priority_levels and not batching.HasField("default_queue_policy"), "with one instance Triton would stall on them"
    shapes = [closed(config)] if device == "cpu" else [{name: dims[which] for name, dims in shapes_of(config).items()} for which in WHICH]
    warmed_up = [(warmup.batch_size, {name: list(value.dims) for name, value in warmup.inputs.items()}) for warmup in config.model_warmup]
    for batch in (1, config.max_batch_size):
        assert all((batch, shape) in warmed_up for shape in shapes)
    assert len({warmup.name for warmup in config.model_warmup}) == len(warmed_up)
    assert {batch for batch, _ in warmed_up} == {1, config.max_batch_size}


@pytest.mark.parametrize("device", CONFIG_FILES)
@pytest.mark.parametrize("role", CONTRACTS)
def test_config_says_which_pack_and_licence_and_which_file_it_is(role: str, device: Device) -> None:
    parameters = {name: value.string_value for name, value in read_config(role, device).parameters.items()}
    assert parameters["pack"] == installed_pack(Settings().model_repository, role)
    assert parameters["licence"] == PACKS[parameters["pack"]].licence
    assert parameters["model_sha256"] == hashlib.sha256(model_file(role).read_bytes()).hexdigest()


def accelerators(role: str, device: Device) -> dict[str, dict[str, str]]:
    found = read_config(role, device).optimization.execution_accelerators.gpu_execution_accelerator
    return {accelerator.name: dict(accelerator.parameters) for accelerator in found}


@pytest.mark.parametrize("role", CONTRACTS)
def test_grid_sample_gets_the_layout_that_cuda_has_it_in(role: str) -> None:
    """In the other one ONNX Runtime's CUDA provider leaves it to the CPU (its issues 19626, 20191)."""
    wanted = {"cuda": {"prefer_nhwc": "1"}} if graph_traits(onnx.load(model_file(role))).samples_grid else {}
    assert accelerators(role, "gpu") == wanted
    assert {name: parameters for name, parameters in accelerators(role, "tensorrt").items() if name != "tensorrt"} == wanted
    assert accelerators(role, "cpu") == {}


def test_traits_are_read_from_the_graph() -> None:
    info = helper.make_tensor_value_info
    node = helper.make_node("GridSample", ["x", "grid"], ["y"])
    shapes: dict[str, list[str | int | None]] = {"x": ["N", 1, 4, 4], "grid": ["N", 2, 2, 2]}
    inputs = [info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph([node], "sampler", inputs, [info("y", onnx.TensorProto.FLOAT, ["N", 1, 2, 2])])
    assert graph_traits(helper.make_model(graph)) == GraphTraits(fits_one_engine=True, samples_grid=True)


@pytest.mark.parametrize("role", CONTRACTS)
def test_tensorrt_config_has_half_precision_an_engine_cache_and_profiles_where_one_engine_takes_the_graph(role: str) -> None:
    config = read_config(role, "tensorrt")
    parameters = accelerators(role, "tensorrt")["tensorrt"]
    assert parameters["precision_mode"] == "FP16"
    assert parameters["trt_engine_cache_enable"] == parameters["trt_timing_cache_enable"] == "1"
    assert not Path(parameters["trt_engine_cache_path"]).is_absolute(), "in the server's working directory: the repository may be read-only"
    if not fits_one_engine(onnx.load(model_file(role))):
        assert not [key for key in parameters if key.startswith("trt_profile")], "ONNX Runtime refuses profiles of a graph it has to split"
        return
    for which, batch in (("min", 1), ("opt", config.max_batch_size), ("max", config.max_batch_size)):
        shapes = dict(part.split(":") for part in parameters[f"trt_profile_{which}_shapes"].split(","))
        assert {name: [int(size) for size in shape.split("x")] for name, shape in shapes.items()} == {
            name: [batch, *dims[which]] for name, dims in shapes_of(config).items()
        }


def bytes_model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["N", 4]) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "bytes", ends[:1], ends[1:]))


def test_one_engine_takes_a_graph_with_bytes_at_its_borders_only() -> None:
    enter = helper.make_node("Cast", ["x"], ["a"], to=onnx.TensorProto.FLOAT)
    leave = helper.make_node("Cast", ["a"], ["b"], to=onnx.TensorProto.UINT8)
    assert fits_one_engine(bytes_model(enter, leave, helper.make_node("Identity", ["b"], ["y"])))
    assert not fits_one_engine(bytes_model(helper.make_node("Relu", ["x"], ["y"]))), "an operator on the bytes that come in"
    assert not fits_one_engine(bytes_model(enter, leave, helper.make_node("Relu", ["b"], ["y"]))), "an operator on the bytes that go out"


def test_no_one_engine_is_counted_on_where_an_operator_may_be_kept_from_tensorrt() -> None:
    enter = helper.make_node("Cast", ["x"], ["a"], to=onnx.TensorProto.FLOAT)
    leave = helper.make_node("Cast", ["found"], ["y"], to=onnx.TensorProto.UINT8)
    assert fits_one_engine(bytes_model(enter, helper.make_node("Relu", ["a"], ["found"]), leave))
    assert not fits_one_engine(bytes_model(enter, helper.make_node("NonZero", ["a"], ["found"]), leave))


@pytest.mark.parametrize("role", CONTRACTS)
def test_engine_cache_of_other_weights_is_never_taken(role: str) -> None:
    """ONNX Runtime finds engines by the graph's structure; the same network with other weights would meet the old ones."""
    parameters = accelerators(role, "tensorrt")["tensorrt"]
    digest = hashlib.sha256(model_file(role).read_bytes()).hexdigest()
    assert parameters["trt_engine_cache_prefix"] == f"{role}_{digest[:16]}"


@pytest.mark.parametrize("role", CONTRACTS)
def test_native_backend_knows_every_tensorrt_parameter(role: str) -> None:
    """It refuses a model with one that it does not know. The list is the table of its README, as of Triton 25.06."""
    parameters = accelerators(role, "tensorrt")["tensorrt"]
    assert set(parameters) <= NATIVE_TENSORRT_PARAMETERS


@pytest.mark.parametrize("device", CONFIG_FILES)
@pytest.mark.parametrize("role", CONTRACTS)
def test_config_model_and_contract_agree(role: str, device: Device) -> None:
    config = read_config(role, device)
    graph = onnx.load(model_file(role)).graph
    sizes: dict[str, int] = {}
    for declared, tensors, specs in (
        (config.input, graph.input, CONTRACTS[role].inputs),
        (config.output, graph.output, CONTRACTS[role].outputs),
    ):
        assert [tensor.name for tensor in declared] == [tensor.name for tensor in tensors] == [spec.name for spec in specs]
        for tensor, value, spec in zip(declared, tensors, specs, strict=True):
            shape = value.type.tensor_type.shape.dim
            assert shape[0].dim_param, "the batch axis is dynamic"
            assert list(tensor.dims) == [-1 if axis.dim_param else axis.dim_value for axis in shape[1:]]
            data_type = model_config_pb2.DataType.Name(tensor.data_type)
            assert data_type == ONNX_TYPES[value.type.tensor_type.elem_type] == f"TYPE_{spec.datatype}"
            if spec.dims != ("...",):
                for expected, actual in zip(spec.dims, closed(config).get(tensor.name, tensor.dims), strict=True):
                    assert (sizes.setdefault(expected, actual) if isinstance(expected, str) else expected) == actual
    assert set(CONTRACTS[role].parameters) <= set(config.parameters)


@pytest.mark.parametrize("role", CONTRACTS)
def test_model_uses_standard_operators_up_to_opset_18_and_no_weights_as_inputs(role: str) -> None:
    model = onnx.load(model_file(role))
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version <= 18) for opset in model.opset_import] == [("", True)]
    assert not {value.name for value in model.graph.input} & {tensor.name for tensor in model.graph.initializer}


def test_text_with_quotes_and_any_script_survives_the_configuration() -> None:
    config = ModelConfig("role", (Tensor("x", "TYPE_UINT8", (4,)),), (Tensor("y", "TYPE_UINT8", (4,)),), 4, 100, {"note": 'a "b" \\ c\n口型'})
    parsed = text_format.Parse(config.to_pbtxt("gpu"), model_config_pb2.ModelConfig())
    assert parsed.parameters["note"].string_value == 'a "b" \\ c\n口型'
