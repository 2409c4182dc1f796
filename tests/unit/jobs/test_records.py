"""Small documents beside the jobs."""

import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import StorageError, StorageFull, UnknownRecord
from orchestrator.jobs.records import Batch, BatchItem, Records, new_id

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def batch(owner: str = "anna", minutes: int = 0) -> Batch:
    items = [BatchItem(request_id="名", payload={"model": "m"})]
    return Batch(id=new_id(), owner=owner, created_at=NOW + timedelta(minutes=minutes), items=items)


def test_document_is_read_back_and_replaced_as_a_whole(tmp_path: Path) -> None:
    records, saved = Records(tmp_path / "batches", Batch), batch()
    records.save(saved)
    assert records.get(saved.id) == saved
    changed = records.save(saved.model_copy(update={"is_announced": True}))
    assert records.get(saved.id) == changed == Records(tmp_path / "batches", Batch).get(saved.id)
    assert [path.name for path in (tmp_path / "batches").iterdir()] == [f"{saved.id}.json"]


def test_change_that_another_process_made_is_seen(tmp_path: Path) -> None:
    mine, theirs, saved = Records(tmp_path, Batch), Records(tmp_path, Batch), batch()
    mine.save(saved)
    mine.get(saved.id)
    theirs.save(saved.model_copy(update={"is_announced": True}))
    assert mine.get(saved.id).is_announced
    theirs.delete(saved.id)
    assert mine.all() == []


def test_document_that_is_deleted_while_it_is_changed_does_not_come_back(tmp_path: Path) -> None:
    """By another process, whose Records these are."""
    mine, theirs, saved = Records(tmp_path, Batch), Records(tmp_path, Batch), batch()
    mine.save(saved)
    deletion = threading.Thread(target=theirs.delete, args=(saved.id,))

    def change(record: Batch) -> Batch:
        deletion.start()
        time.sleep(0.2)
        return record.model_copy(update={"is_announced": True})

    assert mine.update(saved.id, change).is_announced
    deletion.join()
    assert mine.all() == theirs.all() == [] and not list(tmp_path.iterdir())
    with pytest.raises(UnknownRecord):
        mine.update(saved.id, lambda record: record)


def test_changes_at_the_same_time_all_count(tmp_path: Path) -> None:
    saved = Records(tmp_path, Batch).save(batch())

    def add(_: int) -> None:
        Records(tmp_path, Batch).update(saved.id, lambda record: record.model_copy(update={"items": [*record.items, record.items[0]]}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert len(Records(tmp_path, Batch).get(saved.id).items) == 41
    for owner, record_id in (("bob", saved.id), (None, "../x"), (None, new_id())):
        with pytest.raises(UnknownRecord):
            Records(tmp_path, Batch).update(record_id, lambda record: record, owner)


def test_documents_are_listed_newest_first_and_by_owner(tmp_path: Path) -> None:
    records = Records(tmp_path, Batch)
    saved = [records.save(batch(owner, minutes)) for owner, minutes in (("anna", 1), ("bob", 2), ("anna", 3))]
    assert records.all() == saved[::-1]
    assert records.all("anna") == [saved[2], saved[0]]


def test_another_owners_document_counts_as_not_there(tmp_path: Path) -> None:
    records, saved = Records(tmp_path, Batch), batch("anna")
    records.save(saved)
    assert records.get(saved.id, "anna") == saved
    for record_id, owner in ((saved.id, "bob"), (new_id(), None), ("../x", None), ("", None)):
        with pytest.raises(UnknownRecord):
            records.get(record_id, owner)


def test_document_that_finds_no_space_says_so(tmp_path: Path) -> None:
    records, limits = Records(tmp_path, Batch), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(StorageFull, match="free space"):
            records.save(batch())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_damaged_document_counts_as_not_there(tmp_path: Path) -> None:
    records, saved = Records(tmp_path, Batch), batch()
    records.save(saved)
    (tmp_path / f"{saved.id}.json").write_text("{")
    assert records.all() == []


def test_only_one_works_through_the_documents_at_a_time(tmp_path: Path) -> None:
    with Records(tmp_path, Batch).lock() as first, Records(tmp_path, Batch).lock() as second:
        assert first and not second
    with Records(tmp_path, Batch).lock() as again:
        assert again


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    records = Records(tmp_path / "file", Batch)
    with pytest.raises(StorageError, match="file cannot be written") as caught:
        records.save(batch())
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(StorageError, match="file cannot be written"), records.lock():
        pass
