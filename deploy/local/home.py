"""A Triton home: the folder with an installed Triton, its paths, and the environment its processes need."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOME = Path(__file__).resolve().parents[2] / ".triton"
"""Beside the source tree and git-ignored, so that two checkouts do not share one installation."""


ENGINES = "tensorrt_cache"
"""Folder of TensorRT's built engines in a home, with `-N` behind it for those of GPU N from 1 up."""


@dataclass(frozen=True, slots=True)
class TritonHome:
    """The paths inside a home. Creates nothing."""

    root: Path
    site_packages: Path
    """Where pip put the wheel and what the backend imports."""
    library_folder: Path
    """Where the shared library of the environment's Python lies; Triton's stub embeds that Python."""

    @property
    def python(self) -> Path:
        """The interpreter of the home's virtual environment."""
        return venv_folder(self.root) / "bin" / "python3"

    @property
    def backends(self) -> Path:
        """The folder that Triton is told to find its backends in."""
        return backends_folder(self.root)

    @property
    def stub(self) -> Path:
        """The program Triton starts once for every model instance."""
        return self.backends / "python" / "triton_python_backend_stub"

    @property
    def onnxruntime_model(self) -> Path:
        """The home's copy of the onnxruntime backend."""
        return self.backends / "onnxruntime" / "model.py"

    @property
    def tritonserver(self) -> Path:
        """The server's program."""
        return self.site_packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    def cuda_libraries(self) -> list[Path]:
        """Name the folders of CUDA libraries that pip installed beside ONNX Runtime: none where it is for the CPU."""
        return [folder for pattern in ("nvidia/*/lib", "tensorrt_libs") for folder in sorted(self.site_packages.glob(pattern))]

    def environment(self) -> dict[str, str]:
        """Make the environment for the server and its stubs from this process's own.

        The venv comes first on PATH, because the stub embeds the first `python3` there. Nothing that steers Python is handed on: the
        owner's PYTHONPATH would put its numpy before the venv's. OpenMP and OpenBLAS get one thread each, because the threads that
        compute are ONNX Runtime's.
        """
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"}
        env["PATH"] = os.pathsep.join([str(venv_folder(self.root) / "bin"), env.get("PATH", os.defpath)])
        libraries = [str(self.site_packages / "nvidia_pytriton.libs"), *map(str, self.cuda_libraries()), str(self.library_folder)]
        libraries.append(env.get("LD_LIBRARY_PATH", ""))
        env["LD_LIBRARY_PATH"] = os.pathsep.join(folder for folder in libraries if folder)
        env |= {"PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        return env


def venv_folder(root: Path) -> Path:
    """Name the virtual environment of the home at `root`."""
    return root / "venv"


def backends_folder(root: Path) -> Path:
    """Name the backend folder of the home at `root`."""
    return root / "backends"


def stamp_file(root: Path) -> Path:
    """Name the file that an install writes last; a home without it is not usable."""
    return root / "stamp.json"


def read_stamp(root: Path) -> dict[str, str]:
    """Read what the last finished install recorded: an empty record when there was none."""
    try:
        record = json.loads(stamp_file(root).read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in record.items()} if isinstance(record, dict) else {}


def open_home(root: Path) -> TritonHome | None:
    """Open the home at `root`; None when no install has finished there or its parts have gone since."""
    record = read_stamp(root)
    try:
        home = TritonHome(root.absolute(), Path(record["site_packages"]), Path(record["library_folder"]))
    except KeyError:
        return None
    parts = (home.tritonserver, home.stub, home.onnxruntime_model, home.python)
    return home if all(part.exists() for part in parts) else None
