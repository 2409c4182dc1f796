"""Triton's log: keep it, read it, and find in it why Triton did not start."""

import fcntl
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import BinaryIO

from deploy.local.guard import STUB_DIED

FAILURES = (
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?:[A-Z][a-z ]+: )?(?P<reason>.+)"),
    re.compile(r"failed to load model '(?P<model>[^']+)': (?P<reason>.+)"),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.+)"),
)
"""How Triton 2.51 says that a model is at fault."""

OTHER_FAILURES = (
    re.compile(r"(?P<reason>failed to start \w+ service: .+)"),
    re.compile(r"tritonserver: (?P<reason>.+)"),
    re.compile(r"error: (?P<reason>creating server: .+)"),
    re.compile(r"(?P<reason>^\w*Error: .+)"),
)
"""How Triton, or its guard, says that something else is; the most telling first."""

SYNTAX_ERROR = re.compile(r"Error parsing text-format inference\.ModelConfig: (?P<reason>.+)")
"""Where a config.pbtxt cannot be read; Triton says this in a line before the one that names the model."""

LOST_STUB = "is not healthy"
"""In Triton's reason when the process of a model instance died."""

COLOUR = re.compile(r"\x1b\[[\d;]*m")
"""ONNX Runtime colours its errors."""

NO_GPU = "no GPUs are available"
"""In Triton's reason when a configuration asks for KIND_GPU and the machine has none."""

NOISE = re.compile(r"[+|]|I\d{4} |.*(CudaDriverHelper|NVML|DCGM|pinned_memory_manager|failed to load|Failed to create instance|Poll failed)")
"""Tables, information, complaints made on every machine without a GPU, and what the reason for a model's failure already says."""

TAIL_LINES = 8
"""How much of the log a failure shows."""


MAX_LOG_BYTES = 16 << 20
"""Largest size of a log that is read as it grows, bytes: months of failed requests may not fill the disk."""


class TritonLog:
    """The file that Triton and its guard write to, and what they wrote into it since it was opened here.

    Without a path the file has no name, so that nothing is left of it when the last process that uses it has ended, however it ends.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the log; one that exists is appended to."""
        self.file: BinaryIO
        if path is None:
            self.file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by close()
            fcntl.fcntl(self.file, fcntl.F_SETFL, os.O_APPEND)  # Triton, too, writes at the end, wherever that is now
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a+b")
        self._position = os.fstat(self.file.fileno()).st_size
        self._start = self._position

    def size_bytes(self) -> int:
        """Return how much was written since the log was opened."""
        return os.fstat(self.file.fileno()).st_size - self._start

    def text(self) -> str:
        """Return everything written since the log was opened."""
        return os.pread(self.file.fileno(), self.size_bytes(), self._start).decode(errors="replace")

    def read_new(self) -> str:
        """Return what was written since the last call. A log that has become too large is emptied then."""
        data = os.pread(self.file.fileno(), 1 << 20, self._position)
        self._position += len(data)
        if self.size_bytes() > MAX_LOG_BYTES:
            os.ftruncate(self.file.fileno(), self._start)
            self._position = self._start
        return data.decode(errors="replace")

    def close(self) -> None:
        """Close this process's end of the file."""
        self.file.close()


def explain_failure(log: str, status: int) -> str:
    """Turn the log of a Triton that did not start into a message: the models at fault and why, else what Triton said last.

    `status` is the guard's: 128 + N when signal N ended Triton.
    """
    models = _models_at_fault(log)
    if models:
        syntax = SYNTAX_ERROR.search(log)
        detail = f" (line:column {syntax['reason']})" if syntax else ""
        return "\n".join(f"Triton could not load the model {model!r}: {reason}{detail}" for model, reason in models.items()) + show_end(log)
    for pattern in OTHER_FAILURES:
        if matches := [match for line in log.splitlines() if (match := pattern.search(line))]:
            return f"Triton did not start: {_plain(matches[-1]['reason'])}{show_end(log)}"
    if status == STUB_DIED:
        how = "lost the process of a model"
    else:
        how = f"crashed ({signal.Signals(status - 128).name})" if status > 128 else f"ended with status {status}"
    return f"Triton {how} while it was starting.{show_end(log)}"


def is_accident(log: str, status: int) -> bool:
    """Tell whether a Triton that did not start was killed or lost a stub, and did not say that a model or an option is at fault.

    Stopped for a second in the middle of it (a paused container or virtual machine), half of all starts end so: Triton and its stubs wait a second
    for each other's locks. `status` is that of `explain_failure`, or negative: the guard itself was killed.
    """
    if reasons := _models_at_fault(log).values():
        return all(LOST_STUB in reason for reason in reasons)
    return status < 0 or status > 128 or status == STUB_DIED


def is_port_taken(log: str) -> bool:
    """Tell whether Triton gave up because another program had bound one of its ports."""
    return re.search(r"failed to start \w+ service: .*already in use", log) is not None


def show_end(log: str) -> str:
    """Show the last warnings and errors of a log, without the option list that follows a wrong option."""
    text = COLOUR.sub("", log.partition("Usage: tritonserver")[0])
    lines = [line for line in text.splitlines() if line.strip() and not NOISE.match(line)]
    return "\n".join(["", "The end of its log:", *(f"  {line[:300]}" for line in lines[-TAIL_LINES:])]) if lines else ""


def _models_at_fault(log: str) -> dict[str, str]:
    """Find the models that did not load, each with the reason."""
    matches = (match for line in log.splitlines() for pattern in FAILURES if (match := pattern.search(line)))
    return {match["model"]: _plain(match["reason"]) for match in matches}


def _plain(reason: str) -> str:
    """Cut off the traceback, which a backend puts after an escaped line break, and the quotes around it; say what to do without a GPU."""
    plain = reason.partition("\\n\\nAt:\\n")[0].removeprefix("TritonModelException: ").strip().removesuffix('"')
    return f"{plain}; serve on the CPU (model config name `cpu`), or give Triton a GPU" if NO_GPU in plain else plain
