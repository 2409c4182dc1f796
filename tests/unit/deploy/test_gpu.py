"""Whether a GPU is expected, and why it cannot be used. What no machine without a GPU can show is stood in for by what CUDA's headers document."""

import importlib.util
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from deploy.local import gpu
from deploy.local.gpu import RUNTIME_SETS, Gpu, GpuError, explain, gpu_expected, is_unfit

GOOD_DRIVER: dict[str, Any] = {
    "status": 0,
    "cuda_version": 13000,
    "devices": [{"name": "NVIDIA GeForce RTX 5090", "compute_capability": [12, 0]}],
}
GOOD_RUNTIME: dict[str, Any] = {"packages": {"onnxruntime-gpu": "1.31.1"}, "providers": {"cuda": None, "tensorrt": None}}
OLD_RUNTIME: dict[str, Any] = {"packages": {"onnxruntime-gpu": "1.24.4"}, "providers": {"cuda": None}}


def fake_root(folder: Path, *, devices: tuple[str, ...] = (), cards: tuple[tuple[str, str, str], ...] = ()) -> Path:
    for device in devices:
        (folder / device).parent.mkdir(parents=True, exist_ok=True)
        (folder / device).touch()
    for address, vendor, kind in cards:
        card = folder / "sys/bus/pci/devices" / address
        card.mkdir(parents=True)
        (card / "vendor").write_text(f"{vendor}\n")
        (card / "class").write_text(f"{kind}\n")
    return folder


@pytest.mark.parametrize(
    ("devices", "cards", "sign"),
    [
        ((), (), None),
        (("dev/nvidiactl",), (), "/dev/nvidiactl"),
        (("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"), (), "/dev/dxg"),
        (("dev/dxg",), (), None),
        ((), (("0000:01:00.0", "0x10de", "0x030000"),), "PCI device 0000:01:00.0"),
        ((), (("0000:41:00.0", "0x10de", "0x030200"),), "PCI device 0000:41:00.0"),
        ((), (("0000:01:00.1", "0x10de", "0x040300"),), None),  # the sound on the card's HDMI
        ((), (("0000:00:02.0", "0x8086", "0x030000"),), None),
    ],
)
def test_a_card_or_its_driver_makes_a_gpu_expected(
    devices: tuple[str, ...], cards: tuple[tuple[str, str, str], ...], sign: str | None, tmp_path: Path
) -> None:
    assert gpu_expected(fake_root(tmp_path, devices=devices, cards=cards), {}) == sign


@pytest.mark.parametrize(("variable", "value"), [("CUDA_VISIBLE_DEVICES", ""), ("CUDA_VISIBLE_DEVICES", "-1"), ("NVIDIA_VISIBLE_DEVICES", "void")])
def test_hidden_gpu_is_not_expected(variable: str, value: str, tmp_path: Path) -> None:
    root = fake_root(tmp_path, devices=("dev/nvidiactl",))
    assert gpu_expected(root, {variable: value}) is None
    assert gpu_expected(root, {variable: "0"}) == "/dev/nvidiactl"


def test_gpu_that_everything_is_there_for_is_named() -> None:
    assert explain(GOOD_DRIVER, GOOD_RUNTIME, tensorrt=True) == [Gpu("NVIDIA GeForce RTX 5090", (12, 0))]


@pytest.mark.parametrize(
    ("driver", "runtime", "cause"),
    [
        ({"load_error": "libcuda.so.1: cannot open shared object file"}, GOOD_RUNTIME, "the NVIDIA driver is not there .*`--gpus all`"),
        ({**GOOD_DRIVER, "status": 100}, GOOD_RUNTIME, "the driver sees no GPU; check `nvidia-smi`"),
        ({**GOOD_DRIVER, "status": 803}, GOOD_RUNTIME, "different versions; reboot"),
        ({**GOOD_DRIVER, "status": 999}, GOOD_RUNTIME, "reload nvidia_uvm"),
        ({**GOOD_DRIVER, "status": 4321}, GOOD_RUNTIME, "CUDA error 4321; check `nvidia-smi`"),
        ({**GOOD_DRIVER, "devices": []}, GOOD_RUNTIME, "the driver sees no GPU"),
        (
            GOOD_DRIVER,
            {"packages": {"onnxruntime": "1.32.0"}, "providers": {}},
            r"has onnxruntime 1.32.0, the package for CPUs\. Run `make setup DEVICE",
        ),
        (GOOD_DRIVER, {**GOOD_RUNTIME, "packages": {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}}, "beside onnxruntime-gpu, which it over"),
        (GOOD_DRIVER, {"packages": {}, "providers": {}}, "has no ONNX Runtime"),
        (GOOD_DRIVER, {**GOOD_RUNTIME, "providers": {}}, "without its cuda provider"),
        (
            GOOD_DRIVER,
            {**GOOD_RUNTIME, "providers": {"cuda": "libcublasLt.so.13: cannot open shared object file: No such file or directory"}},
            "cuda provider .* does not load, the library libcublasLt.so.13 is missing. Run `make setup DEVICE=gpu`",
        ),
        (
            GOOD_DRIVER,
            {**GOOD_RUNTIME, "providers": {"cuda": None, "tensorrt": "libnvinfer.so.10: cannot open shared object file: No such file"}},
            "tensorrt provider .* does not load, the library libnvinfer.so.10 is missing. Run `make setup DEVICE=tensorrt`",
        ),
        (
            GOOD_DRIVER,
            {**GOOD_RUNTIME, "providers": {"cuda": "libz.so.1: cannot open shared object file: No such file or directory"}},
            r"the library libz.so.1 is missing\. Install it, it is the system's",
        ),
        (
            {**GOOD_DRIVER, "cuda_version": 12080},
            GOOD_RUNTIME,
            r"is for CUDA 13, and the driver ends at CUDA 12\.8\. Install driver 580, or run `make",
        ),
        ({**GOOD_DRIVER, "cuda_version": 11040}, OLD_RUNTIME, r"is for CUDA 12, and the driver ends at CUDA 11\.4\. Install driver 525, or ask"),
        (
            {**GOOD_DRIVER, "devices": [{"name": "Tesla V100", "compute_capability": [7, 0]}]},
            GOOD_RUNTIME,
            r"no code for the Tesla V100 \(compute 7\.0\)\. Run `make setup DEVICE=gpu` again, or ask",
        ),
        (
            {**GOOD_DRIVER, "devices": [*GOOD_DRIVER["devices"], {"name": "GeForce GTX 980", "compute_capability": [5, 2]}]},
            GOOD_RUNTIME,
            r"no code for the GeForce GTX 980 \(compute 5\.2\)\. No release .* has any, hide it with CUDA_VISIBLE_DEVICES, or ask",
        ),
        (
            {**GOOD_DRIVER, "devices": [{"name": "Tesla V100", "compute_capability": [7, 0]}]},
            {**OLD_RUNTIME, "providers": {"cuda": None, "tensorrt": "libnvinfer.so.10: cannot open shared object file"}},
            r"TensorRT has no code for the Tesla V100 \(compute 7\.0\), which is older than Turing\. Take --device gpu",
        ),
    ],
)
def test_each_obstacle_is_named_with_what_to_do(driver: dict[str, Any], runtime: dict[str, Any], cause: str) -> None:
    with pytest.raises(GpuError, match=cause) as caught:
        explain(driver, runtime, tensorrt="tensorrt" in cause.lower())
    assert "or ask for the CPU with --device cpu" in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("capability", "sets"),
    [((5, 2), []), ((6, 1), [12]), ((7, 0), [12]), ((7, 5), [13, 12]), ((8, 9), [13, 12]), ((9, 0), [13, 12]), ((10, 0), [12]), ((12, 0), [13, 12])],
)
def test_each_card_is_served_by_the_wheels_that_hold_its_code(capability: tuple[int, int], sets: list[int]) -> None:
    assert [runtime.cuda_major for runtime in RUNTIME_SETS if runtime.has_code_for(capability)] == sets


@pytest.mark.parametrize(("version", "cuda_major"), [(13010, 13), (13000, 13), (12080, 12), (12000, 12), (11040, 13), (None, 13)])
def test_installation_follows_the_driver(version: int | None, cuda_major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = {"load_error": "none"} if version is None else {"cuda_version": version}
    monkeypatch.setattr(gpu, "probe", lambda *_: {"driver": driver, "runtime": {}})
    assert gpu.choose_runtime({}).cuda_major == cuda_major


@pytest.mark.parametrize(
    ("version", "cards", "cuda_major"),
    [
        (13000, [(8, 6)], 13),
        (13000, [(7, 0)], 12),  # the last driver branch for Volta is one for CUDA 13
        (13000, [(8, 6), (6, 1)], 12),
        (13000, [(10, 0)], 12),
        (13000, [(12, 0)], 13),
        (12080, [(12, 0)], 12),
        (13000, [(5, 2)], 13),
    ],
)
def test_installation_follows_the_cards(version: int, cards: list[tuple[int, int]], cuda_major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = {"cuda_version": version, "devices": [{"name": "a card", "compute_capability": list(card)} for card in cards]}
    monkeypatch.setattr(gpu, "probe", lambda *_: {"driver": driver, "runtime": {}})
    assert gpu.choose_runtime({}).cuda_major == cuda_major


@pytest.mark.parametrize(
    ("driver", "runtime", "unfit"),
    [
        (GOOD_DRIVER, GOOD_RUNTIME, (False, False)),
        ({"load_error": "none"}, {"packages": {"onnxruntime": "1.32.0"}, "providers": {}}, (False, False)),
        ({**GOOD_DRIVER, "cuda_version": 12080}, GOOD_RUNTIME, (True, True)),
        (GOOD_DRIVER, OLD_RUNTIME, (True, True)),
        (GOOD_DRIVER, {"packages": {"onnxruntime": "1.32.0"}, "providers": {}}, (True, True)),
        (GOOD_DRIVER, {**GOOD_RUNTIME, "providers": {"cuda": "libcudnn.so.9: cannot open shared object file"}}, (True, True)),
        (GOOD_DRIVER, {**GOOD_RUNTIME, "providers": {"cuda": "libz.so.1: cannot open shared object file", "tensorrt": None}}, (False, False)),
        (GOOD_DRIVER, {**GOOD_RUNTIME, "providers": {"cuda": None, "tensorrt": "libnvinfer.so.10: cannot open shared object file"}}, (False, True)),
    ],
)
def test_installation_that_another_one_would_better_is_unfit(
    driver: dict[str, Any], runtime: dict[str, Any], unfit: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "probe", lambda *_: {"driver": driver, "runtime": runtime})
    assert tuple(is_unfit(Path("python"), {}, tensorrt=tensorrt) for tensorrt in (False, True)) == unfit


def test_probe_runs_in_the_environment_it_is_given() -> None:
    found = gpu.probe(Path(sys.executable), {"LD_LIBRARY_PATH": ""})
    assert "onnxruntime" in found["runtime"]["packages"]
    assert set(found["driver"]) in ({"load_error"}, {"status", "cuda_version", "devices"})


PROVIDER = """
void *Provider_GetHost(void);
static __attribute__((constructor)) void start(void) { *(volatile char *)Provider_GetHost(); }
"""
"""What ONNX Runtime's providers do while they are loaded: they call the ONNX Runtime that loads them."""


@pytest.fixture
def python_with_provider(tmp_path: Path) -> Path:
    """A Python whose ONNX Runtime is the real one with a CUDA provider of our own beside it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this host")
    venv.create(tmp_path / "venv", symlinks=True)
    [site_packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None
    real = Path(spec.origin).parent
    shutil.copytree(real, site_packages / "onnxruntime", copy_function=lambda source, target: Path(target).symlink_to(source))
    (site_packages / "real.pth").write_text(f"{real.parent}\n")
    (tmp_path / "provider.c").write_text(PROVIDER)
    library = site_packages / "onnxruntime/capi/libonnxruntime_providers_cuda.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "provider.c"], check=True)
    return tmp_path / "venv/bin/python"


def test_provider_is_loaded_into_an_onnx_runtime_as_it_is_when_a_model_opens(python_with_provider: Path, tmp_path: Path) -> None:
    without_cudnn = gpu.probe(python_with_provider, {})["runtime"]["providers"]
    assert without_cudnn == {"cuda": "libcudnn.so.9: cannot open shared object file: No such file or directory"}
    (tmp_path / "cudnn.c").touch()
    subprocess.run(["cc", "-shared", "-o", tmp_path / "libcudnn.so.9", tmp_path / "cudnn.c"], check=True)
    assert gpu.probe(python_with_provider, {"LD_LIBRARY_PATH": str(tmp_path)})["runtime"]["providers"] == {"cuda": None}


def test_probe_that_crashes_is_said_so(tmp_path: Path) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    with pytest.raises(GpuError, match="crashed when they were loaded"):
        gpu.probe(crashing, {})
