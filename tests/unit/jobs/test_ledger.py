"""The jobs' table: every transition holds only from the state it expects."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.errors import InvalidOption, StorageError, StorageFull
from orchestrator.jobs.engine import engine_url, workflow_id
from orchestrator.jobs.ledger import Ledger, database_url, local_inputs
from orchestrator.jobs.model import JobSpeaker, JobSpec
from orchestrator.media.reach import is_url


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(database_url(None, tmp_path / "jobs.sqlite"))
    yield opened
    opened.close()


SPEC = JobSpec(video="/data/a.mp4", audio="https://example.org/b.wav")


@pytest.mark.parametrize("name", ["a b", "\u00e4", "100%", "a%20b", "what?", "a#b"])
def test_databases_lie_in_the_data_folder_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    for file, url in (("jobs.sqlite", database_url), ("dbos.sqlite", engine_url)):
        Ledger(url(None, tmp_path / name / file)).close()
    assert {path.name for path in (tmp_path / name).iterdir()} >= {"jobs.sqlite", "dbos.sqlite"}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_change_holds_only_from_the_states_and_the_run_it_expects(ledger: Ledger) -> None:
    ledger.insert("a", SPEC, 10, None, 5)
    assert not ledger.change("a", {"state": "completed"}, states=("running",))
    assert not ledger.change("a", {"state": "running"}, states=("queued",), run=2)
    assert ledger.change("a", {"state": "running"}, states=("queued",), run=1)
    assert not ledger.change("nobody", {"state": "running"})
    view = ledger.view("a")
    assert (view.state, view.revision, view.queue_position) == ("running", 1, None)


def test_input_belongs_to_the_jobs_that_need_it(ledger: Ledger) -> None:
    ledger.insert("a", SPEC, 10, None, 5)
    ledger.insert("b", SPEC, 10, None, 5)
    assert ledger.uses("/data/a.mp4", but="a")
    assert not ledger.uses("https://example.org/b.wav"), "a URL is nothing that is kept"
    ledger.change("b", {"state": "failed", "finished_at": 1.0})
    assert not ledger.uses("/data/a.mp4", but="a")
    assert ledger.uses("/data/a.mp4")
    ledger.change("a", {"state": "completed", "has_result": True, "finished_at": 2.0})
    assert ledger.uses("/data/a.mp4")
    assert (ledger.finished_before(2.0), ledger.finished_before(3.0, has_result=True)) == (["b"], ["a"])


def test_further_speakers_tracks_belong_to_their_job_too(ledger: Ledger) -> None:
    others = (JobSpeaker(audio="/data/c_50%.wav", speaker="1,2"), JobSpeaker(audio="https://example.org/d.wav", speaker="3,4"))
    ledger.insert("a", SPEC.model_copy(update={"others": others}), 10, None, 5)
    row = ledger.row("a")
    assert row is not None and local_inputs(row) == ["/data/a.mp4", None, "/data/c_50%.wav", None]
    assert ledger.uses("/data/c_50%.wav")
    assert not ledger.uses("/data/c_501.wav") and not ledger.uses("/data/c_50%.wav", but="a")


def test_table_of_an_earlier_version_gets_the_columns_that_came_since(tmp_path: Path) -> None:
    url = database_url(None, tmp_path / "jobs.sqlite")
    earlier = Ledger(url)
    earlier.insert("a", SPEC, 10, None, 5)
    with earlier._write() as connection:
        connection.exec_driver_sql("ALTER TABLE lipsync_jobs DROP COLUMN host")
    earlier.close()
    later = Ledger(url)
    assert later.change("a", {"host": "here"})
    later.close()


def test_request_stored_by_another_version_can_be_read_and_is_the_same_request(ledger: Ledger) -> None:
    ledger.insert("a", SPEC, 10, "key", 5)
    text = SPEC.model_dump_json().replace('"crf":', '"sharpness":3,"crf":').replace('"priority"', '"colour":"red","priority"')
    assert ledger.change("a", {"spec": text})
    assert ledger.view("a").spec == SPEC
    assert ledger.insert("b", SPEC, 10, "key", 5) == ("a", False)
    assert ledger.insert("b", SPEC.model_copy(update={"expected_frame_count": 25}), 10, "key", 5) == ("a", False), "it is no part of the request"


def test_job_of_a_host_that_is_gone_is_abandoned_and_that_of_a_living_one_is_not(ledger: Ledger) -> None:
    for name in ("mine", "gone", "living", "never seen", "waiting"):
        ledger.insert(name, SPEC, 10, None, 9)
        ledger.change(name, {"state": "queued" if name == "waiting" else "running", "host": name})
    ledger.seen("gone")
    start = time.time()
    ledger.seen("living")
    ledger.seen("living")
    assert {row["id"] for row in ledger.abandoned("mine", start)} == {"gone", "never seen"}
    assert ledger.runs(["mine", "nobody"]) == {"mine": 1}


def test_urls_of_the_databases() -> None:
    file = Path("/data/jobs.sqlite")
    assert database_url(None, file) == engine_url(None, file) == "sqlite:////data/jobs.sqlite"
    for scheme in ("postgres", "postgresql"):
        assert database_url(f"{scheme}://u:p@h/n", file) == "postgresql+psycopg://u:p@h/n"
        assert engine_url(f"{scheme}://u:p@h/n", file) == "postgresql://u:p@h/n"
    assert is_url("HTTPS://example.org/a") and not is_url("/data/http.mp4")


@pytest.mark.parametrize("place", ["h:port", "h:99999", "[::1", "h:5432x"])
def test_url_of_a_database_that_is_malformed_is_refused_without_its_password(place: str) -> None:
    with pytest.raises(InvalidOption, match="LIPSYNC_DATABASE_URL") as refused:
        database_url(f"postgresql://user:secret@{place}/jobs", Path("/data/jobs.sqlite"))
    assert "secret" not in str(refused.value)


def test_workflows_of_a_job_begin_with_its_id() -> None:
    assert workflow_id("job", "renders", 3) == "job.renders.3"


def test_full_disk_is_said_so(ledger: Ledger) -> None:
    with ledger._write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    ledger.insert("a", SPEC, 10, None, 5)
    large = JobSpec(video="/data/a.mp4", audio="/data/b.wav", request={"text": "x" * 1_000_000})
    with ledger._engine.connect() as connection:  # SQLite's own limit on its file stands in for the disk's
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageFull, match="database"):
        ledger.insert("b", large, 10, None, 5)
    assert ledger.view("a").state == "queued"


def test_database_that_is_busy_for_too_long_is_a_storage_error(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes progress down goes on after it."""
    monkeypatch.setattr(ledger._engine.pool, "_timeout", 0.1)
    with ExitStack() as connections:
        for _ in range(32):
            connections.enter_context(ledger._engine.connect())
        with pytest.raises(StorageError, match="busy"):
            ledger.counts()
    assert ledger.counts() == {}
