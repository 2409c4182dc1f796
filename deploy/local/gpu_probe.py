"""Look at the GPU from inside an environment, and print what is there as JSON.

Run as a script by any Python, with only the standard library beside ONNX Runtime: by the interpreter and in the environment whose ONNX Runtime is
meant, because a library that another process can load says nothing. Loading the driver cannot be undone, so no long-lived process does it itself.
"""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR = 75, 76
"""CUdevice_attribute numbers of cuda.h."""

PROVIDERS = {"cuda": "libonnxruntime_providers_cuda.so", "tensorrt": "libonnxruntime_providers_tensorrt.so"}

LOADED_LATER = {"cuda": ("libcudnn.so.9",)}
"""What a provider opens by itself at the first convolution, and goes without until then (ONNX Runtime 1.31; up to 1.24 it was linked)."""


def probe_driver() -> dict[str, Any]:
    """Start the CUDA driver: what it says, or how it fails."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"load_error": str(error)}
    version, count = ctypes.c_int(), ctypes.c_int()
    status = int(cuda.cuInit(0))
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if status == 0:
        status = int(cuda.cuDeviceGetCount(ctypes.byref(count)))
    devices = [_device(cuda, index) for index in range(count.value)] if status == 0 else []
    return {"status": status, "cuda_version": version.value, "devices": devices}


def _device(cuda: ctypes.CDLL, index: int) -> dict[str, Any]:
    name, major, minor = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGetName(name, len(name), index)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), COMPUTE_CAPABILITY_MAJOR, index)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), COMPUTE_CAPABILITY_MINOR, index)
    return {"name": name.value.decode(errors="replace"), "compute_capability": [major.value, minor.value]}


def probe_runtime() -> dict[str, Any]:
    """Load ONNX Runtime's GPU providers as ONNX Runtime would: None for one that loads, else what is missing."""
    packages = {}
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return {"packages": packages, "providers": {}}
    folder = Path(spec.origin).parent / "capi"
    providers: dict[str, str | None] = {}
    for name, library in PROVIDERS.items():
        if (folder / library).is_file():
            try:
                importlib.import_module("onnxruntime")  # a provider calls it while it is loaded, and crashes where it is not there
                for each in (str(folder / library), *LOADED_LATER.get(name, ())):
                    ctypes.CDLL(each)
                providers[name] = None
            except (ImportError, OSError) as error:
                providers[name] = str(error)
    return {"packages": packages, "providers": providers}


if __name__ == "__main__":
    print(json.dumps({"driver": probe_driver(), "runtime": probe_runtime()}))
