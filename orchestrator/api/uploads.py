"""Request bodies: multipart forms and bare files streamed into the storage while they arrive, and JSON of a bounded size."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from orchestrator.api.holds import Hold, Holds
from orchestrator.api.problems import Problem, validation_sentence
from orchestrator.jobs.storage import Incoming, Storage

MAX_FIELD_BYTES = 1 << 20
"""Largest text field of a form, bytes."""

MAX_REPEATED = 32
"""Most parts of one name, where a name may be given several times."""

MAX_JSON_BYTES = 4 << 20
"""Largest JSON body, bytes."""

WRITE_BYTES = 1 << 18
"""Data that is gathered before a thread writes and hashes it, bytes."""


def form_body(required: Collection[str], properties: Mapping[str, Any], instead: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route that reads a multipart form: its fields, by JSON schema; or a JSON body `instead`."""
    schema = {"type": "object", "additionalProperties": False, "required": list(required), "properties": dict(properties)}
    as_json = {} if instead is None else json_body(instead)["requestBody"]["content"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}, **as_json}}}


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what the OpenAPI document says of a route that reads a JSON body by itself; `document.BY_HAND` has its schema."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}}}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a form, in the storage."""

    path: Path
    name: str
    """As the client calls it; for people to read, never for opening anything."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Form:
    """A form that has arrived."""

    fields: Mapping[str, str]
    lists: Mapping[str, list[str]]
    """Text fields that may come several times, in the order of their parts."""
    files: Mapping[str, StoredFile]


class Uploads:
    """Receives files, a bounded number of requests at a time; one that comes later waits unread until it is its turn."""

    def __init__(self, storage: Storage, holds: Holds, max_file_bytes: int, max_uploads: int) -> None:
        self._storage = storage
        self._holds = holds
        self._max_file_bytes = max_file_bytes
        self._slots = anyio.CapacityLimiter(max_uploads)
        self._writers = anyio.CapacityLimiter(4)

    @asynccontextmanager
    async def form(self, request: Request, files: Collection[str], fields: Collection[str], lists: Collection[str] = ()) -> AsyncIterator[Form]:
        """Read a multipart form. Its files are held until the block ends, by when a job or an asset must name them.

        Args:
            request: not read yet.
            files: names of the parts that are files.
            fields: names of the parts that are text.
            lists: names of the parts that are text and may come several times.

        Raises:
            Problem: it is no such form, or has a part that is not known.
            LimitExceeded, StorageError: a file is too large or cannot be stored. Nothing is left of a form that is not read to its end.
        """
        media_type, options = parse_options_header(request.headers.get("content-type", ""))
        if media_type != b"multipart/form-data" or not options.get(b"boundary"):
            raise Problem(415, "unsupported_media_type", "Send the request as multipart/form-data.")
        reader = _FormReader(options[b"boundary"], files, fields, lists)
        with self._holds.holding() as hold:
            async with self._slots:
                with ExitStack() as open_files:
                    try:
                        async for chunk in request.stream():
                            reader.feed(chunk)
                            await self._store(reader, open_files, hold)
                        reader.finish()
                    except FormParserError as exc:
                        raise Problem(422, "invalid_request", "The multipart form is damaged; send it again.") from exc
                    await self._store(reader, open_files, hold)
            yield Form(reader.fields, reader.lists, dict(reader.stored))

    @asynccontextmanager
    async def body(self, request: Request, name: str, size_bytes: int) -> AsyncIterator[Path]:
        """Read a body that is one file, and give its path in the storage. It is held until the block ends, by when an upload must name it.

        Raises:
            Problem: the body has not the size that was announced.
            StorageError: it cannot be stored. Nothing is left of a body that is not read to its end.
        """
        length = request.headers.get("content-length", str(size_bytes))
        if int(length) != size_bytes:  # said before anything is sent, where the client waits to be told to
            raise _other_size(size_bytes, int(length))
        with self._holds.holding() as hold:
            async with self._slots:
                with await self._on_thread(self._storage.incoming, name, size_bytes) as sink:
                    received, data = 0, bytearray()
                    async for chunk in request.stream():
                        received += len(chunk)
                        if received > size_bytes:
                            break
                        data += chunk
                        if len(data) >= WRITE_BYTES:
                            await self._on_thread(sink.write, bytes(data))
                            data.clear()
                    if received != size_bytes:
                        raise _other_size(size_bytes, received)
                    await self._on_thread(sink.write, bytes(data))
                    path = await self._on_thread(sink.commit, hold.add)
            yield path

    async def _store(self, reader: "_FormReader", open_files: ExitStack, hold: Hold) -> None:
        """Write what has been gathered, and put files that are complete in their place."""
        while (part := reader.next_part()) is not None:
            if part.sink is None:
                part.sink = open_files.enter_context(await self._on_thread(self._storage.incoming, part.file_name, self._max_file_bytes))
            if part.data:
                data, part.data = bytes(part.data), bytearray()
                part.size_bytes += len(data)
                await self._on_thread(part.sink.write, data)
            if part.is_complete:
                reader.stored[part.name] = StoredFile(await self._on_thread(part.sink.commit, hold.add), part.file_name, part.size_bytes)
                reader.drop(part)

    async def _on_thread(self, function: Any, *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._writers)


@dataclass(slots=True)
class _Part:
    name: str
    file_name: str
    is_file: bool
    data: bytearray
    size_bytes: int = 0
    is_complete: bool = False
    sink: Incoming | None = None


class _FormReader:
    """Takes bytes of a multipart body and keeps what has to be written."""

    def __init__(self, boundary: bytes, files: Collection[str], fields: Collection[str], lists: Collection[str]) -> None:
        self._file_names, self._field_names, self._list_names = files, fields, lists
        self.fields: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.stored: dict[str, StoredFile] = {}
        self._parts: list[_Part] = []
        self._seen = Counter[str]()
        self._part: _Part | None = None
        self._headers: dict[bytes, bytes] = {}
        self._header, self._value = b"", b""
        self._has_ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._close,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._parser.write(chunk)

    def finish(self) -> None:
        """Take the end of the body."""
        self._parser.finalize()
        if not self._has_ended:
            raise FormParserError("the form ends early")

    def next_part(self) -> _Part | None:
        """Return a file with enough data to be worth writing, or one that is complete."""
        return next((part for part in self._parts if part.is_complete or len(part.data) >= WRITE_BYTES), None)

    def drop(self, part: _Part) -> None:
        """Forget a file that is stored."""
        self._parts.remove(part)

    def _begin(self) -> None:
        self._headers = {}
        self._header, self._value = b"", b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _open(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if disposition != b"form-data" or not name:
            raise FormParserError("a part has no name")
        is_file = name in self._file_names
        if not is_file and name not in (*self._field_names, *self._list_names):
            known = ", ".join(sorted((*self._file_names, *self._field_names, *self._list_names)))
            raise Problem(422, "invalid_option", f"The form has a field {name[:64]!r}, which is not known; the fields are {known}.")
        if is_file and b"filename" not in options:
            raise Problem(422, "invalid_request", f"The form's {name} is text; send it as a file, with curl as -F {name}=@FILE.")
        most = MAX_REPEATED if name in self._list_names else 1
        if self._seen[name] == most:
            often = "once" if most == 1 else f"{most} times"
            raise Problem(422, "invalid_request", f"The form has {name} more than {often}; send it {often} at most.")
        self._seen[name] += 1
        self._part = _Part(name, options.get(b"filename", b"").decode("utf-8", "replace") or name, is_file, bytearray())
        if is_file:
            self._parts.append(self._part)

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.data += data[start:end]
        if not self._part.is_file and len(self._part.data) > MAX_FIELD_BYTES:
            raise Problem(413, "limit_exceeded", f"The field {self._part.name} is larger than {MAX_FIELD_BYTES} bytes; send it as a file.")

    def _close(self) -> None:
        assert self._part is not None
        self._part.is_complete = True
        if not self._part.is_file:
            try:
                text = self._part.data.decode()
            except UnicodeDecodeError:
                raise Problem(422, "invalid_request", f"The field {self._part.name} is not text in UTF-8; encode it so.") from None
            if self._part.name in self._list_names:
                self.lists.setdefault(self._part.name, []).append(text)
            else:
                self.fields[self._part.name] = text

    def _end(self) -> None:
        self._has_ended = True


def _other_size(announced_bytes: int, there_bytes: int) -> Problem:
    there = "more" if there_bytes > announced_bytes else f"only {there_bytes}"
    return Problem(422, "invalid_request", f"The upload was announced with {announced_bytes} bytes and has {there}; send it again.")


def media_type(request: Request) -> bytes:
    """Return what a request says its body is, in lower case and without parameters."""
    return parse_options_header(request.headers.get("content-type", ""))[0]


async def read_json(request: Request, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON body, whatever its content type says.

    Raises:
        Problem: it is too large, or no JSON.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise Problem(413, "limit_exceeded", f"The JSON body is larger than {max_bytes} bytes; send media by URL, as an asset, or as a form.")
    return parse_json(bytes(body))


M = TypeVar("M", bound=BaseModel)


def parse_body(kind: type[M], value: Any) -> M:
    """Check the shape of a body.

    Raises:
        Problem: it is not complete or not correct.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as exc:
        raise Problem(422, "invalid_request", validation_sentence(exc)) from exc


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON: no NaN, no Infinity, no lone surrogates, no unreasonable depth.

    Raises:
        Problem: it is not JSON.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as exc:  # JSON and Unicode errors are ValueErrors
        raise Problem(422, "invalid_request", "The body is not valid JSON; check it with a JSON tool.") from exc
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._~-]{1,128}")


def idempotency_key(request: Request) -> str | None:
    """Return the request's Idempotency-Key.

    Raises:
        Problem: it is malformed or given twice.
    """
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not _IDEMPOTENCY_KEY.fullmatch(keys[0]):
        raise Problem(400, "invalid_idempotency_key", "Idempotency-Key must be given once, with 1 to 128 letters, digits, or . _ ~ - characters.")
    return keys[0]
