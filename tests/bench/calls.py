"""The lip model called by itself: on Triton as a render calls it, and inside this process with ONNX Runtime."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from orchestrator.cores import available_cores
from orchestrator.inference.client import TritonClient
from orchestrator.inference.lip_model import LipModel
from orchestrator.pipeline.concurrency import in_flight
from orchestrator.pipeline.frames import REQUESTS_IN_FLIGHT

Images = Sequence[NDArray[np.uint8]]


def batch_for(model: LipModel) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.float32]]]:
    """Return a full request's faces and windows of speech: noise, which costs a network what faces cost."""
    noise = np.random.default_rng(0)
    faces = [noise.integers(0, 256, (model.size_px, model.size_px, 3), np.uint8) for _ in range(model.batch_size)]
    windows = [noise.uniform(-4, 4, (80, 16)).astype(np.float32) for _ in range(model.batch_size)]
    return faces, windows


def call_for(model: LipModel, seconds: float, frames: int = 1 << 30) -> float:
    """Call a model on Triton as a render does, with full requests, as many in flight; returns its time per frame, s.

    It goes on for so long, or until so many frames are done.
    """
    faces, windows = batch_for(model)
    model.generate(faces, windows).result()
    began = time.perf_counter()
    done = 0

    def requests() -> Any:
        sent = 0
        while time.perf_counter() - began < seconds and sent < frames:
            sent += len(faces)
            yield sent

    def send(_: int) -> Future[NDArray[np.uint8]]:
        return model.generate(faces, windows)

    for _, mouths in in_flight(send, requests(), REQUESTS_IN_FLIGHT):
        done += len(mouths)
    return (time.perf_counter() - began) / done


def in_process(repository: Path, client: TritonClient) -> Callable[[float], float]:
    """Load the lip model of a repository into this process; returns what calls it for so long and tells its time per frame, s."""
    model = LipModel(client)
    faces, windows = batch_for(model)
    inputs = {"face": np.stack(faces), "audio": np.stack(windows).reshape(len(windows), *model.audio_dims)}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    file = repository / "lip_sync" / model.description.version / "model.onnx"
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(["mouth"], inputs)

    def call(seconds: float) -> float:
        began, done = time.perf_counter(), 0
        while (elapsed_s := time.perf_counter() - began) < seconds:
            session.run(["mouth"], inputs)
            done += len(faces)
        return elapsed_s / done

    return call
