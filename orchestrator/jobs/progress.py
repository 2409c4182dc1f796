"""One number for how far a job is: it grows with the work that is really done, and never falls."""

import threading
from collections.abc import Mapping
from typing import Any

from orchestrator.pipeline.progress import Progress

ANALYSE_PERCENT = 15
"""Where rendering begins. Analysing is a decode and a small inference a source frame, rendering a decode, an inference and an encode."""

FINISH_PERCENT = 98
"""Where putting the file together begins: it copies packets."""


def percent_of(progress: Progress) -> int:
    """Return how far a render is over all stages, 0 to 99: 100 is a job whose result is in its place."""
    share = min(1.0, progress.done / progress.total) if progress.total else 0.0
    match progress.stage:
        case "read":
            return 0
        case "analyse":
            return int(share * ANALYSE_PERCENT)
        case "render":
            return ANALYSE_PERCENT + int(share * (FINISH_PERCENT - ANALYSE_PERCENT))
        case "finish":
            return FINISH_PERCENT + int(share)


class ProgressBoard:
    """The latest progress of one running job, for the thread that writes it down."""

    def __init__(self, percent: int, frames_per_s: float | None, segment_count: int = 0) -> None:
        """Begin at what earlier attempts reached, `segment_count` before they failed; `frames_per_s` is the render speed to expect, if known."""
        self._lock = threading.Lock()
        self._percent = percent
        self._expected_frames_per_s = frames_per_s
        self._reached_count = segment_count
        self._latest: Progress | None = None
        self._is_new = False
        self.total_frames = 0
        """Frames of the output, once known."""

    def report(self, progress: Progress) -> None:
        """Take in a moment of the render; see `OnProgress`."""
        with self._lock:
            self._latest, self._is_new = progress, True
            self._percent = max(self._percent, percent_of(progress))

    def take(self) -> Mapping[str, Any] | None:
        """Return the columns to write, None if nothing is new."""
        with self._lock:
            if not self._is_new or self._latest is None:
                return None
            self._is_new = False
            latest = self._latest
        values: dict[str, Any] = {
            "stage": latest.stage,
            "done": latest.done,
            "total": latest.total,
            "percent": self._percent,
            "frames_per_s": latest.frames_per_s,
            "eta_s": self._eta_s(latest),
        }
        if latest.faces_found is not None:
            values["faces_found"] = latest.faces_found
        if latest.stage in ("render", "finish"):
            values |= {"passed_through": latest.passed_through, "segments_done": latest.segment_count}
            if latest.segment_count > self._reached_count:
                values |= {"error_code": None, "error": None}  # what an earlier attempt failed with is overcome
        return values

    def _eta_s(self, progress: Progress) -> float | None:
        """Return the time left for the job: of this stage by its own speed, of the render by what the last job on this host had."""
        if progress.stage in ("render", "finish"):
            return progress.eta_s if progress.stage == "render" else 0.0
        if progress.stage == "analyse" and progress.eta_s is not None and self._expected_frames_per_s and self.total_frames:
            return progress.eta_s + self.total_frames / self._expected_frames_per_s
        return None
