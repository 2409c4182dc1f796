"""The health check of Triton's container, on the Triton of the pip wheel: it kills the one that only a restart helps, and no other."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.local.home import open_home
from tests.programs import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = "tritonserver-t"
"""Other tests have a tritonserver, too."""

STARTS = 3
"""How often to start the Triton of the wheel, which now and then stands still before it is ready (`deploy.local.server` sees to that elsewhere)."""

CHECK = "import sys; from deploy.docker import triton_healthcheck as check; check.HANGS_S = float(sys.argv.pop()); check.main()"


def write_lip_model(repository: Path, lowest: int) -> None:
    """A table of four entries that begins at an index: ONNX Runtime fails on others, as on everything when a GPU is lost."""
    nodes = [
        helper.make_node("Cast", ["face"], ["index"], to=TensorProto.INT64),
        helper.make_node("Sub", ["index", "lowest"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["mouth"]),
    ]
    face = helper.make_tensor_value_info("face", TensorProto.UINT8, ["batch", 1])
    mouth = helper.make_tensor_value_info("mouth", TensorProto.UINT8, ["batch", 1])
    constants = [helper.make_tensor("lowest", TensorProto.INT64, [], [lowest]), helper.make_tensor("table", TensorProto.UINT8, [4], [0, 1, 2, 3])]
    graph = helper.make_graph(nodes, "lips", [face], [mouth], constants)
    (repository / "lip_sync/1").mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), repository / "lip_sync/1/model.onnx")
    (repository / "lip_sync/config.pbtxt").write_text(
        """
        backend: "onnxruntime"
        max_batch_size: 8
        input [{ name: "face" data_type: TYPE_UINT8 dims: [1] }]
        output [{ name: "mouth" data_type: TYPE_UINT8 dims: [1] }]
        dynamic_batching { }
        instance_group [{ kind: KIND_CPU count: 1 }]
        """
    )


class Server:
    """A Triton that nobody watches, as in its container."""

    def __init__(self, home: Path, repository: Path) -> None:
        files = open_home(home)
        assert files is not None
        program = repository.parent / PROGRAM
        if not program.exists():
            program.symlink_to(files.tritonserver)
        port = free_port()
        self._http = f"http://127.0.0.1:{port}"
        at = ["--http-address=127.0.0.1", f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]
        command = [str(program), f"--model-repository={repository}", f"--backend-directory={files.backends}", *at]
        with (repository.parent / "triton.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=files.environment(), cwd=repository.parent, stdout=log, stderr=log)

    def infer(self, index: int) -> int:
        """Send a request; returns its status."""
        tensor = {"name": "face", "shape": [1, 1], "datatype": "UINT8", "data": [index]}
        return httpx.post(f"{self._http}/v2/models/lip_sync/infer", json={"inputs": [tensor]}, timeout=30).status_code

    def check(self, trials: int = 4, hangs_s: float = 30.0) -> str:
        """Run the check; returns why Triton is not well, nothing if it is."""
        arguments = ["-c", CHECK, str(trials), self._http, PROGRAM, str(hangs_s)]
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == (1 if done.stderr else 0)
        return done.stderr

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self._http}/v2/health/ready").status_code == 200
        return False

    def close(self) -> None:
        """End it; its stubs see that and end, too."""
        self.process.kill()
        self.process.wait(timeout=60)


@pytest.fixture
def serve(home: Path, tmp_path: Path) -> Iterator[Callable[[int], Server]]:
    """Start a Triton with a lip model, see `write_lip_model`, and wait until it is ready."""
    servers: list[Server] = []

    def start(lowest: int) -> Server:
        write_lip_model(tmp_path / "models", lowest)
        for _ in range(STARTS):
            servers.append(Server(home, tmp_path / "models"))
            assert "Connection refused" in servers[-1].check()
            with suppress(AssertionError):
                wait_until(servers[-1].is_ready, "Triton is ready", timeout_s=20)
                return servers[-1]
        raise AssertionError("Triton does not start")

    yield start
    for server in servers:
        server.close()


def test_triton_that_works_is_well_whatever_it_was_asked_before(serve: Callable[[int], Server]) -> None:
    triton = serve(0)
    assert triton.infer(200) == 500
    assert triton.check() == ""
    assert triton.infer(0) == 200


def test_triton_whose_model_fails_on_everything_is_killed(serve: Callable[[int], Server]) -> None:
    triton = serve(100)
    assert triton.check(trials=0) == "", "nothing is tried on the CPU"
    assert triton.infer(0) == 500
    reason = triton.check()
    assert reason.startswith("lip_sync fails on zeros: ") and "indices element out of data bounds" in reason
    assert triton.process.wait(timeout=10) == -signal.SIGKILL


def test_triton_that_hangs_is_killed(serve: Callable[[int], Server]) -> None:
    triton = serve(0)
    triton.process.send_signal(signal.SIGSTOP)
    assert triton.check(hangs_s=1.0) == "Triton has not answered for 1 s; it was killed, to be started again\n"
    assert triton.process.wait(timeout=10) == -signal.SIGKILL
