"""ONNX Runtime in a process of its own, for proving models while they are installed. The render path never starts one."""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from deploy.local.home import open_home
from orchestrator.errors import StorageError, UnsuitableModel
from orchestrator.models.wrapping import Arrays

ANSWER_TIMEOUT_S = 300.0
"""How long one run may take, s. The largest network here needs 10 s an item on two cores, 40 s a batch."""

PROCESSOR_S_PER_ITEM = 60.0
"""Processor time (of all cores together) that loading a file and running it on one item may take, s: three times what the largest network here
takes. A file that wants more is broken or hostile. A busy host does not make it more."""

MAX_MEMORY_BYTES = 24 << 30
"""Address space of the process; a file that wants more is broken or hostile."""


_PROGRAM = Path(__file__).with_name("onnx_runner.py")
"""What runs in that process, in the environment that has ONNX Runtime."""


class OnnxRunner:
    """A process that runs ONNX files. Leave the `with` block to end it."""

    def __init__(self, triton_home: Path) -> None:
        """Start ONNX Runtime from Triton's own environment, or from this one where Triton is not installed.

        Raises:
            StorageError: there is none in either.
        """
        home = open_home(triton_home)
        if home is not None:
            python, environment = str(home.python), home.environment()
        elif importlib.util.find_spec("onnxruntime") is not None:
            python, environment = sys.executable, dict(os.environ)
        else:
            raise StorageError(f"Installing a model needs ONNX Runtime to prove it; run `python -m deploy.local.install --home {triton_home}` first.")
        environment.pop("OMP_NUM_THREADS", None)
        self._folder = TemporaryDirectory(prefix="lipsync-proof-")
        self.folder = Path(self._folder.name)
        """For files of the proof; removed with the runner."""
        self._process = subprocess.Popen(
            [python, "-I", str(_PROGRAM), str(MAX_MEMORY_BYTES)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self.runtime = str(self._answer()["runtime"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process and remove its files."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._folder.cleanup()

    def run(self, model: Path, feeds: Arrays, names: list[str] | None = None, items: int = 1) -> dict[str, NDArray[Any]]:
        """Run a file once, on as many items as said, and return its outputs, or those named.

        Raises:
            UnsuitableModel: ONNX Runtime cannot load or run it.
        """
        request, results = self.folder / "feeds.npz", self.folder / "results.npz"
        np.savez(request, **dict(feeds))  # type: ignore[arg-type]
        assert self._process.stdin is not None
        paths = {"model": str(model), "feeds": str(request), "results": str(results)}
        line = json.dumps({**paths, "names": names, "processor_s": PROCESSOR_S_PER_ITEM * items})
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._ended() from None
        error = self._answer()["error"]
        if error is not None:
            raise UnsuitableModel(f"ONNX Runtime cannot run the model: {error}.")
        with np.load(results) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = self._process.stdout.readline() if ready else ""
        if not ready:
            raise UnsuitableModel(f"ONNX Runtime did not finish the model in {ANSWER_TIMEOUT_S:g} s; it is too large for this host, or broken.")
        if not line:
            raise self._ended()
        return dict(json.loads(line))

    def _ended(self) -> UnsuitableModel:
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return UnsuitableModel(
                f"ONNX Runtime needs more than {PROCESSOR_S_PER_ITEM:g} s of processor time for one item of the model; "
                "it is none of the networks this is for, or broken."
            )
        return UnsuitableModel(f"ONNX Runtime crashed on the model (status {status}); the file is broken, or needs more memory than allowed.")
