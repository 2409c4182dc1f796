"""What every figure is measured with: media, models, servers, the product's render, and a fresh process for what a process is measured by."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from deploy.local.server import LocalTriton
from orchestrator.embedded import device_config
from orchestrator.inference.client import TritonClient
from orchestrator.inference.contract import FACE_LANDMARKS
from orchestrator.inference.detector import FaceDetector
from orchestrator.media.probe import VideoInfo, probe_video
from orchestrator.models.install import install_pack
from orchestrator.models.packs import find_pack
from orchestrator.pipeline.analyse import Extent, KnownFaces, analyse
from orchestrator.pipeline.options import RenderOptions
from orchestrator.pipeline.plan import plan_render
from orchestrator.pipeline.render import render
from orchestrator.pipeline.report import RenderReport
from orchestrator.pipeline.tracks import Detections, TrackCache
from orchestrator.pipeline.watch import Watch
from orchestrator.settings import Settings
from preprocess.cuts import REACH
from preprocess.face_track import FaceTrack
from tests.bench.media import FRAME_RATE, Media
from tests.networks import save_wav2lip

ROOT = Path(__file__).resolve().parents[2]
CACHE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a run measures."""

    rounds: int
    clip_s: int
    """Length of the clips, s."""
    model_s: float
    """How long a model is called in a round, s: a request of a dear model takes half a second on one core, and while the last is answered other
    cores idle, which would look like Triton's cost (2 s: 5 to 22 % over ONNX Runtime; 8 s, side by side: -6 to 10 %)."""
    long_s: tuple[int, ...]
    """Lengths at which memory is measured, s."""
    jobs: tuple[int, ...]
    """How many jobs run at a time."""
    sizes: tuple[str, ...]
    presets: tuple[str, ...]
    dear_s: int
    """Length of the clip rendered with the dear model, s."""


NORMAL = Effort(
    rounds=3, clip_s=10, model_s=6.0, long_s=(10, 60, 600), jobs=(1, 2, 4, 8), sizes=("1080p", "720p"), presets=("veryfast", "ultrafast"), dear_s=3
)
QUICK = Effort(rounds=2, clip_s=3, model_s=0.5, long_s=(2, 6), jobs=(1, 2), sizes=("720p",), presets=("ultrafast",), dear_s=1)
SMOKE = Effort(rounds=1, clip_s=1, model_s=0.2, long_s=(1, 2), jobs=(1, 2), sizes=("360p",), presets=("ultrafast",), dear_s=1)


class Workbench:
    """Everything is made when it is first asked for, in a folder that goes when the run ends."""

    def __init__(self, folder: Path, effort: Effort) -> None:
        self.folder = folder
        self.effort = effort
        self.media = Media(folder)
        self.tracks = TrackCache(folder / "tracks", CACHE_BYTES)
        self.settings = Settings(data=folder / "data")
        self._stack = ExitStack()
        self._prefixes: dict[str, str] = {}

    def __enter__(self) -> "Workbench":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @cached_property
    def client(self) -> TritonClient:
        """A Triton with the models that are installed here; the lip model is cheaper than the codec."""
        return self.serve(self.settings.model_repository)

    @cached_property
    def dear_client(self) -> TritonClient:
        """A Triton with a full-size network of Wav2Lip's shape, which is dearer than the codec on a CPU."""
        return self.serve(self.dear_repository)

    @cached_property
    def dear_repository(self) -> Path:
        """A model repository with the installed face detector and a full-size network of Wav2Lip's shape (96 px, random weights)."""
        repository = self.folder / "dear"
        shutil.copytree(self.settings.model_repository / "face_detector", repository / "face_detector")
        network = save_wav2lip(self.folder / "wav2lip.onnx")
        install_pack(find_pack("wav2lip"), repository, self.settings.triton_home, str(network))
        return repository

    def know_faces(self, client: TritonClient, video: Path, duration_s: int, base: Path | None = None) -> FaceTrack:
        """Have the analysis of a clip kept for the renders to come; returns the speaker's track.

        With a `base` that the clip repeats, its faces are taken, without the minutes that finding them again would take.
        """
        detector = FaceDetector(client, refine=client.is_model_ready(FACE_LANDMARKS))
        info, frames = probe_video(video), duration_s * FRAME_RATE
        key = self.tracks.key(video, detector.identity)
        if base is not None and base != video and self.tracks.load(key) is None:
            base_info = probe_video(base)
            analyse(base_info, detector, Extent(None, base_info.expected_frame_count or frames), known=self._known(base_info, detector))
            known = self.tracks.load(self.tracks.key(base, detector.identity))
            assert known is not None
            self.tracks.store(key, repeated(known, frames // len(known.pts)))
        return analyse(info, detector, Extent(None, frames), known=self._known(info, detector)).tracks[0]

    def _known(self, info: VideoInfo, detector: FaceDetector) -> KnownFaces:
        return KnownFaces(info, detector, self.tracks, Watch())

    def serve(self, repository: Path) -> TritonClient:
        """Return a client of a Triton on a repository; both end with the run."""
        server = self._stack.enter_context(LocalTriton.start(self.settings.triton_home, repository, config_name=device_config(self.settings)))
        self._prefixes[server.grpc_address] = server.shared_memory_prefix
        return self._stack.enter_context(TritonClient(server.grpc_address, metrics_address=server.metrics_address))

    def triton_cpu_s(self, client: TritonClient) -> float:
        """Return the CPU time of a Triton of this run with all its processes so far, s."""
        prefix = self._prefixes[client.address]
        [guard] = [child for child in psutil.Process().children() if prefix in child.cmdline()]
        times = [process.cpu_times() for process in (guard, *guard.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of programs that are to find what this run knows."""
        return {**os.environ, "LIPSYNC_DATA": str(self.settings.data)}

    def render(
        self, client: TritonClient, video: Path, speech: Path, options: RenderOptions, name: str = "out", *, cached: bool = True
    ) -> RenderReport:
        """Render as the product does, from reading the inputs to the complete file."""
        out = self.folder / f"{name}.mp4"
        return render(plan_render(video, speech, out, options), client, tracks=self.tracks if cached else None)

    def in_fresh_process(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Do something of `tests.bench.once` in a process of its own and return what it measured there."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.once", what, json.dumps(arguments, default=str)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{what} failed in its process:\n{done.stderr[-2000:]}")
        return dict(json.loads(done.stdout.splitlines()[-1]))


def repeated(known: Detections, times: int) -> Detections:
    """Return the detections of a clip that is shown several times in a row."""
    step = int(known.pts[1] - known.pts[0]) * len(known.pts)
    changes = np.tile(known.changes, (times, 1))
    edge = REACH  # frames at either end have no neighbours beyond it; inside the copies they have
    changes[edge:-edge] = np.nan_to_num(changes[edge:-edge])
    return Detections(
        pts=np.concatenate([known.pts + step * copy for copy in range(times)]),
        is_key=np.tile(known.is_key, times),
        face_counts=np.tile(known.face_counts, times),
        faces=np.tile(known.faces, (times, 1)),
        is_whole=True,
        changes=changes,
        damaged_packet_count=0,
    )


def timed(work: Callable[[], object]) -> float:
    """Return how long some work took, s."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def side_by_side(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure two things in turns; which one goes first changes with every round, so that neither always finds the machine as the other left it."""
    a: list[float] = []
    b: list[float] = []
    for index in range(rounds):
        for measure, results in ((first, a), (second, b)) if index % 2 == 0 else ((second, b), (first, a)):
            results.append(measure())
    return a, b


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, ...]:
    """Return the ratio of each round."""
    return tuple(a / b for a, b in zip(numerators, denominators, strict=True))
