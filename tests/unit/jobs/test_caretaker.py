"""What goes when nobody needs it any more, and stays when somebody does."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dbos import DBOS
from sqlalchemy.exc import OperationalError

from orchestrator.api.holds import Holds
from orchestrator.jobs import caretaker as caretaker_module
from orchestrator.jobs.caretaker import Caretaker
from orchestrator.jobs.engine import Engine
from orchestrator.jobs.hooks import Hooks
from orchestrator.jobs.ledger import Ledger, database_url
from orchestrator.jobs.model import JobSpec
from orchestrator.jobs.storage import Storage
from tests.programs import wait_until


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(database_url(None, tmp_path / "jobs.sqlite"))) as opened:
        yield opened


def test_input_stays_that_is_sent_again_and_handed_over_to_a_job_while_it_is_looked_at(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, holds = Storage(tmp_path / "data"), Holds()
    engine: Any = SimpleNamespace(forget_ended=lambda before_s: None)
    caretaker = Caretaker("here", storage, ledger, engine, Hooks(kept=holds.held), 0.0, 0.0)
    with storage.incoming("a.mp4", 100) as sink:
        sink.write(b"abc")
        path = sink.commit()
    uses, answers = ledger.uses, list[bool]()

    def uses_and_then_hand_over(asked: str, but: str = "") -> bool:
        used = uses(asked, but)
        if answers:
            ledger.insert("a", JobSpec(video=str(path), audio="/data/b.wav"), 10, None, 5)
            request.close()
        return used

    with ExitStack() as request:

        def is_needed() -> bool:
            answers.append(caretaker.needs(path))
            if len(answers) == 1:
                request.enter_context(holds.holding()).add(path)
            return answers[-1]

        monkeypatch.setattr(ledger, "uses", uses_and_then_hand_over)
        storage.remove_input(path, is_needed)
    assert path.exists() and answers == [False, True]
    monkeypatch.undo()
    caretaker.clean_up()
    assert not path.exists(), "nothing needs it any more"


def test_log_says_why_a_round_is_not_completed_and_nothing_of_a_query(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: object) -> None:
        raise OperationalError("SELECT secret", {"secret": "secret.mp4"}, sqlite3.OperationalError("no such table: secret"))

    work: Any = None
    engine = Engine(database_url(None, tmp_path / "dbos.sqlite"), "here", 1, work)
    caretaker = Caretaker("here", Storage(tmp_path / "data"), ledger, engine, Hooks(), 0.0, 0.0)
    monkeypatch.setattr(caretaker_module, "ROUND_S", 0.01)
    (tmp_path / "data" / "incoming").rmdir()
    caretaker.start()
    wait_until(lambda: bool(caplog.records), "a round is over")
    monkeypatch.setattr(DBOS, "list_workflows", fail)
    ledger.insert("a", JobSpec(video="/data/secret.mp4", audio="/data/b.wav"), 10, None, 5)
    wait_until(lambda: len({record.getMessage() for record in caplog.records}) == 2, "another one, on the same thread")
    caretaker.close()
    assert {record.getMessage().removeprefix("round not completed: storage_failed: ") for record in caplog.records} == {
        "The service's data folder cannot be used (No such file or directory); check the folder, its owner and the free space.",
        "The jobs' database cannot be used (OperationalError); check that it runs and can be written.",
    }
