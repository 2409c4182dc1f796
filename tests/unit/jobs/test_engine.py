"""What the engine needs of its database, and lets DBOS say."""

import logging
import sqlite3
import time

import pytest
import sqlalchemy as sa
from dbos._error import DBOSAwaitedWorkflowCancelledError
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from orchestrator.errors import StorageFull
from orchestrator.jobs.engine import log_as_the_service_does, teach_subsec


def test_a_table_of_dbos_takes_the_time_whatever_sqlite_there_is() -> None:
    engine = sa.create_engine("sqlite://")
    event.listen(engine, "connect", teach_subsec)
    before_ms = time.time() * 1000
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE versions (name TEXT, since INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))")
        connection.exec_driver_sql("INSERT INTO versions (name) VALUES ('1')")
        [since_ms] = connection.exec_driver_sql("SELECT since FROM versions").scalars()
    assert before_ms - 1 <= since_ms <= time.time() * 1000 + 1


def test_a_job_that_is_cancelled_as_it_begins_is_no_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    log_as_the_service_does()
    logger = logging.getLogger("dbos")
    logger.warning(f"Error executing workflow 1: {DBOSAwaitedWorkflowCancelledError('1')}")
    logger.warning("Workflow 1 was cancelled during execution. Waiting for the recorded outcome")
    logger.error("Exception encountered in background workflow:", exc_info=DBOSAwaitedWorkflowCancelledError("1"))
    logger.warning("Error executing workflow 2: the database is locked")
    assert caplog.messages == ["Error executing workflow 2: the database is locked"]


def test_trouble_of_a_queue_that_goes_on_is_told_once_a_minute_and_without_its_sql(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_as_the_service_does()
    logger, now_s = logging.getLogger("dbos"), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    told = [f"Exception encountered in queue thread for {queue}: the disk is full" for queue in ("renders", "deliveries")]
    for now_s[0] in (0.0, 1.0, 59.0, 61.0):
        for line in told:
            logger.warning(f"{line}\n[SQL: UPDATE 100% of it]")
    assert caplog.messages == 2 * told


def test_workflow_that_the_database_does_not_take_is_told_once_a_minute_without_a_trace_and_a_mistake_with_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_as_the_service_does()
    logger, now_s, line = logging.getLogger("dbos"), [0.0], "Exception encountered in background workflow:"
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    refused = OperationalError("UPDATE secret", {}, sqlite3.OperationalError("database or disk is full"))
    for now_s[0] in (0.0, 1.0, 61.0):
        logger.error(line, exc_info=StorageFull("The disk is full."))
        logger.error(line, exc_info=refused)
    told = [f"{line} The disk is full.", f"{line} (sqlite3.OperationalError) database or disk is full"]
    assert [(record.levelname, record.getMessage(), record.exc_info) for record in caplog.records] == [("WARNING", text, None) for text in 2 * told]
    caplog.clear()
    for _ in range(2):
        logger.warning(line, exc_info=KeyError("video"))
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
