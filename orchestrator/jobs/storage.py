"""Files of the service: inputs by content, jobs by id. The layout is documented at `Storage`."""

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from orchestrator.errors import LimitExceeded, StorageError, StorageFull
from orchestrator.files import remove_abandoned, storage_error
from orchestrator.media.formats import Container

RESERVED_SHARE = 8
"""An eighth of the free-space floor is kept from renders that are under way, so that how they end can still be written down."""

_INPUTS_LOCK = ".inputs.lock"


class Storage:
    """The data folder.

    inputs/SHA256/NAME     an input, stored once however often it is sent
    jobs/ID/segments/      finished pieces of the output
    jobs/ID/result.mp4     the output (or .mov, .webm, .mkv), complete or not there
    tracks/                face-track cache
    incoming/              uploads on their way
    .inputs.lock           held while an input comes or goes
    """

    def __init__(self, root: Path, free_space_floor_bytes: int = 0) -> None:
        self.root = root
        self._floor_bytes = free_space_floor_bytes
        with data_errors(root):
            for name in ("inputs", "jobs", "tracks", "incoming"):
                (root / name).mkdir(parents=True, exist_ok=True)
            (root / _INPUTS_LOCK).touch()  # on a full disk it could not be made any more, and nothing deleted

    @property
    def tracks(self) -> Path:
        """The folder of the face-track cache."""
        return self.root / "tracks"

    def job_folder(self, job_id: str) -> Path:
        """Return a job's folder."""
        return self.root / "jobs" / job_id

    def segments(self, job_id: str) -> Path:
        """Return the folder of a job's finished segments."""
        return self.job_folder(job_id) / "segments"

    def result(self, job_id: str, container: Container) -> Path:
        """Return where a job's output is or will be."""
        return self.job_folder(job_id) / f"result{container.suffixes[0]}"

    def free_bytes(self) -> int:
        """Return how many bytes can still be written."""
        with data_errors():
            return shutil.disk_usage(self.root).free

    def check_space(self) -> None:
        """Refuse work early while less than the floor is left.

        Raises:
            StorageFull: it is.
        """
        if self.free_bytes() < self._floor_bytes:
            raise StorageFull("The service's disk is nearly full, so it takes no new work; free some space, or try again later.")

    @property
    def is_exhausted(self) -> bool:
        """Whether so little space is left that renders under way have to end."""
        return self.free_bytes() <= self._floor_bytes // RESERVED_SHARE

    def incoming(self, name: str, max_bytes: int, *, is_accepted: bool = False) -> "Incoming":
        """Open a file to be written piece by piece; nothing is kept of it unless it is committed.

        Args:
            name: to keep it under.
            max_bytes: of it.
            is_accepted: whether it belongs to a job that was accepted, and is no new work.

        Raises:
            StorageFull: new work, and less than the floor is left.
        """
        if not is_accepted:
            self.check_space()
        return Incoming(self.root, name, max_bytes)

    def holds(self, path: Path) -> bool:
        """Tell whether a path leads to a file inside the data folder, links followed."""
        return path.is_file() and path.resolve().is_relative_to(self.root.resolve())

    def digest_of(self, path: Path) -> str | None:
        """Return the SHA-256 of an input's content, by where it lies; None for any other path."""
        return path.parent.name if path.parent.parent == self.root / "inputs" else None

    def remove_job(self, job_id: str) -> None:
        """Delete a job's folder."""
        shutil.rmtree(self.job_folder(job_id), ignore_errors=True)

    def keep_segments(self, job_id: str) -> None:
        """Say that somebody is being sent a job's segments."""
        with suppress(FileNotFoundError):
            os.utime(self.segments(job_id))

    def remove_segments(self, job_id: str, unless_used_since_s: float) -> None:
        """Delete a job's segments, unless one was written, or somebody sent them, since a time (seconds since 1970)."""
        with suppress(FileNotFoundError):
            if self.segments(job_id).stat().st_mtime < unless_used_since_s:
                shutil.rmtree(self.segments(job_id), ignore_errors=True)

    def remove_input(self, path: Path, is_needed: Callable[[], bool]) -> None:
        """Delete an input, unless it is needed; a path outside `inputs/` is left alone. See `Incoming.commit`."""
        folder = path.parent
        if folder.parent != self.root / "inputs" or is_needed():
            return
        with data_errors(), _inputs_alone(self.root):
            if not is_needed():  # now that nobody can be sent the same file
                shutil.rmtree(folder, ignore_errors=True)

    def inputs(self) -> Iterator[Path]:
        """Yield every stored input."""
        yield from (self.root / "inputs").glob("*/*")

    def clear_abandoned(self) -> None:
        """Delete what a crash cut short: uploads, and documents and tracks that were being written."""
        remove_abandoned([*(self.root / "incoming").iterdir(), *self.root.glob(".*.partial"), *self.root.glob("*/.*.partial")])


class Incoming:
    """A file on its way in. A context manager: what was not committed is deleted at its end."""

    def __init__(self, root: Path, name: str, max_bytes: int) -> None:
        self._root = root
        self.name = name
        """Name to keep it under, made safe when it is committed."""
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._hash = hashlib.sha256()
        self._partial = root / "incoming" / uuid.uuid4().hex
        with data_errors():
            self._file: BinaryIO = self._partial.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # a full disk may refuse the last buffer; the file goes anyway
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            LimitExceeded: the file would have more than `max_bytes`.
            StorageFull: there is no space.
        """
        self._size_bytes += len(data)
        if self._size_bytes > self._max_bytes:
            raise LimitExceeded(f"The file is larger than {self._max_bytes} bytes; send a smaller one.")
        self._hash.update(data)
        with data_errors():
            self._file.write(data)

    def commit(self, hold: Callable[[Path], object] = lambda path: None) -> Path:
        """Put the file in place and return its path, that of an equal file if there is one.

        Args:
            hold: called with the path before anybody can delete the file, who has to ask then whether it is held.
        """
        with data_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            with _inputs_alone(self._root):
                place = self._place()
                hold(place)
            return place

    def _place(self) -> Path:
        folder = self._root / "inputs" / self._hash.hexdigest()
        folder.mkdir(exist_ok=True)
        for there in folder.iterdir():
            os.utime(there)  # young again: the clean-up must not take it from under a job that is about to be submitted
            return there
        place = folder / safe_name(self.name)
        self._partial.replace(place)
        return place


def safe_name(name: str) -> str:
    """Return a file name that leads nowhere else: no path, no control characters, not hidden, at most 100 bytes; the suffix stays."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    cleaned = "".join(character if character.isprintable() else "_" for character in base).strip(" .")
    stem, dot, suffix = cleaned.rpartition(".")
    if not dot or len(suffix.encode()) > 10:
        stem, suffix = cleaned, ""
    stem = stem.encode()[:80].decode(errors="ignore") or "file"
    return f"{stem}.{suffix}" if suffix else stem


@contextmanager
def _inputs_alone(root: Path) -> Iterator[None]:
    """Keep everybody else from adding or deleting inputs, on other hosts, too, where the file system passes locks on."""
    with (root / _INPUTS_LOCK).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def data_folder_error(root: Path, error: OSError) -> StorageError:
    """Return the system's error about the data folder as ours, for who starts the service: clients need not know where it lies."""
    what = f"The data folder {root} cannot be used"
    return storage_error(error, what, "check the folder, its owner and the free space, or set LIPSYNC_DATA to another one")


@contextmanager
def data_errors(root: Path | None = None) -> Iterator[None]:
    """Raise the system's errors about the data folder as ours; they name it where it is given."""
    try:
        yield
    except OSError as exc:
        if root is not None:
            raise data_folder_error(root, exc) from exc
        raise storage_error(exc, "The service's data folder cannot be used", "check the folder, its owner and the free space") from exc
