"""Batches of which nobody asks any more."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.api import batches as batches_module
from orchestrator.api.batches import BatchAnnouncer
from orchestrator.jobs.records import Batch, BatchItem, Records, new_id
from tests.programs import wait_until

HOUR = timedelta(hours=1)


class Jobs:
    """Those of a service."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.asked = list[int]()

    def find(self, *, ids: Sequence[str], limit: int) -> list[Any]:
        self.asked.append(limit)
        if "broken" in ids:
            raise RuntimeError("a mistake")
        return [SimpleNamespace(id=known, state="queued" if known == "waiting" else "completed") for known in self.known if known in ids]


def batch(*jobs: str, age: timedelta = 2 * HOUR, is_announced: bool = True) -> Batch:
    items = [BatchItem(request_id=job, payload={}, job_id=job) for job in jobs]
    return Batch(id=new_id(), owner="", created_at=datetime.now(UTC) - age, is_announced=is_announced, items=items)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(batches_module, "ANNOUNCE_S", 0.01)
    yield


def announcing(records: Records[Batch], jobs: Jobs) -> "closing[BatchAnnouncer]":
    context: Any = SimpleNamespace(batches=records, service=jobs, model="m", model_aliases=())
    announcer = BatchAnnouncer(context, "", HOUR.total_seconds())
    announcer.start()
    return closing(announcer)


def test_batch_goes_when_it_is_old_and_none_of_its_jobs_is_known(tmp_path: Path) -> None:
    records = Records(tmp_path, Batch)
    over, young, known, unannounced = (
        batch("gone"),
        batch("gone", age=HOUR / 2),
        batch("gone", "known"),
        batch("gone", "waiting", is_announced=False),
    )
    for one in (over, young, known, unannounced):
        records.save(one)
    with announcing(records, Jobs("known", "waiting")):
        wait_until(lambda: len(records.all()) == 3, "the one is forgotten")
    assert {one.id for one in records.all()} == {young.id, known.id, unannounced.id}


def test_jobs_are_asked_for_together(tmp_path: Path) -> None:
    records, jobs = Records(tmp_path, Batch), Jobs("waiting", "known")
    records.save(batch("waiting", *["known"] * 499, is_announced=False))
    with announcing(records, jobs):
        wait_until(lambda: bool(jobs.asked), "it is looked at")
    assert set(jobs.asked) == {500}


def test_batch_of_which_something_is_wrong_is_nothing_to_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = Records(tmp_path, Batch)
    records.save(batch("gone"))
    records.save(batch("broken", age=HOUR * 1.5))
    with announcing(records, Jobs()):
        wait_until(lambda: len(records.all()) == 1, "the other is forgotten")
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "once in a minute"
    caplog.clear()


def test_request_that_another_version_accepted_is_an_error_of_its_own(tmp_path: Path) -> None:
    records = Records(tmp_path, Batch)
    stored = records.save(
        batch("gone", age=HOUR / 2).model_copy(update={"items": [BatchItem(request_id="r", payload={"model": "m", "colour": "red"})]})
    )
    with announcing(records, Jobs()):
        wait_until(lambda: bool(records.get(stored.id).items[0].error), "it is handed over")
    item = records.get(stored.id).items[0]
    assert item.error_code == "invalid_request" and item.error and "colour" in item.error
