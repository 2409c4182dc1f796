"""What Triton is told about a model, what the model is, and what the code expects: three descriptions that must be one."""

from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from orchestrator.inference.contract import CONTRACTS
from orchestrator.models.repository import served_version
from orchestrator.settings import Settings

ONNX_TYPES: dict[int, str] = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}
CONFIGS = {"gpu": "config.pbtxt", "cpu": "configs/cpu.pbtxt"}


def folder(role: str) -> Path:
    return Settings().model_repository / role


def model_file(role: str) -> Path:
    version = served_version(Settings().model_repository, role)
    assert version is not None
    return version.folder / "model.onnx"


@pytest.mark.parametrize("device", CONFIGS)
@pytest.mark.parametrize("role", CONTRACTS)
def test_config_parses_and_asks_for_the_right_device_batching_and_warm_up(role: str, device: str) -> None:
    config = text_format.Parse((folder(role) / CONFIGS[device]).read_text(), model_config_pb2.ModelConfig())
    assert config.name == role
    assert config.backend == "onnxruntime"
    assert config.max_batch_size > 1
    assert [group.kind for group in config.instance_group] == [model_config_pb2.ModelInstanceGroup.Kind.Value(f"KIND_{device.upper()}")]
    batching = config.dynamic_batching
    assert batching.max_queue_delay_microseconds > 0
    assert batching.priority_levels == 2
    assert batching.default_queue_policy.max_queue_size > 0
    assert batching.default_queue_policy.default_timeout_microseconds > 0
    assert {warmup.batch_size for warmup in config.model_warmup} == {1, config.max_batch_size}


@pytest.mark.parametrize("device", CONFIGS)
@pytest.mark.parametrize("role", CONTRACTS)
def test_config_model_and_contract_agree(role: str, device: str) -> None:
    config = text_format.Parse((folder(role) / CONFIGS[device]).read_text(), model_config_pb2.ModelConfig())
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
            assert list(tensor.dims) == [axis.dim_value for axis in shape[1:]]
            data_type = model_config_pb2.DataType.Name(tensor.data_type)
            assert data_type == ONNX_TYPES[value.type.tensor_type.elem_type] == f"TYPE_{spec.datatype}"
            if spec.dims != ("...",):
                for expected, actual in zip(spec.dims, tensor.dims, strict=True):
                    assert (sizes.setdefault(expected, actual) if isinstance(expected, str) else expected) == actual
    assert set(CONTRACTS[role].parameters) <= set(config.parameters)


@pytest.mark.parametrize("role", CONTRACTS)
def test_model_uses_standard_operators_up_to_opset_18_and_no_weights_as_inputs(role: str) -> None:
    model = onnx.load(model_file(role))
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version <= 18) for opset in model.opset_import] == [("", True)]
    assert not {value.name for value in model.graph.input} & {tensor.name for tensor in model.graph.initializer}
