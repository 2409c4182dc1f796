"""What Triton's errors are to the service: whether a job that meets one is tried again."""

import pytest
from tritonclient.utils import InferenceServerException

from orchestrator.errors import InferenceError, InferenceRejected, InferenceUnavailable
from orchestrator.inference.translate import translated

ILLEGAL = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=host ; file=/src/gpu_data_transfer.cc ; line=65 ; expr=copy"
NO_PLAN = "CUDNN_FE failure 8: HEURISTIC_QUERY_FAILED ; GPU=0 ; hostname=host ; file=/src/conv.cc ; line=224 ; expr=plan"


@pytest.mark.parametrize(
    ("message", "kind", "told"),
    [
        (f"[ONNXRuntimeError] : 1 : FAIL : {ILLEGAL}", InferenceUnavailable, "(CUDA failure 700: an illegal memory access was encountered)"),
        (f"onnx runtime error 11: Non-zero status code ... {NO_PLAN}", InferenceUnavailable, "(CUDNN_FE failure 8: HEURISTIC_QUERY_FAILED)"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: face", InferenceRejected, "Got invalid dimensions"),
    ],
)
def test_failure_of_the_gpu_is_no_refusal_of_the_request(message: str, kind: type[InferenceError], told: str) -> None:
    found = translated(InferenceServerException(message, status="StatusCode.INTERNAL"), "127.0.0.1:8001")
    assert type(found) is kind and told in str(found)
    assert found.retryable == (kind is InferenceUnavailable)
