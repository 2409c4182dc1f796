"""What the engine needs of its database."""

import time

import sqlalchemy as sa
from sqlalchemy import event

from orchestrator.jobs.engine import teach_subsec


def test_a_table_of_dbos_takes_the_time_whatever_sqlite_there_is() -> None:
    engine = sa.create_engine("sqlite://")
    event.listen(engine, "connect", teach_subsec)
    before_ms = time.time() * 1000
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE versions (name TEXT, since INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))")
        connection.exec_driver_sql("INSERT INTO versions (name) VALUES ('1')")
        [since_ms] = connection.exec_driver_sql("SELECT since FROM versions").scalars()
    assert before_ms - 1 <= since_ms <= time.time() * 1000 + 1
