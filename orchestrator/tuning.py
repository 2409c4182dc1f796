"""What fits this host, by measuring: the lip model's batching, TensorRT, the encoder's threads, how many renders run at a time, and NVDEC."""

import json
import logging
import os
import shutil
import tempfile
import time
import uuid
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from deploy.local.gpu import gpu_expected
from deploy.local.server import LocalTriton, TritonStartError
from orchestrator.cores import available_cores
from orchestrator.embedded import check_repository, device_config, open_triton
from orchestrator.errors import GpuUnavailable, InferenceUnavailable, StorageError
from orchestrator.files import storage_error, write_whole
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_DETECTOR, LIP_SYNC, describe_model, output_of
from orchestrator.inference.golden import golden_inputs
from orchestrator.inference.loadtest import Load, run_load
from orchestrator.jobs.capacity import LEAST_RENDERS, available_bytes, job_bytes, within_memory
from orchestrator.media.encoding import Encoding
from orchestrator.media.nvdec import nvdec_problem
from orchestrator.models.config import CONFIG_FILES, Batching, Device, batching_of, max_batch_size_of, with_batching
from orchestrator.pipeline.frames import REQUESTS_IN_FLIGHT
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.tracks import TrackCache
from orchestrator.settings import DecoderChoice, Settings
from orchestrator.tuned import TUNED_FILE, Tuned

log = logging.getLogger("lipsync.tuning")

QUEUE_DELAYS_US = (0, 500, 2000)
"""How long Triton may wait for a batch to fill: not at all, about a request's way, and about a cheap batch's time on a GPU."""

TIE = 0.03
"""Difference in speed that counts as none: then the choice that takes less memory, or makes others wait less, is taken."""

MAX_RENDERS = 8

_CLIP_S, _FRAME_RATE, _SIZE_WH = 3, 25, (1280, 720)

_RUNS = 2
"""Runs of each configuration of the model, in turns, and of each lone render, of which the faster counts: what else the machine does only makes
them slower."""


@dataclass(frozen=True, slots=True)
class ModelTrial:
    """The lip model in one configuration, called as a render calls it."""

    device: Device
    batching: Batching
    frames_per_s: float
    mean_batch: float


@dataclass(frozen=True, slots=True)
class RenderTrial:
    """So many renders at a time, each with an encoder of so many threads."""

    encoder_threads: int
    count: int
    frames_per_s: float
    """Of all together."""
    decoder: DecoderChoice = "software"


Trial = ModelTrial | RenderTrial
_Trial = TypeVar("_Trial", ModelTrial, RenderTrial)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured and chosen."""

    model_trials: tuple[ModelTrial, ...]
    """Empty where the lip model is an ensemble, which has no batching of its own, and where Triton runs by itself."""
    model: ModelTrial | None
    render_trials: tuple[RenderTrial, ...]
    chosen: Tuned


def tune(settings: Settings, seconds: float, on_trial: Callable[[Trial], None] = lambda trial: None) -> Tuning:
    """Measure on copies of the model repository; nothing is changed. On a Triton that runs by itself, only renders are measured.

    Args:
        settings: name the repository and the device, or the Triton.
        seconds: how long each configuration of the model is called.
        on_trial: called with each run.

    Raises:
        ContractMismatch, GpuUnavailable, InferenceError: the models cannot be used here.
    """
    with tempfile.TemporaryDirectory(prefix="lipsync-tune-") as folder:
        if settings.triton is not None:
            with open_triton(settings) as client:
                return _tuned(settings, client, Path(folder), [], None, on_trial)
        check_repository(settings)
        devices = _devices(settings)
        trials = _try_devices(settings, Path(folder), devices, seconds, on_trial)
        model = best_model(trials)
        device = devices[0] if model is None else model.device
        with _serving(settings, Path(folder), device, None if model is None else model.batching) as client:
            return _tuned(settings, client, Path(folder), trials, device, on_trial)


def check_places(settings: Settings) -> None:
    """Check that a choice can be written down, before minutes are spent on it.

    Raises:
        ContractMismatch: the model repository lacks a role.
        StorageError: a folder cannot be written.
    """
    places = [settings.data]
    if settings.triton is None:
        check_repository(settings)
        model = settings.model_repository / LIP_SYNC
        if batching_of((model / CONFIG_FILES["gpu"]).read_text()) is not None:
            places.append(model)
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as exc:
            raise _unwritten(place, exc) from exc


def apply(settings: Settings, tuning: Tuning) -> list[Path]:
    """Write the choice: into the lip model's configuration, and for the service into the data folder. Returns the files.

    Triton reads the first when it starts next, the service the second.

    Raises:
        StorageError: a file cannot be written.
    """
    written = []
    measured = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "models": tuning.model_trials, "renders": tuning.render_trials}
    try:
        if tuning.model is not None:
            config = settings.model_repository / LIP_SYNC / CONFIG_FILES[tuning.model.device]
            write_whole(config, with_batching(config.read_text(), tuning.model.batching))
            written.append(config)
        settings.data.mkdir(parents=True, exist_ok=True)
        write_whole(settings.data / TUNED_FILE, json.dumps({**tuning.chosen.model_dump(), **measured}, default=asdict, indent=1) + "\n")
        written.append(settings.data / TUNED_FILE)
    except OSError as exc:
        raise _unwritten(exc.filename, exc) from exc
    return written


def batchings(device: Device, max_batch_size: int, cores: int) -> list[Callable[[Batching], Iterator[Batching]]]:
    """Return what is tried, one thing after the other, each with the best of those before: instances, size of batches, queue delay.

    Never one instance where there is a queue policy, and only one with TensorRT: see `INSTANCE_COUNT` and the configurations' writer.
    """
    counts = {"tensorrt": {1}, "gpu": {2, 3, 4}, "cpu": {2, max(2, cores // 2), min(16, max(2, cores))}}[device]
    sizes = [size for size in (max_batch_size // 2, max_batch_size // 4) if size > 1]
    return [
        lambda best: (replace(best, instance_count=count) for count in sorted(counts)),
        lambda best: (replace(best, preferred_size=size) for size in sizes),
        lambda best: (replace(best, queue_delay_us=delay_us) for delay_us in QUEUE_DELAYS_US if delay_us != best.queue_delay_us),
    ]


def best_model(trials: Sequence[ModelTrial]) -> ModelTrial | None:
    """Return the fastest; among those as fast, CUDA before TensorRT, the one with the fewest instances, no size, then the shortest delay."""
    if not trials:
        return None

    def cost(trial: ModelTrial) -> tuple[bool, int, int, int]:
        batching = trial.batching
        return trial.device == "tensorrt", batching.instance_count, batching.preferred_size or 0, batching.queue_delay_us

    return min(_as_fast_as_any(trials), key=cost)


def is_worth_more(trials: Sequence[RenderTrial]) -> bool:
    """Tell whether the last doubling made the host faster, so that the next one may, too."""
    return len(trials) < 2 or trials[-1].frames_per_s > (1 + TIE) * max(trial.frames_per_s for trial in trials[:-1])


def best_count(trials: Sequence[RenderTrial]) -> int:
    """Return the smallest number of renders that is as fast as any, and at least `LEAST_RENDERS`."""
    return max(LEAST_RENDERS, min(trial.count for trial in _as_fast_as_any(trials)))


def best_threads(trials: Sequence[RenderTrial]) -> RenderTrial:
    """Return the lone render that is as fast as any with the fewest threads: more would take memory, and cores from other renders, for nothing."""
    return min(_as_fast_as_any(trials), key=lambda trial: trial.encoder_threads)


def best_decoder(software: RenderTrial, nvdec: RenderTrial) -> DecoderChoice:
    """Return NVDEC where it makes the host faster, which is worth the GPU's memory that it takes."""
    return "nvdec" if nvdec.frames_per_s > (1 + TIE) * software.frames_per_s else "software"


def _as_fast_as_any(trials: Sequence[_Trial]) -> list[_Trial]:
    fastest = max(trial.frames_per_s for trial in trials)
    return [trial for trial in trials if trial.frames_per_s >= (1 - TIE) * fastest]


def _devices(settings: Settings) -> list[Device]:
    """Return what the models may run on: what the settings say; where they leave it open and there is a GPU, both of its ways that work here.

    What was chosen before does not count.

    Raises:
        GpuUnavailable: a GPU is asked for or shows, and cannot be used.
    """
    if settings.device != "auto":
        device_config(settings)
        return [settings.device]
    if (sign := gpu_expected()) is None:
        return ["cpu"]
    try:
        device_config(settings.model_copy(update={"device": "gpu"}))
    except GpuUnavailable as exc:
        raise GpuUnavailable(f"{exc} A GPU is expected here because of {sign}.") from exc
    try:
        device_config(settings.model_copy(update={"device": "tensorrt"}))
    except GpuUnavailable as exc:
        log.info("TensorRT is left out: %s", exc)
        return ["gpu"]
    return ["gpu", "tensorrt"]


def _try_devices(settings: Settings, folder: Path, devices: Sequence[Device], seconds: float, on_trial: Callable[[Trial], None]) -> list[ModelTrial]:
    """Measure the lip model on each device. A TensorRT that nobody asked for, and that does not take the models, is left out."""
    trials: list[ModelTrial] = []
    for device in devices:
        try:
            trials += _try_batchings(settings, folder, device, seconds, on_trial)
        except GpuUnavailable as exc:
            if device == devices[0]:
                raise
            log.warning("%s is left out: %s", device, exc)
    return trials


def _try_batchings(settings: Settings, folder: Path, device: Device, seconds: float, on_trial: Callable[[Trial], None]) -> list[ModelTrial]:
    """Measure the lip model on a device; nothing where it is an ensemble."""
    config = (settings.model_repository / LIP_SYNC / CONFIG_FILES[device]).read_text()
    before = batching_of(config)
    trials: list[ModelTrial] = []
    if before is None:
        return trials
    best = Batching(before.instance_count, QUEUE_DELAYS_US[0])
    for choices in batchings(device, max_batch_size_of(config), available_cores()):
        tried = list(choices(best))
        runs: list[list[ModelTrial]] = [[] for _ in tried]
        for _ in range(_RUNS):
            for batching, results in zip(tried, runs, strict=True):
                with _serving(settings, folder, device, batching) as client:
                    results.append(_try_model(client, device, batching, seconds))
                on_trial(results[-1])
        trials += [max(results, key=lambda trial: trial.frames_per_s) for results in runs]
        chosen = best_model(trials)
        best = best if chosen is None else chosen.batching
    return trials


def _tuned(
    settings: Settings, client: TritonClient, folder: Path, models: Sequence[ModelTrial], device: Device | None, on_trial: Callable[[Trial], None]
) -> Tuning:
    """Measure renders with the models as they are served, and put together what was chosen."""
    made, video, speech = _clip(client, folder), folder / "h264.mp4", _speech(folder)
    tracks = TrackCache(folder / "tracks", 1 << 24)

    def measure(threads: int, count: int, runs: int, decoder: DecoderChoice = "software") -> RenderTrial:
        elapsed_s = min(_render_at_once(client, video, speech, folder, tracks, count, threads, decoder) for _ in range(runs))
        trial = RenderTrial(threads, count, round(count * _CLIP_S * _FRAME_RATE / elapsed_s, 1), decoder)
        on_trial(trial)
        return trial

    threads = Encoding().resolved_thread_count
    render(plan_render(made, speech, video), client)  # H.264, as what is rendered mostly is
    _render_at_once(client, video, speech, folder, tracks, 1, threads, "software")  # the analysis is kept, and everything is warm
    alone = [measure(threads, 1, _RUNS)]
    while best_threads(alone) == alone[-1] and alone[-1].encoder_threads > 1:
        alone.append(measure(alone[-1].encoder_threads // 2, 1, _RUNS))
    together = [best_threads(alone)]
    threads = together[0].encoder_threads
    most = within_memory(MAX_RENDERS, available_bytes(), job_bytes(settings.model_copy(update={"encoder_threads": threads})))
    while is_worth_more(together) and 2 * together[-1].count <= most:
        together.append(measure(threads, 2 * together[-1].count, 1))
    count = best_count(together)
    decoding = [measure(threads, count, _RUNS, decoder) for decoder in ("software", "nvdec")] if nvdec_problem() is None else []
    chosen = Tuned(
        cores=available_cores(),
        device=device,
        encoder_threads=threads,
        concurrent_renders=count,
        decoder=best_decoder(*decoding) if decoding else "software",
    )
    return Tuning(tuple(models), best_model(models), (*alone, *together[1:], *decoding), chosen)


@contextmanager
def _serving(settings: Settings, folder: Path, device: Device, batching: Batching | None) -> Iterator[TritonClient]:
    """Serve a copy of the repository in which the lip model has another batching."""
    repository = folder / uuid.uuid4().hex
    shutil.copytree(settings.model_repository, repository, copy_function=_linked, ignore=shutil.ignore_patterns(".*"))
    if batching is not None:
        config = repository / LIP_SYNC / CONFIG_FILES[device]
        write_whole(config, with_batching(config.read_text(), batching))
    try:
        name = None if device == "gpu" else device
        with LocalTriton.start(settings.triton_home, repository, config_name=name) as server, TritonClient(server.grpc_address) as client:
            yield client
    except TritonStartError as exc:
        kind = InferenceUnavailable if device == "cpu" else GpuUnavailable
        raise kind(f"The embedded Triton did not start on {device} with {batching or 'the configuration as it is'}. {exc}") from exc
    finally:
        shutil.rmtree(repository)


def _try_model(client: TritonClient, device: Device, batching: Batching, seconds: float) -> ModelTrial:
    description = describe_model(client, LIP_SYNC)
    samples = golden_inputs(description, description.request_batch_size)
    load = Load(description.request_batch_size, REQUESTS_IN_FLIGHT, client.transport == "shared_memory", seconds)
    result = run_load(client, description, output_of(LIP_SYNC), samples, load)
    return ModelTrial(device, batching, result.items_per_s, result.mean_batch)


def _render_at_once(
    client: TritonClient, video: Path, speech: Path, folder: Path, tracks: TrackCache, count: int, threads: int, decoder: DecoderChoice
) -> float:
    """Render so many times at the same time, each with so many encoder threads; returns how long it took, s."""

    def run(index: int) -> None:
        plan = plan_render(video, speech, folder / f"{index}.mp4", encoder_threads=threads, decoder=decoder)
        render(plan, client, tracks=tracks)

    began = time.perf_counter()
    with ThreadPoolExecutor(count, "tune") as pool:
        list(pool.map(run, range(count)))
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


def _unwritten(place: Path | str, error: OSError) -> StorageError:
    return storage_error(error, f"The choice cannot be written to {place}", "check the folder, its owner and the free space")
