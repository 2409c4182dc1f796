"""The pip-installed Triton serves ONNX models as the official container does, and says why when it does not."""

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.utils.shared_memory as shm
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from deploy.local import progress
from deploy.local import server as server_module
from deploy.local.server import LocalTriton, TritonStartError
from tests.programs import wait_until

GPU = "instance_group [{ kind: KIND_GPU count: 1 }]"
CPU = "instance_group [{ kind: KIND_CPU count: 1 }]"


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalTriton]:
    """One Triton with every model of these tests."""
    repository = tmp_path_factory.mktemp("repository")
    write_affine(repository, cpu="instance_group [{ kind: KIND_CPU count: 2 }]")
    write_lookup(repository)
    write_slow(repository)
    write_two_outputs(repository)
    with LocalTriton.start(home, repository) as running:
        yield running


@pytest.fixture
def client(server: LocalTriton) -> Iterator[grpcclient.InferenceServerClient]:
    """A gRPC client of the server."""
    with grpcclient.InferenceServerClient(server.grpc_address) as opened:
        yield opened


def write_model(repository: Path, name: str, graph: onnx.GraphProto, config: str, cpu_config: str | None = None) -> Path:
    """Put a model into a repository; return its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(config)
    if cpu_config is not None:
        (folder / "configs").mkdir()
        (folder / "configs" / "cpu.pbtxt").write_text(cpu_config)
    return folder


def write_affine(repository: Path, *, cpu: str = CPU, input_dims: str = "[4]", input_type: str = "TYPE_UINT8", extra: str = "") -> Path:
    """Y = 2x + 1 on rows of four bytes."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "two"], ["twice"]),
            helper.make_node("Add", ["twice", "one"], ["y"]),
        ],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("two", TensorProto.FLOAT, [], [2.0]), helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    config = f"""
        backend: "onnxruntime"
        max_batch_size: 8
        input [{{ name: "x" data_type: {input_type} dims: {input_dims} }}]
        output [{{ name: "y" data_type: TYPE_FP32 dims: [4] }}]
        dynamic_batching {{ max_queue_delay_microseconds: 200000 }}
        {extra}
    """
    return write_model(repository, "affine", graph, config + GPU, config + cpu)


def write_lookup(repository: Path, *, warm_up: str = "") -> Path:
    """A table of four entries; an index outside it fails inside ONNX Runtime."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["value"])],
        "lookup",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["batch", 1])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT16, ["batch", 1])],
        [helper.make_tensor("table", TensorProto.FLOAT16, [4], np.array([0, 10, 20, 30], np.float16))],
    )
    config = f"""
        backend: "onnxruntime"
        max_batch_size: 8
        input [{{ name: "index" data_type: TYPE_INT64 dims: [1] }}]
        output [{{ name: "value" data_type: TYPE_FP16 dims: [1] }}]
        dynamic_batching {{ max_queue_delay_microseconds: 200000 }}
        {CPU}
        {warm_up}
    """
    return write_model(repository, "lookup", graph, config)


def write_slow(repository: Path) -> Path:
    """Keeps a core busy for tens of milliseconds; one request may wait, no more."""
    side, repeats = 700, 8
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["zeros"]), helper.make_node("Add", ["zeros", "x"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{step}", f"m{step}"], [f"m{step + 1}"]) for step in range(repeats)]
    nodes += [helper.make_node("ReduceMax", [f"m{repeats}"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor("shape", TensorProto.INT64, [2], [side, side])],
    )
    config = f"""
        backend: "onnxruntime"
        max_batch_size: 0
        input [{{ name: "x" data_type: TYPE_FP32 dims: [1] }}]
        output [{{ name: "y" data_type: TYPE_FP32 dims: [1, 1] }}]
        dynamic_batching {{ default_queue_policy {{ max_queue_size: 1 }} }}
        {CPU}
    """
    return write_model(repository, "slow", graph, config)


def write_two_outputs(repository: Path) -> Path:
    """One output keeps its input, a bool, the other negates it."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Not", ["flag"], ["negated"]), helper.make_node("Not", ["negated"], ["kept"])],
        "two_outputs",
        [info("flag", TensorProto.BOOL, ["batch", 2])],
        [info("kept", TensorProto.BOOL, ["batch", 2]), info("negated", TensorProto.BOOL, ["batch", 2])],
    )
    config = f"""
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [{{ name: "flag" data_type: TYPE_BOOL dims: [2] }}]
        output [{{ name: "kept" data_type: TYPE_BOOL dims: [2] }}, {{ name: "negated" data_type: TYPE_BOOL dims: [2] }}]
        dynamic_batching {{ max_queue_delay_microseconds: 200000 }}
        {CPU}
    """
    return write_model(repository, "two_outputs", graph, config)


def tensor(name: str, array: np.ndarray, data_type: str) -> grpcclient.InferInput:
    """Make an input of a request."""
    made = grpcclient.InferInput(name, list(array.shape), data_type)
    made.set_data_from_numpy(array)
    return made


def at_once(call: Callable[[Any], Any], arguments: Sequence[object]) -> list[Any]:
    """Call a function with each argument from threads that start together; return what each call returned or raised."""
    barrier = threading.Barrier(len(arguments))

    def wait_and_call(argument: object) -> Any:
        barrier.wait()
        try:
            return call(argument)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(wait_and_call, arguments))


def test_model_answers_over_grpc(client: grpcclient.InferenceServerClient) -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    answer = client.infer("affine", [tensor("x", rows, "UINT8")]).as_numpy("y")
    np.testing.assert_array_equal(answer, rows.astype(np.float32) * 2 + 1)


def test_requests_in_one_dynamic_batch_get_their_own_rows(client: grpcclient.InferenceServerClient) -> None:
    def executions() -> tuple[int, int]:
        statistics = client.get_inference_statistics("affine").model_stats[0]
        return statistics.inference_count, statistics.execution_count

    inferences_before, executions_before = executions()
    inputs = [np.full((1 + number % 2, 4), number, np.uint8) for number in range(8)]
    answers = at_once(lambda rows: client.infer("affine", [tensor("x", rows, "UINT8")]).as_numpy("y"), inputs)
    for rows, answer in zip(inputs, answers, strict=True):
        np.testing.assert_array_equal(answer, rows.astype(np.float32) * 2 + 1)
    inferences, batches = executions()
    assert inferences - inferences_before == 12
    assert batches - executions_before < 6


def test_bad_request_in_a_batch_fails_alone(client: grpcclient.InferenceServerClient) -> None:
    before = client.get_inference_statistics("lookup").model_stats[0].execution_count
    answers = at_once(lambda index: client.infer("lookup", [tensor("index", np.array([[index]]), "INT64")]).as_numpy("value")[0, 0], [0, 1, 99, 3])
    assert [answers[0], answers[1], answers[3]] == [0, 10, 30]
    assert isinstance(answers[2], InferenceServerException)
    assert "out of data bounds" in answers[2].message()
    assert client.get_inference_statistics("lookup").model_stats[0].execution_count - before < 4


def test_requests_in_a_batch_get_the_outputs_they_asked_for(client: grpcclient.InferenceServerClient) -> None:
    flags = np.array([[True, False]])

    def infer(names: list[str]) -> dict[str, list[bool]]:
        wanted = [grpcclient.InferRequestedOutput(name) for name in names]
        result = client.infer("two_outputs", [tensor("flag", flags, "BOOL")], outputs=wanted or None)
        return {output.name: result.as_numpy(output.name).tolist() for output in result.get_response().outputs}

    kept, negated, both = at_once(infer, [["kept"], ["negated"], []])
    assert kept == {"kept": [[True, False]]}
    assert negated == {"negated": [[False, True]]}
    assert both == {"kept": [[True, False]], "negated": [[False, True]]}


def test_full_queue_rejects_at_once(client: grpcclient.InferenceServerClient) -> None:
    answers = at_once(lambda _: client.infer("slow", [tensor("x", np.zeros(1, np.float32), "FP32")]).as_numpy("y").item(), range(8))
    rejected = [answer for answer in answers if isinstance(answer, InferenceServerException)]
    assert rejected
    assert {answer.status() for answer in rejected} == {"StatusCode.UNAVAILABLE"}
    assert all("Exceeds maximum queue size" in answer.message() for answer in rejected)
    assert [answer for answer in answers if answer not in rejected] == [0.0] * (len(answers) - len(rejected))


def test_instance_group_of_two_runs_two_processes(server: LocalTriton) -> None:
    stubs = [process.cmdline() for process in psutil.Process().children(recursive=True) if server.shared_memory_prefix in " ".join(process.cmdline())]
    assert sum(any(argument in ("affine_0_0", "affine_0_1") for argument in command) for command in stubs) == 2


def test_each_instance_logs_where_it_runs(home: Path, tmp_path: Path) -> None:
    write_affine(tmp_path / "models", extra='parameters { key: "intra_op_thread_count" value: { string_value: "2" } }')
    with LocalTriton.start(home, tmp_path / "models", log_path=tmp_path / "triton.log"):
        pass
    assert "affine: instance affine_0_0 runs on CPUExecutionProvider, 2 intra-op threads" in (tmp_path / "triton.log").read_text()


def write_together(repository: Path, name: str, batching: str) -> None:
    """Subtracts the largest item of a batch, which tells what ran together: 0 for an item that ran alone."""
    nodes = [helper.make_node("ReduceMax", ["x"], ["largest"], axes=[0]), helper.make_node("Sub", ["x", "largest"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in "xy")
    config = f"""
        backend: "onnxruntime"
        max_batch_size: 8
        input [{{ name: "x" data_type: TYPE_FP32 dims: [1] }}]
        output [{{ name: "y" data_type: TYPE_FP32 dims: [1] }}]
        dynamic_batching {{ {batching} }}
        parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
        {CPU}
    """
    write_model(repository, name, helper.make_graph(nodes, name, [x], [y]), config)


def test_one_thread_tries_without_batches_unless_their_size_was_chosen(home: Path, tmp_path: Path) -> None:
    write_together(tmp_path / "models", "open", "max_queue_delay_microseconds: 0")
    write_together(tmp_path / "models", "chosen", "preferred_batch_size: [ 4 ]")
    batch = np.array([[1.0], [3.0], [2.0]], np.float32)
    with LocalTriton.start(home, tmp_path / "models") as server, closing(grpcclient.InferenceServerClient(server.grpc_address)) as client:
        for name, expected in (("open", [0, 0, 0]), ("chosen", [-2, 0, -1])):
            assert client.infer(name, [tensor("x", batch, "FP32")]).as_numpy("y").ravel().tolist() == expected


def test_warm_up_runs_before_the_model_is_ready(home: Path, tmp_path: Path) -> None:
    warm_up = 'model_warmup [{ name: "full" batch_size: 8 inputs: { key: "x" value: { data_type: TYPE_UINT8 dims: [4] zero_data: true } } }]'
    write_affine(tmp_path / "models", extra=warm_up)
    with LocalTriton.start(home, tmp_path / "models", log_path=tmp_path / "triton.log", extra_args=["--log-verbose=1"]):
        log = (tmp_path / "triton.log").read_text()
    assert "running warmup sample 'full'" in log
    assert log.index("running warmup sample 'full'") < log.index("successfully loaded 'affine'")


def test_metrics_endpoint_counts_inferences(server: LocalTriton, client: grpcclient.InferenceServerClient) -> None:
    client.infer("affine", [tensor("x", np.zeros((1, 4), np.uint8), "UINT8")])
    connection = http.client.HTTPConnection(server.metrics_address, timeout=10)
    try:
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
    finally:
        connection.close()
    assert 'nv_inference_count{model="affine",version="1"}' in metrics


def test_tensors_travel_through_system_shared_memory(server: LocalTriton, client: grpcclient.InferenceServerClient) -> None:
    rows = np.arange(32, dtype=np.uint8).reshape(8, 4)
    name = f"{server.shared_memory_prefix}test"
    region = shm.create_shared_memory_region("rows", f"/{name}", rows.nbytes * 5)
    try:
        shm.set_shared_memory_region(region, [rows])
        client.register_system_shared_memory("rows", f"/{name}", rows.nbytes * 5)
        given = grpcclient.InferInput("x", [8, 4], "UINT8")
        given.set_shared_memory("rows", rows.nbytes)
        wanted = grpcclient.InferRequestedOutput("y")
        wanted.set_shared_memory("rows", rows.nbytes * 4, offset=rows.nbytes)
        client.infer("affine", [given], outputs=[wanted])
        np.testing.assert_array_equal(shm.get_contents_as_numpy(region, np.float32, [8, 4], offset=rows.nbytes), rows.astype(np.float32) * 2 + 1)
        wait_until(lambda: lets_go(client, "rows"), "Triton, which answers before it is through with the memory, lets go of it")
        assert "rows" not in client.get_system_shared_memory_status(as_json=True).get("regions", {})
    finally:
        shm.destroy_shared_memory_region(region)
    assert not (Path("/dev/shm") / name).exists()


def lets_go(client: grpcclient.InferenceServerClient, region: str) -> bool:
    with suppress(InferenceServerException):
        client.unregister_system_shared_memory(region)
        return True
    return False


def test_server_names_its_models_and_its_addresses(server: LocalTriton, client: grpcclient.InferenceServerClient) -> None:
    assert server.model_names() == ["affine", "lookup", "slow", "two_outputs"]
    assert client.is_server_ready()
    assert len({server.grpc_address, server.http_address, server.metrics_address}) == 3


def test_model_with_other_dims_than_its_config_does_not_start(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_affine(tmp_path, input_dims="[5]")
    with pytest.raises(TritonStartError, match=r"the model 'affine': .*input 'x' expected dims \[-1, 5\], found \[-1, 4\]"):
        LocalTriton.start(home, tmp_path)
    assert not caplog.records, "what is wrong with a model stays, and is not tried again"


def test_model_with_other_type_than_its_config_does_not_start(home: Path, tmp_path: Path) -> None:
    write_affine(tmp_path, input_type="TYPE_FP32")
    with pytest.raises(TritonStartError, match=r"the model 'affine': .*input 'x' expected TYPE_FP32, found TYPE_UINT8"):
        LocalTriton.start(home, tmp_path)


def test_model_whose_warm_up_fails_does_not_start(home: Path, tmp_path: Path) -> None:
    inputs = '{ key: "index" value: { data_type: TYPE_INT64 dims: [1] random_data: true } }'
    write_lookup(tmp_path, warm_up=f'model_warmup [{{ name: "outside" batch_size: 2 inputs: {inputs} }}]')
    with pytest.raises(TritonStartError, match="indices element out of data bounds"):
        LocalTriton.start(home, tmp_path)


def test_missing_model_file_names_the_file(home: Path, tmp_path: Path) -> None:
    (write_affine(tmp_path) / "1" / "model.onnx").unlink()
    with pytest.raises(TritonStartError, match=r"affine/1/model.onnx does not exist: install a model pack"):
        LocalTriton.start(home, tmp_path)


def test_config_with_a_typing_error_names_file_line_and_word(home: Path, tmp_path: Path) -> None:
    write_affine(tmp_path, extra="max_batch_sise: 8")
    with pytest.raises(TritonStartError, match=r"'affine': .*configs/cpu.pbtxt \(line:column .*max_batch_sise"):
        LocalTriton.start(home, tmp_path)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_gpu_config_without_gpu_does_not_fall_back_to_the_cpu(home: Path, tmp_path: Path) -> None:
    write_affine(tmp_path)
    with pytest.raises(TritonStartError, match="KIND_GPU but no GPUs are available; serve on the CPU"):
        LocalTriton.start(home, tmp_path, config_name=None)


@pytest.mark.parametrize("which", ["grpc_port", "http_port", "metrics_port"])
def test_taken_port_is_named(home: Path, tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TritonStartError, match=f"Port {port} on 127.0.0.1 is taken"):
            LocalTriton.start(home, tmp_path, **{which: port})


@pytest.mark.parametrize("host", ["192.0.2.1", "::1", "x y", "x" * 64])
@pytest.mark.parametrize("port", [0, 8001])
def test_address_that_is_not_this_machines_is_named(host: str, port: int, home: Path, tmp_path: Path) -> None:
    with pytest.raises(TritonStartError, match=f"cannot listen on '{host}'.*give an IPv4 address of this machine"):
        LocalTriton.start(home, tmp_path, host=host, grpc_port=port)


def test_port_lost_between_picking_and_binding_is_replaced(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        picks = iter([taken.getsockname()[1]])
        from deploy.local import prepare, server

        def choose(host: str, wanted: prepare.Ports) -> prepare.Ports:
            ports = prepare.choose_ports(host, wanted)
            return prepare.Ports(next(picks, ports.grpc), ports.http, ports.metrics)

        monkeypatch.setattr(server, "choose_ports", choose)
        with LocalTriton.start(home, tmp_path) as running:
            assert running.grpc_address != f"127.0.0.1:{taken.getsockname()[1]}"
            assert running.poll() is None


def test_missing_home_says_how_to_install(tmp_path: Path) -> None:
    with pytest.raises(TritonStartError, match=r"run `python -m deploy.local.install --home "):
        LocalTriton.start(tmp_path / "nowhere", tmp_path)


def test_missing_repository_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(TritonStartError, match=r"There is no model repository at .*nowhere"):
        LocalTriton.start(home, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["my folder", "Gr\u00fc\u00dfe"])
def test_path_that_triton_cannot_use_is_refused(name: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(TritonStartError, match="move the model repository to one without spaces, quotes or letters beyond ASCII"):
        LocalTriton.start(home, tmp_path / name)
    (tmp_path / name / "home").symlink_to(home)
    with pytest.raises(TritonStartError, match="move the Triton home"):
        LocalTriton.start(tmp_path / name / "home", tmp_path)


def test_wrong_option_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(TritonStartError, match="unrecognized option '--nonsense'"):
        LocalTriton.start(home, tmp_path, extra_args=["--nonsense"])


@contextmanager
def done_to_the_first(count: int, name: str, act: Callable[[psutil.Process], None]) -> Iterator[None]:
    """Do something to the first processes with this name, of Tritons that are started now, each as soon as it is there."""
    others = psutil.Process().children()
    met: set[int] = set()
    is_over = threading.Event()

    def look() -> None:
        while len(met) < count and not is_over.wait(0.01):
            for process in [child for guard in psutil.Process().children() if guard not in others for child in family_of(guard)]:
                with suppress(psutil.NoSuchProcess):
                    if len(met) < count and process.pid not in met and name.startswith(process.name()):
                        met.add(process.pid)
                        act(process)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert len(met) == count, f"{len(met)} {name} were seen"


def family_of(guard: psutil.Process) -> list[psutil.Process]:
    """Return a guard's Triton and its stubs, without what its shells start and wait for."""
    with suppress(psutil.NoSuchProcess):
        return [process for triton in guard.children() for process in (triton, *triton.children())]
    return []


@pytest.mark.parametrize("victim", ["tritonserver", "triton_python_backend_stub"])
def test_triton_that_crashes_while_it_starts_is_started_once_more(victim: str, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_affine(tmp_path)
    with done_to_the_first(1, victim, lambda process: process.send_signal(signal.SIGABRT)), LocalTriton.start(home, tmp_path) as running:
        assert running.model_names() == ["affine"]
    assert "Triton is started once more" in caplog.text


def test_triton_that_crashes_each_time_it_starts_is_an_error(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_affine(tmp_path)
    crashing = done_to_the_first(2, "tritonserver", lambda process: process.send_signal(signal.SIGABRT))
    with crashing, pytest.raises(TritonStartError, match=r"^Triton crashed \(SIGABRT\) while it was starting"):
        LocalTriton.start(home, tmp_path)
    assert caplog.text.count("Triton is started once more") == 1


def test_triton_that_stands_still_while_it_starts_is_started_once_more(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOOK_S", 0.5)
    monkeypatch.setattr(progress, "STILL_S", 3.0)
    monkeypatch.setattr(server_module, "KILL_S", 1.0)
    write_affine(tmp_path)
    frozen = done_to_the_first(1, "tritonserver", lambda process: os.killpg(os.getpgid(process.pid), signal.SIGSTOP))
    with frozen, LocalTriton.start(home, tmp_path) as running:
        assert running.model_names() == ["affine"]
    assert "stood still" in caplog.text and "Triton is started once more" in caplog.text


def test_triton_that_loads_for_long_is_left_alone(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOOK_S", 0.1)
    monkeypatch.setattr(progress, "STILL_S", 0.5)
    folder = write_slow(tmp_path)
    warm_up = (
        'model_warmup [{ name: "long" batch_size: 1 count: 300 inputs: { key: "x" value: { data_type: TYPE_FP32 dims: [1] zero_data: true } } }]'
    )
    (folder / "config.pbtxt").write_text((folder / "config.pbtxt").read_text() + warm_up)
    began = time.monotonic()
    with LocalTriton.start(home, tmp_path):
        assert time.monotonic() - began > 4 * progress.STILL_S
    assert not caplog.records
