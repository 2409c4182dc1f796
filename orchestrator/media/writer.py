"""The output: how it is compressed, and how it appears at its path only when it is complete."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from glob import escape
from pathlib import Path

import av

from orchestrator.errors import EncodeError, InvalidOption, StorageError, StorageFull

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""libx264's presets, fastest first."""

GOP_S = 2
"""Length of a segment and longest distance between key frames, s."""

MIN_SEGMENT_FRAMES = 8
MAX_TAIL_FRAMES = 4
"""Frames at an output's end that get no segment of their own but join the one before: x264's delay differs for a handful of frames, and the
time stamps of segments meet only where it is the same."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or the largest file size is used up."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the video is compressed.

    Raises:
        InvalidOption: a value is out of range.
    """

    crf: int = 18
    """libx264's constant rate factor: 0 (best) to 51; 18 is visually transparent."""
    preset: str = "veryfast"
    lossless: bool = False
    """Keep every decoded sample exactly; `crf` is then not used."""
    thread_count: int = 0
    """Encoder threads; 0 for one per core, at most 16."""

    @property
    def resolved_thread_count(self) -> int:
        """The number of encoder threads, one per core where it is left open."""
        return self.thread_count or min(16, os.cpu_count() or 1)

    def segment_frame_count(self, frame_rate: Fraction) -> int:
        """Return how many frames a segment has, and so how far key frames are apart at most."""
        return max(MIN_SEGMENT_FRAMES, round(GOP_S * frame_rate))

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise InvalidOption(f"crf is {self.crf}; give a number from 0 (best) to 51.")
        if self.preset not in PRESETS:
            raise InvalidOption(f"There is no preset {self.preset!r}; give one of {', '.join(PRESETS)}.")


@contextmanager
def placed_when_complete(out: Path) -> Iterator[Path]:
    """Give a path beside `out` to write to, and rename it to `out` when the block ends without an error.

    Raises:
        StorageError: the folder is not there or not writable, or renaming failed.
    """
    _sweep(out)
    partial = _beside(out, "partial")
    with _storage_errors(f"Cannot write to {out.parent}", "create the folder or choose another output"):
        partial.touch()
    try:
        yield partial
        with _storage_errors(f"Cannot put the result at {out}", "check the path and the free space"):
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` for as long as the block runs.

    Raises:
        StorageError: `out`'s folder is not there or not writable.
    """
    _sweep(out)
    folder = _beside(out, "segments")
    with _storage_errors(f"Cannot write to {out.parent}", "create the folder or choose another output"):
        folder.mkdir(exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(out: Path, kind: str) -> Path:
    return out.with_name(f".{out.name}.{os.getpid()}.{kind}")


def _sweep(out: Path) -> None:
    """Delete what renders left that were killed."""
    for kind in ("partial", "segments"):
        for stale in out.parent.glob(f".{escape(out.name)}.*.{kind}"):
            owner = stale.name.split(".")[-2]
            if owner.isdigit() and not Path("/proc", owner).exists():
                shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)


@contextmanager
def _storage_errors(what: str, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise storage_error(exc, what, advice) from exc


def storage_error(error: OSError, what: str, advice: str) -> StorageError:
    """Return the system's error about a file as ours."""
    kind = StorageFull if error.errno in FULL else StorageError
    return kind(f"{what} ({error.strerror}); {advice}.")


@contextmanager
def translate_write_errors() -> Iterator[None]:
    """Raise FFmpeg's errors about an output as ours."""
    try:
        yield
    except av.FFmpegError as exc:
        if exc.errno in FULL:
            raise StorageFull(f"There is no space for the output ({exc.strerror}); free some space, then try again.") from exc
        raise EncodeError(f"The output could not be encoded ({exc.strerror}); check the free space and the encoding options.") from exc
