"""Files that are there as a whole or not at all, and the system's errors about them."""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Literal

from orchestrator.errors import StorageError, StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or the largest file size is used up."""

ABANDONED_S = 3600.0
"""A file on its way that nothing was added to for this long is nobody's: its writer was killed, s."""


def write_whole(path: Path, content: str) -> None:
    """Write a file in one step: until then it is what it was, and one that is linked elsewhere stays so there. It is on disk when this returns.

    Raises:
        OSError: it cannot be written. Nothing is left of it.
    """
    with _new(path, 0o666, content.encode()) as partial:
        partial.replace(path)


def written_once(path: Path, content: bytes) -> bytes:
    """Return what is in a file, which is `content` if there was none: of several processes that write it, the first one counts.

    Nobody but its owner may read the file.

    Raises:
        OSError: it cannot be read or written.
    """
    if not path.exists():
        with _new(path, 0o600, content) as partial, suppress(FileExistsError):
            path.hardlink_to(partial)
    return path.read_bytes()


@contextmanager
def _new(path: Path, mode: int, content: bytes) -> Iterator[Path]:
    """Write a file of another name beside `path`, which is gone when the block ends unless it was moved."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(partial, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut leaves the name without the bytes
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Delete those of some files on their way whose writer was killed, by their age alone: it may have been another host's."""
    for path in paths:
        with suppress(OSError):  # it is gone, or not ours to delete
            if path.stat().st_mtime < time.time() - ABANDONED_S:
                path.unlink()


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
def scratch_folder(out: Path, kind: Literal["segments", "inputs"] = "segments") -> Iterator[Path]:
    """Give a folder beside `out` for as long as the block runs.

    Raises:
        StorageError: `out`'s folder is not there or not writable.
    """
    _sweep(out)
    folder = _beside(out, kind)
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
    for kind in ("partial", "segments", "inputs"):
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
