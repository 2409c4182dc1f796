"""What a run was made on, and the record of it in `results`."""

import io
import json
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import onnxruntime

from orchestrator.cores import available_cores
from tests.bench.scores import Figure

RESULTS = Path(__file__).parent / "results"


def describe_machine(triton: str) -> dict[str, Any]:
    """Describe the machine and what runs on it; `triton` is the server's name and version."""
    return {
        "cpu": _from_proc("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine(),
        "cores": available_cores(),
        "memory_gib": round(int(_from_proc("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) / (1 << 20), 1),
        "gpu": _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "triton": triton,
        "onnxruntime": onnxruntime.__version__,
        "pyav": av.__version__,
        "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
        "x264": _x264(),
        "opencv": _version("opencv-python-headless"),
        "numpy": _version("numpy"),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "is_modified": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
    }


def record(machine: dict[str, Any], figures: list[Figure], elapsed_s: float, load: float, folder: Path = RESULTS) -> Path:
    """Write a run down; returns the file, a new one for each run of a day."""
    now = datetime.now(UTC)
    stem = f"{now:%Y-%m-%d}-{machine_name(machine)}"
    taken = len(list(folder.glob(f"{stem}*.json")))
    path = folder / (f"{stem}-{taken + 1}.json" if taken else f"{stem}.json")
    content = {
        "at": now.isoformat(timespec="seconds"),
        "elapsed_s": round(elapsed_s),
        "load_before": round(load, 2),
        "machine": machine,
        "figures": [figure.as_json() for figure in figures],
    }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def last_record(machine: dict[str, Any], folder: Path = RESULTS) -> dict[str, Any] | None:
    """Return the last run on a machine like this one, None if there is none."""
    runs = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    alike = [run for run in runs if machine_name(run["machine"]) == machine_name(machine)]
    return max(alike, key=lambda run: str(run["at"]), default=None)


def machine_name(machine: dict[str, Any]) -> str:
    """Return a name for machines on which figures can be compared: processor, cores and GPU."""
    text = f"{machine['cpu']} {machine['cores']} cores {machine['gpu']}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _x264() -> str:
    """Return x264's build, which it writes into what it encodes."""
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    found = re.search(rb"x264 - core (\d+ ?r?\d*)", file.getvalue())
    return found[1].decode().strip() if found else ""


def _from_proc(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text())
    return found[1].strip() if found else ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, cwd=RESULTS.parents[2]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
