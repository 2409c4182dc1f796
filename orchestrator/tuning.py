"""What fits this host, by measuring: the lip model's instances and queue delay, and how many renders run at a time."""

import json
import os
import shutil
import tempfile
import threading
import time
import uuid
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from deploy.local.server import LocalTriton, TritonStartError
from orchestrator.cores import available_cores
from orchestrator.embedded import check_repository, device_config
from orchestrator.errors import InferenceUnavailable, RenderError, StorageError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_DETECTOR, LIP_SYNC, describe_model
from orchestrator.inference.golden import golden_inputs
from orchestrator.inference.loadtest import Load, run_load
from orchestrator.inference.selftest import output_of
from orchestrator.jobs.capacity import LEAST_RENDERS, TUNED_FILE, available_bytes, job_bytes, within_memory
from orchestrator.models.config import CONFIG_FILES, Device, batching_of, with_batching
from orchestrator.pipeline.frames import REQUESTS_IN_FLIGHT
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.settings import Settings

QUEUE_DELAYS_US = (0, 500, 2000)
"""How long Triton may wait for a batch to fill: not at all, about a request's way, and about a cheap batch's time on a GPU."""

TIE = 0.03
"""Difference in speed that counts as none: then the choice that takes less memory, or makes others wait less, is taken."""

MAX_RENDERS = 8

_CLIP_S, _FRAME_RATE, _SIZE_WH = 3, 25, (1280, 720)


@dataclass(frozen=True, slots=True)
class ModelTrial:
    """The lip model in one configuration, called as a render calls it."""

    instance_count: int
    queue_delay_us: int
    frames_per_s: float
    mean_batch: float


@dataclass(frozen=True, slots=True)
class RenderTrial:
    """So many renders at a time."""

    count: int
    frames_per_s: float
    """Of all together."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured and chosen."""

    device: Device
    cores: int
    model_trials: tuple[ModelTrial, ...]
    """Empty where the lip model is an ensemble, which has no instances of its own."""
    model: ModelTrial | None
    render_trials: tuple[RenderTrial, ...]
    concurrent_renders: int


def tune(settings: Settings, seconds: float, on_trial: Callable[[ModelTrial | RenderTrial], None] = lambda trial: None) -> Tuning:
    """Measure on copies of the model repository; nothing is changed.

    Args:
        settings: name the repository and the device.
        seconds: how long each configuration of the model is called.
        on_trial: called with each result.

    Raises:
        ContractMismatch, GpuUnavailable, InferenceError: the models cannot be used here.
    """
    check_repository(settings)
    name = device_config(settings)
    device = cast(Device, name or "gpu")
    with tempfile.TemporaryDirectory(prefix="lipsync-tune-") as folder:
        trials: list[ModelTrial] = []
        for instance_count, delay_us in candidates(settings, device):
            with _serving(settings, Path(folder), device, (instance_count, delay_us)) as client:
                trials.append(_try_model(client, instance_count, delay_us, seconds))
                on_trial(trials[-1])
        model = best_model(trials)
        renders: list[RenderTrial] = []
        with _serving(settings, Path(folder), device, None if model is None else (model.instance_count, model.queue_delay_us)) as client:
            video, speech = _clip(client, Path(folder)), _speech(Path(folder))
            tracks = TrackCache(Path(folder) / "tracks", 1 << 24)
            _render_at_once(client, video, speech, Path(folder), tracks, 1)  # the analysis is kept, and everything is warm
            most = within_memory(MAX_RENDERS, available_bytes(), job_bytes(settings))
            while not renders or (is_worth_more(renders) and 2 * renders[-1].count <= most):
                count = 2 * renders[-1].count if renders else 1
                elapsed_s = _render_at_once(client, video, speech, Path(folder), tracks, count)
                renders.append(RenderTrial(count, round(count * _CLIP_S * _FRAME_RATE / elapsed_s, 1)))
                on_trial(renders[-1])
    return Tuning(device, available_cores(), tuple(trials), model, tuple(renders), best_count(renders))


def apply(settings: Settings, tuning: Tuning) -> list[Path]:
    """Write the choice: into the lip model's configuration, and for the service into the data folder. Returns the files.

    Triton reads the first when it starts next, the service the second.

    Raises:
        StorageError: a file cannot be written.
    """
    written = []
    try:
        if tuning.model is not None:
            config = settings.model_repository / LIP_SYNC / CONFIG_FILES[tuning.device]
            _place(config, with_batching(config.read_text(), tuning.model.instance_count, tuning.model.queue_delay_us))
            written.append(config)
        settings.data.mkdir(parents=True, exist_ok=True)
        _place(settings.data / TUNED_FILE, json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(tuning)}, indent=1) + "\n")
        written.append(settings.data / TUNED_FILE)
    except OSError as exc:
        raise StorageError(f"The choice cannot be written to {exc.filename} ({exc.strerror}); check the folder and its owner.") from exc
    return written


def candidates(settings: Settings, device: Device) -> Iterator[tuple[int, int]]:
    """Yield the instance counts and queue delays, us, that are tried; none for an ensemble.

    Never one instance where there is a queue policy, and only one with TensorRT: see `INSTANCE_COUNT` and the configurations' writer.
    """
    if batching_of((settings.model_repository / LIP_SYNC / CONFIG_FILES[device]).read_text()) is None:
        return
    cores = available_cores()
    counts = {"tensorrt": {1}, "gpu": {2, 3, 4}, "cpu": {2, max(2, cores // 2), min(16, max(2, cores))}}[device]
    for instance_count in sorted(counts):
        for delay_us in QUEUE_DELAYS_US:
            yield instance_count, delay_us


def best_model(trials: Sequence[ModelTrial]) -> ModelTrial | None:
    """Return the fastest; among those as fast, the one with the fewest instances, then the shortest delay."""
    if not trials:
        return None
    fastest = max(trial.frames_per_s for trial in trials)
    as_fast = [trial for trial in trials if trial.frames_per_s >= (1 - TIE) * fastest]
    return min(as_fast, key=lambda trial: (trial.instance_count, trial.queue_delay_us))


def is_worth_more(trials: Sequence[RenderTrial]) -> bool:
    """Tell whether the last doubling made the host faster, so that the next one may, too."""
    return len(trials) < 2 or trials[-1].frames_per_s > (1 + TIE) * max(trial.frames_per_s for trial in trials[:-1])


def best_count(trials: Sequence[RenderTrial]) -> int:
    """Return the smallest number of renders that is as fast as any, and at least `LEAST_RENDERS`."""
    fastest = max(trial.frames_per_s for trial in trials)
    return max(LEAST_RENDERS, min(trial.count for trial in trials if trial.frames_per_s >= (1 - TIE) * fastest))


@contextmanager
def _serving(settings: Settings, folder: Path, device: Device, batching: tuple[int, int] | None) -> Iterator[TritonClient]:
    """Serve a copy of the repository in which the lip model has another instance count and queue delay."""
    repository = folder / uuid.uuid4().hex
    shutil.copytree(settings.model_repository, repository, copy_function=_linked, ignore=shutil.ignore_patterns(".*"))
    if batching is not None:
        config = repository / LIP_SYNC / CONFIG_FILES[device]
        _place(config, with_batching(config.read_text(), *batching))
    try:
        name = None if device == "gpu" else device
        with LocalTriton.start(settings.triton_home, repository, config_name=name) as server, TritonClient(server.grpc_address) as client:
            yield client
    except TritonStartError as exc:
        raise InferenceUnavailable(f"The embedded Triton did not start with {batching or 'the configuration as it is'}. {exc}") from exc
    finally:
        shutil.rmtree(repository)


def _try_model(client: TritonClient, instance_count: int, delay_us: int, seconds: float) -> ModelTrial:
    description = describe_model(client, LIP_SYNC)
    samples = golden_inputs(description, description.request_batch_size)
    load = Load(description.request_batch_size, REQUESTS_IN_FLIGHT, client.transport == "shared_memory", seconds)
    result = run_load(client, description, output_of(LIP_SYNC), samples, load)
    return ModelTrial(instance_count, delay_us, result.items_per_s, result.mean_batch)


def _render_at_once(client: TritonClient, video: Path, speech: Path, folder: Path, tracks: TrackCache, count: int) -> float:
    """Render so many times at the same time; returns how long it took, s."""
    errors: list[RenderError] = []

    def run(index: int) -> None:
        try:
            render(plan_render(video, speech, folder / f"{index}.mp4", RenderOptions()), client, tracks=tracks)
        except RenderError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=run, args=(index,), name=f"tune-{index}") for index in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - began


def _clip(client: TritonClient, folder: Path) -> Path:
    """Write a face in front of noise, 720p: about what a camera's picture costs to encode."""
    picture = golden_inputs(describe_model(client, FACE_DETECTOR), 1)["image"][0]
    width, height = _SIZE_WH
    face = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), (height, height), interpolation=cv2.INTER_CUBIC)
    canvas = cv2.copyMakeBorder(face, 0, 0, (width - height) // 2, (width - height) // 2, cv2.BORDER_REFLECT)
    noise = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), _FRAME_RATE, _SIZE_WH)
    for index in range(_CLIP_S * _FRAME_RATE):
        moved = cv2.warpAffine(canvas, np.array([[1.0, 0, 4 * np.sin(index / 8)], [0, 1.0, 0]]), _SIZE_WH, borderMode=cv2.BORDER_REFLECT)
        grain = noise.normal(0, 2, (height, width, 1)).astype(np.float32)
        writer.write(np.asarray(np.clip(moved + grain, 0, 255), np.uint8))
    writer.release()
    return folder / "clip.mp4"


def _speech(folder: Path) -> Path:
    """Write noise with syllables."""
    time_s = np.arange(_CLIP_S * 16_000) / 16_000
    samples = np.random.default_rng(0).normal(0, 0.2, len(time_s)) * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * time_s))
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return folder / "speech.wav"


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _place(path: Path, text: str) -> None:
    """Put a file in place in one step; one that is linked elsewhere stays there as it was."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    partial.write_text(text)
    partial.replace(path)
