"""Files that are broken, hostile or something else are refused in seconds, each with its code."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orchestrator.errors import InputError, LimitExceeded, MissingFile, UnreadableModel, UnsuitableModel
from orchestrator.models import runner as runner_module
from orchestrator.models.install import install_pack
from orchestrator.models.network import read_network
from orchestrator.models.options import PackOptions
from orchestrator.models.packs import PACKS
from orchestrator.models.runner import OnnxRunner
from orchestrator.settings import Settings
from tests.networks import save_wav2lip


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return save_wav2lip(tmp_path / "good.onnx", width=0.03)


@contextmanager
def refused(kind: type[InputError], *words: str) -> Iterator[None]:
    started_s = time.process_time()
    with pytest.raises(InputError) as caught:
        yield
    assert type(caught.value) is kind, caught.value
    assert all(word in str(caught.value) for word in words), caught.value
    assert time.process_time() - started_s < 10


def external(path: Path, location: str, length: int = 12, **more: str) -> Path:
    """Write a network whose one weight lies in another file."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": str(length), **more}.items():
        weight.external_data.add(key=key, value=value)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


def test_missing_file(tmp_path: Path) -> None:
    with refused(MissingFile):
        read_network(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"not onnx at all",
        b"PK\x03\x04" + bytes(1000),
        b"<!DOCTYPE html><html>404</html>",
        b"\x89PNG\r\n\x1a\n" + bytes(500),
        os.urandom(4096),
    ],
    ids=["empty", "zero", "text", "zip", "html", "png", "noise"],
)
def test_what_is_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.onnx").write_bytes(content)
    with refused(UnreadableModel, "file.onnx"):
        read_network(tmp_path / "file.onnx")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(good: Path, share: float) -> None:
    content = good.read_bytes()
    good.write_bytes(content[: int(len(content) * share)])
    with refused(UnreadableModel):
        read_network(good)


def test_three_gigabytes_are_refused_by_size_alone(tmp_path: Path) -> None:
    with (tmp_path / "big.onnx").open("wb") as file:
        file.truncate(3 << 30)
    with refused(LimitExceeded, "3.0 GiB"):
        read_network(tmp_path / "big.onnx")


def test_three_gigabytes_beside_the_file_are_refused_too(tmp_path: Path) -> None:
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(3 << 30)
    with refused(LimitExceeded):
        read_network(external(tmp_path / "m.onnx", "w.bin", length=3 << 30))


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["folder", "pipe", "device"])
def test_what_is_no_regular_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "m.onnx")
    with refused(UnreadableModel, "not a regular file"):
        read_network(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "..\\secret.bin", "link.bin", ""])
def test_data_outside_the_files_folder_is_not_read(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with refused(UnreadableModel, "outside its own folder"):
        read_network(external(folder / "m.onnx", location))


def test_data_that_is_not_there_or_too_short_or_described_wrongly(tmp_path: Path) -> None:
    with refused(UnreadableModel, "does not lie beside it"):
        read_network(external(tmp_path / "m.onnx", "gone.bin"))
    (tmp_path / "short.bin").write_bytes(bytes(8))
    with refused(UnreadableModel, "shorter"):
        read_network(external(tmp_path / "m.onnx", "short.bin"))
    with refused(UnreadableModel, "wrongly"):
        read_network(external(tmp_path / "m.onnx", "short.bin", offset="x"))


def test_data_beside_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(bytes(8) + np.array([1, 2, 3], np.float32).tobytes())
    network = read_network(external(tmp_path / "m.onnx", "data/w.bin", offset="8"))
    assert numpy_helper.to_array(network.model.graph.initializer[0]).tolist() == [1, 2, 3]


def test_other_digest(good: Path) -> None:
    with refused(UnreadableModel, "expected 00", "sha256"):
        read_network(good, "00" * 32)


def test_foreign_operators_and_operator_sets_from_the_future(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    foreign = helper.make_graph([helper.make_node("Magic", ["x"], ["y"], domain="com.example")], "g", [x], [y])
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    onnx.save(helper.make_model(foreign, opset_imports=domains), tmp_path / "foreign.onnx")
    with refused(UnsuitableModel, "com.example"):
        read_network(tmp_path / "foreign.onnx")
    future = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(future, opset_imports=[helper.make_opsetid("", 99)]), tmp_path / "future.onnx")
    with refused(UnsuitableModel, "operator set 99"):
        read_network(tmp_path / "future.onnx")


def repeating(kind: str) -> onnx.ModelProto:
    """Return a network of three numbers that goes on for ever, or nearly so."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy")
    go = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    functions, opsets = [], [helper.make_opsetid("", 17)]
    constants = [numpy_helper.from_array(np.asarray(True), "go")]
    if kind == "loop":
        count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
        inner = [helper.make_node("Identity", ["go"], ["more"]), helper.make_node("Relu", ["v"], ["w"])]
        v, w = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "vw")
        more = helper.make_tensor_value_info("more", TensorProto.BOOL, [])
        nodes = [helper.make_node("Loop", ["", "go", "x"], ["y"], body=helper.make_graph(inner, "body", [count, go, v], [more, w]))]
    else:
        opsets.append(helper.make_opsetid("own", 1))
        calls = {"f0": ["f0"] if kind == "recursion" else [], **{f"f{n}": [f"f{n - 1}"] * 2 for n in range(1, 40)}}
        for name, called in calls.items():
            steps = [helper.make_node(inner, [f"v{n}"], [f"v{n + 1}"], domain="own") for n, inner in enumerate(called)]
            steps.append(helper.make_node("Relu", [f"v{len(called)}"], ["w"]))
            functions.append(helper.make_function("own", name, ["v0"], ["w"], steps, opsets))
        nodes = [helper.make_node("f39", ["x"], ["y"], domain="own")]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], constants), functions=functions, opset_imports=opsets)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("loop", UnsuitableModel, "repeats a part of itself (Loop)"),
        ("recursion", UnreadableModel, "'f0' calls itself"),
        ("doubling", UnsuitableModel, "operators, expected at most"),
    ],
)
def test_network_that_is_no_fixed_amount_of_work(tmp_path: Path, kind: str, error: type[InputError], words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(repeating(kind).SerializeToString())
    with refused(error, words):
        read_network(tmp_path / "m.onnx")


def test_operator_without_what_it_needs_is_a_damaged_file(good: Path) -> None:
    """No check knows every way in which a graph can be malformed; none of them may crash the program."""
    model = onnx.load(good)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["nothing"]))
    onnx.save(model, good)
    with refused(UnreadableModel, "is damaged", "IndexError"):
        install_pack(PACKS["wav2lip"], good.parent / "models", Settings().triton_home, str(good))


def test_name_that_would_colour_the_terminal(good: Path) -> None:
    model = onnx.load(good)
    model.graph.node[0].name = "\x1b[31mconv"
    onnx.save(model, good)
    with refused(UnreadableModel, r"'\x1b[31mconv' holds characters that cannot be printed"):
        read_network(good)


def test_running_a_file_has_a_limit_in_processor_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.models.runner.PROCESSOR_S_PER_ITEM", 1.0)
    onnx.save(repeating("loop"), tmp_path / "endless.onnx")
    with OnnxRunner(Settings().triton_home) as runner, refused(UnsuitableModel, "needs more than", "processor time"):
        runner.run(tmp_path / "endless.onnx", {"x": np.ones((1, 3), np.float32)})


def test_limits_that_a_host_sets_stay_and_are_no_fault_of_the_file(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = tmp_path / "limited.py"
    limited.write_text(
        f"""
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl(24, 24, 0, 0, 0)  # without CAP_SYS_RESOURCE, with which root may raise a limit
for kind, most in ((resource.RLIMIT_CPU, 10_000), (resource.RLIMIT_AS, 16 << 30)):
    resource.setrlimit(kind, (most, most))
os.execv(sys.executable, [sys.executable, "-I", {str(runner_module._PROGRAM)!r}, *sys.argv[1:]])
"""
    )
    monkeypatch.setattr(runner_module, "_PROGRAM", limited)
    feeds = {name: np.zeros((1, *shape), np.float32) for name, shape in (("mel_spectrogram", (1, 80, 16)), ("video_frames", (6, 96, 96)))}
    with OnnxRunner(Settings().triton_home) as runner:
        assert runner.run(good, feeds)


def test_weight_of_another_size_than_it_says(tmp_path: Path) -> None:
    path = external(tmp_path / "m.onnx", "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(12))
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 10**9
    model.graph.initializer[0].raw_data = bytes(12)
    path.write_bytes(model.SerializeToString())
    with refused(UnreadableModel, "'w' holds 12 bytes, expected 4000000000"):
        read_network(path)


@pytest.mark.parametrize("pack", [name for name, pack in PACKS.items() if pack.fit is not None and name != "wav2lip"])
def test_network_of_another_role_is_refused_with_expected_and_found_side_by_side(good: Path, pack: str) -> None:
    fit = PACKS[pack].fit
    assert fit is not None
    with refused(UnsuitableModel, f"does not fit the pack {pack}", "expected", "found", "input video_frames FLOAT [batch_size, 6, 96, 96]"):
        fit(read_network(good), PackOptions())


def test_network_of_another_element_type_is_refused(tmp_path: Path) -> None:
    inputs = [
        helper.make_tensor_value_info("source", TensorProto.INT64, [1, 1, 80, 16]),
        helper.make_tensor_value_info("target", TensorProto.INT64, [1, 6, 96, 96]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.INT64, [1, 3, 96, 96])
    nodes = [
        helper.make_node("Slice", ["target", "zero", "three", "one"], ["part"]),
        helper.make_node("ReduceMax", ["source"], ["loud"], keepdims=0),
        helper.make_node("Add", ["part", "loud"], ["output"]),
    ]
    constants = [numpy_helper.from_array(np.array([value]), name) for value, name in ((0, "zero"), (3, "three"), (1, "one"))]
    graph = helper.make_graph(nodes, "g", inputs, [output], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "int.onnx")
    fit = PACKS["wav2lip"].fit
    assert fit is not None
    with refused(UnsuitableModel, "element types differ", "source INT64"):
        fit(read_network(tmp_path / "int.onnx"), PackOptions())
