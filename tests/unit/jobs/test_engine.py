"""What the engine needs of its database, and lets DBOS say."""

import logging
import time

import pytest
import sqlalchemy as sa
from dbos._error import DBOSAwaitedWorkflowCancelledError
from sqlalchemy import event

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
    logger.warning("Error executing workflow 2: the database is locked")
    assert [record.getMessage() for record in caplog.records] == ["Error executing workflow 2: the database is locked"]
