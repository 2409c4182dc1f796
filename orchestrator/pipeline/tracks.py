"""What the detector saw in a video, kept on disk, so that a video is analysed once and not once a render.

Kept are the faces of every frame, not the track through them: following the speaker costs next to nothing, and a track of the first minute
is not the first minute of a track, since smoothing looks ahead.
"""

import hashlib
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocess.cuts import first_changes

FORMAT = 5
"""Part of every key; to be raised when detections come to mean something else."""

_HASH_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Detections:
    """The faces of a video's first N frames."""

    pts: NDArray[np.int64]
    """(N,) presentation time stamps, ticks of the stream's time base."""
    is_key: NDArray[np.bool_]
    """(N,) whether decoding can start there."""
    face_counts: NDArray[np.int64]
    """(N,) faces of each frame."""
    faces: NDArray[np.float32]
    """(sum of `face_counts`, 15 + 2 M) x1 y1 x2 y2 score, five points x y and the M points of the lower face's outline (none without
    landmarks), px of the coded frame."""
    changes: NDArray[np.float32]
    """(N, REACH) how much each frame differs from the one before it, see `ChangeMeter`."""
    is_whole: bool
    """Whether the video has no further frame."""
    damaged_packet_count: int

    def first(self, max_frames: int) -> "Detections":
        """Return the detections of the first frames."""
        if len(self.pts) <= max_frames:
            return self
        counts = self.face_counts[:max_frames]
        return Detections(
            self.pts[:max_frames],
            self.is_key[:max_frames],
            counts,
            self.faces[: int(counts.sum())],
            first_changes(self.changes, max_frames),
            False,
            self.damaged_packet_count,
        )

    def by_frame(self) -> list[NDArray[np.float32]]:
        """Return each frame's faces, (n, 15 + 2 M)."""
        return np.split(self.faces, np.cumsum(self.face_counts)[:-1]) if len(self.face_counts) else []


class TrackCache:
    """A bounded folder of detections. Several processes may share it; a damaged entry is as good as none."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def key(self, video: Path, detector: str, tick: Callable[[], None] = lambda: None) -> str:
        """Return the key of a video's content as seen by a detector. `tick` is called after each piece that was read."""
        digest = hashlib.sha256()
        with video.open("rb") as file:
            while piece := file.read(_HASH_PIECE_BYTES):
                digest.update(piece)
                tick()
        return hashlib.sha256(json.dumps([FORMAT, digest.hexdigest(), detector]).encode()).hexdigest()

    def load(self, key: str) -> Detections | None:
        """Return an entry, None if there is none that can be used."""
        path = self._path(key)
        try:
            with path.open("rb") as file, np.load(file) as entry:
                detections = Detections(
                    entry["pts"],
                    entry["is_key"],
                    entry["face_counts"],
                    entry["faces"],
                    entry["changes"],
                    bool(entry["is_whole"]),
                    int(entry["damaged_packet_count"]),
                )
            consistent = len(detections.pts) == len(detections.is_key) == len(detections.face_counts) == len(detections.changes)
            if not consistent or len(detections.faces) != int(detections.face_counts.sum()) or detections.faces.shape[1] < 15:
                raise ValueError("arrays that do not fit together")
            os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):  # RuntimeError: a flag of the archive's
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return detections

    def store(self, key: str, detections: Detections) -> None:
        """Keep an entry, and let go of those used longest ago.

        A folder that is full or lets nothing be changed is no error: the cache only saves time.
        """
        partial = self._folder / f".{uuid.uuid4().hex}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.savez(
                    file,
                    pts=detections.pts,
                    is_key=detections.is_key,
                    face_counts=detections.face_counts,
                    faces=detections.faces,
                    changes=detections.changes,
                    is_whole=np.array(detections.is_whole),
                    damaged_packet_count=np.array(detections.damaged_packet_count),
                )
            partial.replace(self._path(key))
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        self._evict()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"

    def _evict(self) -> None:
        entries = []
        for path in self._folder.glob("*"):  # what a process that was killed had begun to write is among them
            with suppress(FileNotFoundError):
                stat = path.stat()
                entries.append((stat.st_mtime, stat.st_size, path))
        total_bytes = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total_bytes <= self._max_bytes:
                return
            with suppress(OSError):
                path.unlink(missing_ok=True)
                total_bytes -= size
