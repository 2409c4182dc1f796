"""The models on ONNX Runtime's real CUDA provider, of every release that is installed for GPUs, without a GPU: see `tests/cuda_stand_in.py`."""

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

from deploy.local.gpu import RUNTIME_SETS
from deploy.local.home import open_home
from deploy.local.install import BACKEND_SOURCE
from orchestrator.inference.contract import FACE_DETECTOR, LIP_SYNC, VOICE_ACTIVITY
from orchestrator.models.repository import served_version
from orchestrator.settings import Settings
from tests.cuda_stand_in import build

RELEASES = {runtime.packages[0].split("==")[1]: runtime.packages[0] for runtime in RUNTIME_SETS}

OPEN = """
import importlib.util, json, os, sys, types
utils = types.ModuleType("triton_python_backend_utils")
utils.TritonModelException = RuntimeError
utils.Logger = types.SimpleNamespace(log_warn=lambda text: print(text, file=sys.stderr))
sys.modules[utils.__name__] = utils
spec = importlib.util.spec_from_file_location("backend", sys.argv[1])
backend = importlib.util.module_from_spec(spec)
spec.loader.exec_module(backend)
config, file = json.loads(sys.argv[2]), backend.Path(sys.argv[3])
providers, options = backend.wanted_providers(config, "GPU", "0"), backend.session_options(config)
options.enable_profiling, options.profile_file_prefix = True, sys.argv[4]
session = backend.open_session(file, options, providers)
_, placement = backend.try_out(session, config)
print(json.dumps({
    "version": backend.ort.__version__,
    "operators": placement.operators,
    "problem": backend.misplaced(placement, [name for name, _ in providers], config),
}))
sys.stdout.flush()
os._exit(0)  # what the stand-ins hand out cannot be taken apart in order
"""
"""What the backend does when Triton loads a model, with what Triton gives it."""


def python() -> Path:
    """Return the interpreter of the embedded Triton."""
    home = open_home(Settings().triton_home)
    assert home is not None
    return home.python


@pytest.fixture(scope="module", params=RELEASES)
def gpu_runtime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A release of ONNX Runtime for GPUs, and the environment in which it finds CUDA's libraries."""
    if shutil.which("cc") is None or shutil.which("nm") is None:
        pytest.skip("no C compiler on this host")
    folder = tmp_path_factory.mktemp("runtime")
    package = RELEASES[request.param].replace("[cuda,cudnn]", "")
    command: list[Any] = [python(), "-m", "pip", "download", "-q", "--no-deps", "--retries", "1", "-d", folder, package]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{package} cannot be downloaded: {done.stderr[-200:]}")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    wheel.unlink()
    (folder / "cuda").mkdir()
    build(folder / "site/onnxruntime/capi/libonnxruntime_providers_cuda.so", folder / "cuda")
    yield request.param, {**os.environ, "PYTHONPATH": str(folder / "site"), "LD_LIBRARY_PATH": str(folder / "cuda")}
    shutil.rmtree(folder)  # 0.6 GB


@pytest.mark.parametrize("role", [FACE_DETECTOR, LIP_SYNC, VOICE_ACTIVITY])
def test_model_starts_on_the_cuda_provider_and_runs_there(role: str, gpu_runtime: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    release, environment = gpu_runtime
    repository = Settings().model_repository
    version = served_version(repository, role)
    assert version is not None
    config = text_format.Parse((repository / role / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    facts = json_format.MessageToJson(config, preserving_proto_field_name=True)
    file = repository / role / str(version.number) / "model.onnx"
    command: list[Any] = [python(), "-c", OPEN, BACKEND_SOURCE, facts, file, tmp_path / "profile"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["version"] == release
    assert found["problem"] is None
    on_cpu = found["operators"].get("CPUExecutionProvider", 0)  # shapes are computed there
    assert found["operators"].get("CUDAExecutionProvider", 0) > 20 and on_cpu <= 1, done.stderr[-2000:]
