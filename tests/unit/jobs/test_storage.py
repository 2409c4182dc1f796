"""Inputs by content, complete or not there."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.easy import clear_shared_folder
from orchestrator.api.holds import Holds
from orchestrator.errors import LimitExceeded, StorageError, StorageFull
from orchestrator.jobs.storage import Storage, safe_name


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "data")


def files(storage: Storage) -> list[str]:
    return sorted(str(path.relative_to(storage.root)) for path in storage.root.rglob("*") if path.is_file() and not path.name.startswith("."))


def stored(storage: Storage, chunks: Iterable[bytes], max_bytes: int = 100, name: str = "a.mp4") -> Path:
    with storage.incoming(name, max_bytes) as sink:
        for chunk in chunks:
            sink.write(chunk)
        return sink.commit()


def test_stream_is_stored_under_its_digest_and_only_once(storage: Storage) -> None:
    digest = hashlib.sha256(b"abcdef").hexdigest()
    path = stored(storage, [b"abc", b"def"], 6)
    assert path == storage.root / "inputs" / digest / "a.mp4"
    assert path.read_bytes() == b"abcdef"
    assert stored(storage, [b"abcdef"], name="other.mp4") == path
    assert files(storage) == [f"inputs/{digest}/a.mp4"]


def test_upload_that_is_too_large_or_breaks_off_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(LimitExceeded, match="5 bytes"):
        stored(storage, [b"abc", b"def"], 5)

    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError):
        stored(storage, broken())
    with storage.incoming("a.mp4", 100) as sink:
        sink.write(b"abc")
    assert files(storage) == []


def test_name_can_still_be_given_when_the_content_is_there(storage: Storage) -> None:
    with storage.incoming("download", 100) as sink:
        sink.write(b"abc")
        sink.name = "../../clip.mp4"
        path = sink.commit()
    assert path.name == "clip.mp4" and storage.holds(path)


def test_less_than_the_floor_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "data", free_space_floor_bytes=1 << 60)
    with pytest.raises(StorageFull):
        storage.incoming("a.mp4", 100)
    assert files(storage) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_while_an_upload_arrives_is_said_so_and_leaves_nothing(storage: Storage) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(StorageFull, match="No space"), storage.incoming("a.mp4", 1 << 30) as sink:
        sink._file.close()
        sink._file = full
        sink.write(b"x" * (1 << 20))
    assert files(storage) == []


def test_folder_that_cannot_be_used_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"data folder .*/file .*LIPSYNC_DATA"):
        Storage(tmp_path / "file")


def test_client_is_not_told_where_the_data_folder_lies(storage: Storage) -> None:
    (storage.root / "incoming").rmdir()
    with pytest.raises(StorageError, match="data folder") as caught:
        storage.incoming("a.mp4", 100)
    assert str(storage.root) not in str(caught.value)


def test_what_a_killed_service_was_writing_goes_when_it_is_an_hour_old(storage: Storage, tmp_path: Path) -> None:
    shared, hour_ago, name = tmp_path / "shared", time.time() - 3700, "0123456789abcdef" * 2
    abandoned = {storage.root / "incoming" / name, storage.root / f".host.{name}.partial", storage.root / "assets" / f".a.json.{name}.partial"}
    abandoned |= {storage.root / "tracks" / f".{name}.partial", shared / f".{name}.partial"}
    others = {storage.root / "assets" / "a.json", shared / ".mine.partial", shared / f"{name}.partial"}
    for path in abandoned | others:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (hour_ago, hour_ago))
    young = {path.with_name(path.name.replace("0", "f")) for path in abandoned}
    for path in young:
        path.touch()
    storage.clear_abandoned()
    clear_shared_folder(shared)
    assert {path for folder in (storage.root, shared) for path in folder.rglob("*") if path.is_file()} - others - young == {
        storage.root / ".inputs.lock"
    }
    assert all(path.exists() for path in others | young)


def test_only_what_lies_in_inputs_is_removed_as_an_input(storage: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "mine.mp4"
    outside.touch()
    inside = stored(storage, [b"abc"])
    for path in (outside, inside):
        storage.remove_input(path, lambda: False)
    assert outside.exists() and not inside.exists()
    link = storage.root / "link.mp4"
    link.symlink_to(outside)
    assert not storage.holds(link), "a link that leads outside"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("clip.mp4", "clip.mp4"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file"),
        (".hidden.mp4", "hidden.mp4"),
        ("a\nb\x00.mp4", "a_b_.mp4"),
        ("视频.mp4", "视频.mp4"),
        ("", "file"),
    ],
)
def test_names_lead_nowhere_else(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text())
def test_any_name_becomes_one_that_can_be_written(name: str) -> None:
    safe = safe_name(name)
    assert safe and "/" not in safe and "\x00" not in safe and safe not in (".", "..") and len(safe.encode(errors="replace")) <= 100


def test_renders_under_way_may_use_most_of_the_floor_but_not_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_bytes = shutil.disk_usage(tmp_path).free
    assert not Storage(tmp_path / "data").is_exhausted
    assert not Storage(tmp_path / "data", free_space_floor_bytes=4 * free_bytes).is_exhausted
    assert Storage(tmp_path / "data", free_space_floor_bytes=16 * free_bytes).is_exhausted
    monkeypatch.setattr(Storage, "free_bytes", lambda _: 0)
    assert Storage(tmp_path / "data").is_exhausted, "though nothing is to be kept free"


def test_an_input_that_comes_again_while_it_is_deleted_is_there_afterwards(storage: Storage) -> None:
    """Many clients send the same file, and forget their jobs again."""
    holds = Holds()

    def come_and_go(_: int) -> bool:
        with holds.holding() as hold, storage.incoming("a.mp4", 100) as sink:
            sink.write(b"abc")
            path = sink.commit(hold.add)
            is_there = path.read_bytes() == b"abc"
        storage.remove_input(path, lambda: path in holds.held())
        return is_there

    with ThreadPoolExecutor(8) as clients:
        assert all(clients.map(come_and_go, range(400)))
    assert not list(storage.inputs())
