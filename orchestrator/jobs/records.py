"""Small documents beside the jobs, one JSON file each: assets, uploads and batches."""

import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import StorageError, UnknownRecord
from orchestrator.files import storage_error, write_whole
from orchestrator.media.limits import MediaKind

InputType = Literal["UPLOAD", "URL"]
"""Where an asset came from, in sync.so's words."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Document(BaseModel):
    """What is kept."""

    model_config = ConfigDict(frozen=True)

    id: str
    owner: str
    created_at: datetime


D = TypeVar("D", bound=Document)


class Records(Generic[D]):
    """Documents of one kind in one folder. Safe to use from several threads and processes: a document is replaced as a whole."""

    def __init__(self, folder: Path, kind: type[D]) -> None:
        self._folder = folder
        self._kind = kind
        self._parsed: dict[Path, tuple[tuple[int, int, int], D]] = {}
        """Documents as they were read last, by the file's inode, size and time."""

    def save(self, record: D) -> D:
        """Write a document; it is on disk when this returns.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / f"{record.id}.json", record.model_dump_json())
        except OSError as exc:
            raise self._unwritten(exc) from exc
        return record

    def get(self, record_id: str, owner: str | None = None) -> D:
        """Return a document; one of another owner counts as not there.

        Raises:
            UnknownRecord: there is none with this id.
        """
        record = self.find(record_id, owner)
        if record is None:
            raise UnknownRecord(f"There is no {self._kind.__name__.lower()} with this id; check the id.")
        return record

    def find(self, record_id: str, owner: str | None = None) -> D | None:
        """Return a document as `get` does, and None where that finds none."""
        record = self._read(self._folder / f"{record_id}.json") if _ID.fullmatch(record_id) else None
        return record if record is not None and owner in (None, record.owner) else None

    def update(self, record_id: str, change: Callable[[D], D], owner: str | None = None) -> D:
        """Replace a document by what `change` makes of it, and return that. One that is deleted meanwhile does not come back.

        Raises:
            UnknownRecord: there is none with this id.
            StorageError: it cannot be written.
        """
        with self._held(record_id):
            return self.save(change(self.get(record_id, owner)))

    def delete(self, record_id: str) -> None:
        """Remove a document if it is there."""
        with self._held(record_id) as path:
            if path is not None:
                path.unlink()
                self._parsed.pop(path, None)

    @contextmanager
    def _held(self, record_id: str) -> Iterator[Path | None]:
        """Keep `update` and `delete` of others from a document; yields its file, None where there is none."""
        path = self._folder / f"{record_id}.json"
        while _ID.fullmatch(record_id):
            try:
                file = path.open("r+")
            except FileNotFoundError:
                break
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _is_at(path, file):  # else it was replaced or deleted while this waited
                    yield path
                    return
        yield None

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Try to be the only process that works through the documents; yields whether it is.

        Raises:
            StorageError: the folder cannot be used.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / ".lock").open("w")
        except OSError as exc:
            raise self._unwritten(exc) from exc
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def all(self, owner: str | None = None) -> list[D]:
        """Return every document of an owner (None: of all), newest first."""
        found = [record for record in self._each() if owner in (None, record.owner)]
        return sorted(found, key=lambda record: (record.created_at, record.id), reverse=True)

    def _unwritten(self, error: OSError) -> StorageError:
        return storage_error(error, f"The data folder's {self._folder.name} cannot be written", "check their owner and the free space")

    def _each(self) -> Iterator[D]:
        for path in self._folder.glob("*.json"):
            record = self._read(path)
            if record is not None:
                yield record

    def _read(self, path: Path) -> D | None:
        try:
            status = path.stat()
            mark = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._parsed.get(path)
            if known is not None and known[0] == mark:
                return known[1]
            document = self._kind.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            self._parsed.pop(path, None)
            return None
        except OSError as exc:
            raise StorageError(f"The data folder's {self._folder.name}/{path.name} cannot be read ({exc.strerror}); check its owner.") from exc
        self._parsed[path] = mark, document
        return document


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def new_id() -> str:
    """Return an id for a document."""
    return str(uuid.uuid4())


class Asset(Document):
    """A file that was uploaded once and is used by many jobs."""

    name: str
    """As the client calls it."""
    path: Path
    """In the storage."""
    size_bytes: int
    kind: MediaKind
    format: str
    duration_s: float | None = None
    width: int | None = None
    height: int | None = None
    input_type: InputType = "UPLOAD"
    updated_at: datetime | None = None
    """When it was last renamed."""


class Upload(Document):
    """A file that a client was given a link for, to send it by itself and register it as an asset then."""

    name: str
    """As the client calls it."""
    content_type: str
    size_bytes: int
    """What the client says it will send."""
    path: Path | None = None
    """In the storage; None until it has arrived."""


class BatchItem(BaseModel):
    """One request of a batch."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    payload: dict[str, Any]
    job_id: str | None = None
    """None until it was handed over to the jobs."""
    error_code: str | None = None
    """Why it could not be handed over."""
    error: str | None = None


class Batch(Document):
    """Requests that were sent together."""

    webhook_url: str | None = None
    is_announced: bool = False
    """Whether the webhook has been called, or there is none."""
    items: list[BatchItem] = Field(default_factory=list)
