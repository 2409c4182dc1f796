"""Multipart forms streamed into the storage, and JSON bodies."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from orchestrator.api.holds import Holds
from orchestrator.api.problems import Problem
from orchestrator.api.uploads import MAX_REPEATED, WRITE_BYTES, Form, Uploads, idempotency_key, parse_json, read_json
from orchestrator.errors import LimitExceeded
from orchestrator.jobs.storage import Storage

MAX_BYTES = 3 * WRITE_BYTES


def request_of(body: bytes, headers: dict[str, str], piece_bytes: int) -> Request:
    pieces = [body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes)] or [b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    return Request(
        {"type": "http", "method": "POST", "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()]}, receive
    )


def form_of(storage: Path, files: dict[str, Any], data: dict[str, str], piece_bytes: int = 1000, alter: Callable[[bytes], bytes] = bytes) -> Form:
    sent = httpx.Request("POST", "http://test/", files=files, data=data)
    request = request_of(alter(sent.read()), {"content-type": sent.headers["content-type"]}, piece_bytes)
    holds = Holds()
    uploads = Uploads(Storage(storage), holds, MAX_BYTES, 2)

    async def read() -> Form:
        async with uploads.form(request, ("video", "audio"), ("model", "crf")) as form:
            assert all(stored.path in holds.held() for stored in form.files.values())
        assert not any(stored.path in holds.held() for stored in form.files.values())
        return form

    return asyncio.run(read())


def leftovers(storage: Path) -> list[str]:
    return [path.name for path in (storage / "incoming").iterdir()]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    video=st.binary(max_size=2000) | st.sampled_from([b"\r\n--", b"x" * (WRITE_BYTES + 1), b"\r\n" * WRITE_BYTES]),
    model=st.text(st.characters(codec="utf-8"), max_size=50),
    piece_bytes=st.sampled_from([1, 7, 1000, 65536]),
)
def test_form_arrives_as_it_was_sent_however_it_is_cut(video: bytes, model: str, piece_bytes: int, tmp_path: Path) -> None:
    if len(video) > 5000:
        piece_bytes = 65536
    form = form_of(tmp_path, {"video": ("my video.mp4", video), "audio": b"RIFF"}, {"model": model}, piece_bytes)
    assert form.fields == {"model": model}
    stored = form.files["video"]
    assert (stored.path.read_bytes(), stored.name, stored.size_bytes) == (video, "my video.mp4", len(video))
    assert stored.path.parent.name == hashlib.sha256(video).hexdigest()
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\x.mp4", ".bashrc", "a\x00b.mp4", "x" * 3000, ""])
def test_name_of_a_file_leads_nowhere(name: str, tmp_path: Path) -> None:
    form = form_of(tmp_path, {"video": (name or "v", b"data")}, {})
    path = form.files["video"].path
    assert path.resolve().is_relative_to((tmp_path / "inputs").resolve())
    assert path.read_bytes() == b"data"


@pytest.mark.parametrize(
    ("files", "data", "alter", "status"),
    [
        ({"video": b"1", "image": b"2"}, {}, bytes, 422),
        ({"video": b"1"}, {"colour": "red"}, bytes, 422),
        ({"video": b"1"}, {"model": "x" * (1 << 20) + "x"}, bytes, 413),
        ({"video": b"1"}, {"model": "m"}, lambda body: body[:-10], 422),
        ({"video": b"1"}, {"model": "m"}, lambda body: body[40:], 422),
        ({"video": b"1"}, {"model": "m"}, lambda body: body + b"", 0),
        ({"video": b"1"}, {"model": "mmmm"}, lambda body: body.replace(b"mmmm", b"\xff\xfe\xff\xff"), 422),
        ({"video": b"1"}, {"model": "m"}, lambda body: body.replace(b'name="model"', b'name="video"'), 422),
        ({"video": b"1"}, {"model": "m"}, lambda body: body.replace(b'; name="model"', b""), 422),
    ],
)
def test_damaged_form_is_refused_and_leaves_nothing(files: dict[str, Any], data: dict[str, str], alter: Any, status: int, tmp_path: Path) -> None:
    if not status:
        assert form_of(tmp_path, files, data, alter=alter).fields == data
        return
    with pytest.raises(Problem, match=r"\.$") as caught:
        form_of(tmp_path, files, data, alter=alter)
    assert caught.value.status == status
    assert not leftovers(tmp_path)


PIECES = [
    b"--x",
    b"--",
    b"\r\n",
    b"\r",
    b"\n",
    b":",
    b";",
    b"Content-Disposition: form-data",
    b'name="video"',
    b'name="model"',
    b'filename="a"',
    b"=",
    b'"',
    b"\xff",
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=30).map(b"".join))
def test_whatever_arrives_is_a_form_or_a_refusal_and_leaves_nothing_half_done(body: bytes, tmp_path: Path) -> None:
    uploads = Uploads(Storage(tmp_path), Holds(), MAX_BYTES, 2)
    try:
        run(partial(read, uploads, request_of(body, {"content-type": "multipart/form-data; boundary=x"}, 7)))
    except Problem as exc:
        assert str(exc).endswith(".")
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("files", "data", "sentence"),
    [({"video": b"1"}, {"colour": "red"}, "a field 'colour'"), ({"video": (None, b"person.mp4")}, {}, "-F video=@FILE")],
)
def test_form_with_a_slip_is_told_what_it_is(files: dict[str, Any], data: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=sentence):
        form_of(tmp_path, files, data)


def test_file_that_is_too_large_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded):
        form_of(tmp_path, {"video": b"x" * (MAX_BYTES + 1)}, {}, 65536)
    assert not leftovers(tmp_path)
    assert not list((tmp_path / "inputs").iterdir())


def test_what_is_no_form_is_refused(tmp_path: Path) -> None:
    uploads = Uploads(Storage(tmp_path), Holds(), MAX_BYTES, 2)
    for content_type in ("application/json", "multipart/form-data", "multipart/mixed; boundary=x", ""):
        with pytest.raises(Problem) as caught:
            run(partial(read, uploads, request_of(b"x", {"content-type": content_type}, 10)))
        assert caught.value.status == 415


async def read(uploads: Uploads, request: Request) -> Form:
    async with uploads.form(request, ("video",), ()) as form:
        return form


def run(function: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await function()

    return asyncio.run(main())


def test_uploads_beyond_the_limit_wait_unread_until_it_is_their_turn(tmp_path: Path) -> None:
    sent = httpx.Request("POST", "http://test/", files={"video": b"data"})
    body, uploads = sent.read(), Uploads(Storage(tmp_path), Holds(), MAX_BYTES, 1)
    first_is_read, first_may_end, reads = asyncio.Event(), asyncio.Event(), []

    def request(number: int) -> Request:
        async def receive() -> Message:
            reads.append(number)
            if number == 1:
                first_is_read.set()
                await first_may_end.wait()
            return {"type": "http.request", "body": body, "more_body": False}

        return Request({"type": "http", "method": "POST", "headers": [(b"content-type", sent.headers["content-type"].encode())]}, receive)

    async def main() -> None:
        first = asyncio.create_task(read(uploads, request(1)))
        await first_is_read.wait()
        second = asyncio.create_task(read(uploads, request(2)))
        await asyncio.sleep(0.05)
        assert reads == [1]
        first_may_end.set()
        await asyncio.gather(first, second)

    asyncio.run(main())
    assert reads == [1, 2]


@pytest.mark.parametrize("text", ["{", "", "NaN", '{"a": Infinity}', '"\\ud800"', "[" * 100_000, b"\xff\xfe", "{'a': 1}"])
def test_what_is_no_strict_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(Problem):
        parse_json(text)


def test_json_is_read_whatever_its_content_type_and_no_further_than_allowed() -> None:
    assert run(lambda: read_json(request_of('{"名": [1, 2.5, null]}'.encode(), {"content-type": "text/plain"}, 3))) == {"名": [1, 2.5, None]}
    with pytest.raises(Problem) as caught:
        run(lambda: read_json(request_of(b"[" + b" " * 100, {}, 10), max_bytes=50))
    assert caught.value.status == 413


def test_idempotency_key_is_what_sync_so_takes() -> None:
    assert idempotency_key(request_of(b"", {}, 1)) is None
    assert idempotency_key(request_of(b"", {"idempotency-key": "a.B_~-9"}, 1)) == "a.B_~-9"
    for key in ("", "a b", "é", "x" * 129, "a/b"):
        with pytest.raises(Problem) as caught:
            idempotency_key(request_of(b"", {"idempotency-key": key}, 1))
        assert caught.value.status == 400


def test_every_field_of_a_form_may_be_sent_and_one_that_is_a_list_a_bounded_number_of_times(tmp_path: Path) -> None:
    names = [f"field{number}" for number in range(100)]

    async def read(data: dict[str, Any]) -> Form:
        sent = httpx.Request("POST", "http://test/", files={"video": b"x"}, data=data)
        request = request_of(sent.read(), {"content-type": sent.headers["content-type"]}, 1000)
        async with Uploads(Storage(tmp_path), Holds(), MAX_BYTES, 2).form(request, ("video",), names, ("ids",)) as form:
            return form

    assert asyncio.run(read(dict.fromkeys(names, "1") | {"ids": ["a"] * MAX_REPEATED})).fields == dict.fromkeys(names, "1")
    for data, sentence in (
        ({"ids": ["a"] * (MAX_REPEATED + 1)}, f"ids more than {MAX_REPEATED} times"),
        ({"field1": ["a", "b"]}, "field1 more than once"),
    ):
        with pytest.raises(Problem, match=sentence):
            asyncio.run(read(data))
