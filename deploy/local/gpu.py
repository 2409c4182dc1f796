"""GPUs: whether one is to be expected here, and if so, why ONNX Runtime could not use it.

"Expected" is on purpose more than "works": a card without a driver, or a container that was not given its host's GPU, is a mistake to be
named, and no reason to compute on the CPU in silence.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy.local import gpu_probe

NVIDIA_VENDOR = "0x10de"
DISPLAY_CLASSES = ("0x0300", "0x0302")
"""PCI classes of graphics cards and of GPUs without a display."""

HIDING = MappingProxyType({"CUDA_VISIBLE_DEVICES": ("", "-1", "NoDevFiles"), "NVIDIA_VISIBLE_DEVICES": ("", "void", "none")})
"""Values with which people hide GPUs from programs: that is asking for the CPU."""

PROBE_TIMEOUT_S = 120.0
"""Starting the driver takes a second, on a host with eight GPUs in legacy persistence mode half a minute."""


@dataclass(frozen=True, slots=True)
class RuntimeSet:
    """ONNX Runtime with the CUDA libraries that its release is for."""

    cuda_major: int
    """Also what the driver has to support at least."""
    driver: str
    """The driver branch that brings that."""
    packages: tuple[str, ...]
    tensorrt: tuple[str, ...]
    """What the TensorRT provider needs in addition."""
    machine_code: tuple[str, ...]
    """What the wheel holds code for, as `cuobjdump --list-elf` names it: major and minor in one, `a` for code that runs on no other card."""
    portable_code: tuple[int, int] | None = None
    """The compute capability from which on the driver can compile the wheel's PTX for a card (`cuobjdump --list-ptx`); None where it holds none."""

    def has_code_for(self, capability: tuple[int, int]) -> bool:
        """Tell whether a card of this compute capability can run the wheel's code."""
        if self.portable_code is not None and capability >= self.portable_code:
            return True
        major, minor = capability
        for code in self.machine_code:
            number = int(code.rstrip("a"))
            if number // 10 == major and (number % 10 == minor or (number % 10 < minor and not code.endswith("a"))):
                return True
        return False


RUNTIME_SETS = (
    RuntimeSet(13, "580", ("onnxruntime-gpu[cuda,cudnn]==1.31.1",), ("tensorrt-cu13-libs>=10.14.1,<11",), ("75", "80", "86", "89", "90a", "120a")),
    RuntimeSet(
        12,
        "525",
        ("onnxruntime-gpu[cuda,cudnn]==1.24.4", "nvidia-cudnn-cu12>=9.8,<9.11"),
        ("tensorrt-cu12-libs>=10.14.1,<11",),
        ("60", "70", "75", "80", "86", "90"),
        (9, 0),
    ),
)
"""The best first; the second is the last release for CUDA 12. What each needs and holds was read from the wheels. cuDNN 9.10 is the last one with
code for Pascal and Volta. Both were built against TensorRT 10.14.1, and need that or a later one of the same major version."""

TENSORRT_CAPABILITY = (7, 5)
"""The least that TensorRT 10 is for."""

CUDA_ERRORS: Mapping[int, str] = MappingProxyType(
    {
        34: "a stub of the driver's library comes first in the library path; take the CUDA toolkit's `stubs` folder out of LD_LIBRARY_PATH",
        46: "every GPU is taken by another process in exclusive mode; end that process or set the compute mode to default",
        100: "the driver sees no GPU; check `nvidia-smi`, and in a container that it was started with `--gpus all`",
        101: "CUDA_VISIBLE_DEVICES names a GPU that is not there; correct or unset it",
        802: "the GPUs' fabric is not initialised; start the fabric manager service of this driver version",
        803: "the driver's library and its kernel module have different versions; reboot, or reinstall the driver",
        804: "CUDA's forward-compatibility library does not support this GPU; take the `compat` folder out of LD_LIBRARY_PATH",
        999: "the driver's kernel module is in a bad state; run `nvidia-modprobe -u`, reload nvidia_uvm or reboot",
    }
)
"""What cuInit says (CUresult of cuda.h), and what to do about it."""


class GpuError(RuntimeError):
    """The GPU that is expected cannot be used; the message has the cause and what to do."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its driver describes it."""

    name: str
    compute_capability: tuple[int, int]

    @property
    def described(self) -> str:
        """Its name and compute capability, for a sentence."""
        return f"{self.name} (compute {'.'.join(map(str, self.compute_capability))})"


def gpu_expected(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> str | None:
    """Tell what shows that this machine has an NVIDIA GPU, None if nothing does or the GPUs are hidden on purpose.

    Starts no driver and takes no time.
    """
    for variable, values in HIDING.items():
        if variable in environment and environment[variable] in values:
            return None
    for device in ("dev/nvidiactl", "dev/nvidia0", "dev/dxg"):  # the last is WSL's
        if (root / device).exists() and (device != "dev/dxg" or (root / "usr/lib/wsl/lib/libcuda.so.1").exists()):
            return f"/{device}"
    for card in sorted((root / "sys/bus/pci/devices").glob("*")):
        try:
            vendor, kind = (card / "vendor").read_text().strip(), (card / "class").read_text().strip()
        except OSError:
            continue
        if vendor == NVIDIA_VENDOR and kind.startswith(DISPLAY_CLASSES):
            return f"PCI device {card.name}"
    return None


def probe(python: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Look at driver and runtime with the given interpreter and environment.

    Raises:
        GpuError: the look itself failed.
    """
    command = [str(python), "-I", gpu_probe.__file__]
    try:
        done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
        return dict(json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        raise GpuError(f"The GPU driver did not answer within {PROBE_TIMEOUT_S:g} s; check `nvidia-smi`, and reboot if it hangs too.") from None
    except ValueError:
        raise GpuError(
            f"The GPU driver or the CUDA libraries crashed when they were loaded (status {done.returncode}); check `nvidia-smi`."
        ) from None


def choose_runtime(environment: Mapping[str, str] = os.environ) -> RuntimeSet:
    """Choose the newest ONNX Runtime that this machine can run; the newest of all where no driver answers, as while an image is built."""
    return runtime_for(probe(Path(sys.executable), environment)["driver"]) or RUNTIME_SETS[0]


def runtime_for(driver: Mapping[str, Any]) -> RuntimeSet | None:
    """Return the newest ONNX Runtime that a driver can run, and that has code for all its cards if there is one; None where no driver answers."""
    runnable = [candidate for candidate in RUNTIME_SETS if driver.get("cuda_version", 0) // 1000 >= candidate.cuda_major]
    cards = [(major, minor) for major, minor in (device["compute_capability"] for device in driver.get("devices", ()))]
    fitting = [candidate for candidate in runnable if all(candidate.has_code_for(card) for card in cards)]
    return next(iter(fitting or runnable), None)


def is_unfit(python: Path, environment: Mapping[str, str], *, tensorrt: bool) -> bool:
    """Tell whether another installation would run models where this one does not: it is for another driver or card, or libraries of it are gone.

    Where no driver answers, none is unfit.

    Raises:
        GpuError: driver and libraries cannot be looked at.
    """
    found = probe(python, environment)
    wanted, runtime = runtime_for(found["driver"]), found["runtime"]
    if wanted is None:
        return False
    if not wanted.packages[0].endswith(f"=={runtime['packages'].get('onnxruntime-gpu')}"):
        return True
    errors = [runtime["providers"].get(name, "it is not there") for name in ("cuda", *(["tensorrt"] if tensorrt else []))]
    return any(error is not None and _comes_with_packages(error) for error in errors)


def check_gpu(python: Path, environment: Mapping[str, str], *, tensorrt: bool = False) -> list[Gpu]:
    """Check driver, package and libraries in the environment that models will run in; return its GPUs.

    Raises:
        GpuError: models could not run on the GPU there.
    """
    found = probe(python, environment)
    return explain(found["driver"], found["runtime"], tensorrt=tensorrt)


def explain(driver: Mapping[str, Any], runtime: Mapping[str, Any], *, tensorrt: bool) -> list[Gpu]:
    """Turn what `gpu_probe` found into GPUs, or into the first thing that stands in the way.

    Raises:
        GpuError: something does.
    """
    advice = "or ask for the CPU with --device cpu"
    if "load_error" in driver:
        raise GpuError(
            "The GPU cannot be used: the NVIDIA driver is not there "
            f"({driver['load_error']}). Install it; a container needs the NVIDIA Container Toolkit on its host and `--gpus all`; {advice}."
        )
    if status := int(driver["status"]):
        cause = CUDA_ERRORS.get(status, f"starting it failed with CUDA error {status}; check `nvidia-smi`")
        raise GpuError(f"The GPU cannot be used: {cause}; {advice}.")
    gpus = [Gpu(device["name"], (device["compute_capability"][0], device["compute_capability"][1])) for device in driver["devices"]]
    if not gpus:
        raise GpuError(f"The GPU cannot be used: {CUDA_ERRORS[100]}; {advice}.")
    packages = runtime["packages"]
    if "onnxruntime-gpu" not in packages or "onnxruntime" in packages:
        both = " beside onnxruntime-gpu, which it overwrites" if "onnxruntime-gpu" in packages else ""
        has = f"onnxruntime {packages['onnxruntime']}, the package for CPUs{both}" if "onnxruntime" in packages else "no ONNX Runtime"
        raise GpuError(f"The GPU cannot be used: the embedded Triton has {has}. Run `make setup DEVICE=gpu`, {advice}.")
    if tensorrt and (old := [gpu for gpu in gpus if gpu.compute_capability < TENSORRT_CAPABILITY]):
        raise GpuError(f"TensorRT has no code for the {old[0].described}, which is older than Turing. Take --device gpu, {advice}.")
    for provider in ("cuda", *(["tensorrt"] if tensorrt else [])):
        _check_provider(provider, packages["onnxruntime-gpu"], runtime["providers"], advice)
    _check_versions(gpus, int(driver["cuda_version"]), packages["onnxruntime-gpu"], advice)
    return gpus


def _check_provider(provider: str, version: str, providers: Mapping[str, str | None], advice: str) -> None:
    if provider not in providers:
        raise GpuError(
            f"The GPU cannot be used: onnxruntime-gpu {version} comes without its {provider} provider. Run `make setup DEVICE=gpu`, {advice}."
        )
    if error := providers[provider]:
        missing = _missing_library(error)
        cause = f"the library {missing} is missing" if missing else error
        device = "tensorrt" if provider == "tensorrt" else "gpu"
        remedy = f"Run `make setup DEVICE={device}`, which installs it" if _comes_with_packages(error) else "Install it, it is the system's"
        raise GpuError(f"The GPU cannot be used: the {provider} provider of onnxruntime-gpu {version} does not load, {cause}. {remedy}, {advice}.")


def _missing_library(error: str) -> str | None:
    found = re.match(r"(\S+?): cannot open shared object file", error)
    return found[1] if found else None


def _comes_with_packages(error: str) -> bool:
    """Tell whether installing the packages again would help against what the loader says."""
    missing = _missing_library(error)
    return missing is None or missing.startswith(("libcu", "libnv"))


def _check_versions(gpus: list[Gpu], cuda_version: int, version: str, advice: str) -> None:
    """Check driver and cards against the set that is installed; another version of ONNX Runtime is somebody's own choice."""
    installed = next((known for known in RUNTIME_SETS if known.packages[0].endswith(f"=={version}")), None)
    if installed is None:
        return
    if cuda_version // 1000 < installed.cuda_major:
        other = ", or run `make setup DEVICE=gpu` again" if runtime_for({"cuda_version": cuda_version}) else ""
        raise GpuError(
            f"The GPU cannot be used: onnxruntime-gpu {version} is for CUDA {installed.cuda_major}, and the driver ends at CUDA "
            f"{cuda_version // 1000}.{cuda_version % 1000 // 10}. Install driver {installed.driver}{other}, {advice}."
        )
    for gpu in gpus:
        if not installed.has_code_for(gpu.compute_capability):
            better = next((known for known in RUNTIME_SETS if known.has_code_for(gpu.compute_capability)), None)
            hint = "No release for a CUDA that drivers still run has any"
            if better is not None:
                driver = f"Install driver {better.driver} or later and run" if cuda_version // 1000 < better.cuda_major else "Run"
                hint = f"{driver} `make setup DEVICE=gpu` again"
            others = ", hide it with CUDA_VISIBLE_DEVICES" if len(gpus) > 1 else ""
            raise GpuError(f"The GPU cannot be used: onnxruntime-gpu {version} has no code for the {gpu.described}. {hint}{others}, {advice}.")
