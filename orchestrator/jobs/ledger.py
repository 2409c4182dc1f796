"""The jobs' table: what is known of every job, on disk. The only module that writes SQL.

DBOS decides when a job runs; this table says what a job is, how far it is, and how it ended. Every transition is one statement that holds
only from the state it expects, so it does not matter how often, or in how many processes, it is tried. `run` counts the DBOS workflows of a
job: a repeated attempt, and a job that goes on after a shutdown, is a new one.
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, TimeoutError

from orchestrator.errors import IdempotencyConflict, InvalidOption, QueueFull, StorageError, StorageFull, UnknownJob
from orchestrator.jobs.model import FINAL_STATES, JobSpec, JobState, JobView
from orchestrator.jobs.waiting import AtWork
from orchestrator.media.reach import is_url

_metadata = sa.MetaData()

JOBS = sa.Table(
    "lipsync_jobs",
    _metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("run", sa.Integer, nullable=False, default=1),
    sa.Column("host", sa.Text),  # who is, or was last, at it
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("interface", sa.String(16), nullable=False),
    sa.Column("client_code", sa.Text),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("changed_at", sa.Double, nullable=False),
    sa.Column("video", sa.Text),  # local path, once there is one
    sa.Column("audio", sa.Text),
    sa.Column("others", sa.Text),  # JSON list of the further speakers' tracks, as those
    sa.Column("frames", sa.Integer),  # of the output, by the inputs' headers; NULL while one is a URL
    sa.Column("stage", sa.String(16), nullable=False, default="queued"),
    sa.Column("done", sa.Integer, nullable=False, default=0),
    sa.Column("total", sa.Integer, nullable=False, default=0),
    sa.Column("percent", sa.Integer, nullable=False, default=0),
    sa.Column("frames_per_s", sa.Double, nullable=False, default=0.0),
    sa.Column("eta_s", sa.Double),
    sa.Column("faces_found", sa.Integer),
    sa.Column("passed_through", sa.Integer, nullable=False, default=0),
    sa.Column("segments_done", sa.Integer, nullable=False, default=0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("failures", sa.Integer, nullable=False, default=0),  # attempts in a row that failed without getting any further
    sa.Column("crashes", sa.Integer, nullable=False, default=0),  # deaths of the process in a row without getting any further
    sa.Column("reached", sa.Integer, nullable=False, default=0),  # segments there were at the last failure or crash
    sa.Column("error_code", sa.String(64)),
    sa.Column("error", sa.Text),
    sa.Column("report", sa.Text),
    sa.Column("has_result", sa.Boolean, nullable=False, default=False),
    sa.Column("webhook_try", sa.Integer),  # number of the next delivery; NULL when there is nothing (more) to deliver
    sa.Column("revision", sa.Integer, nullable=False, default=0),
    sa.Index("lipsync_jobs_idempotency", "owner", "idempotency_key", unique=True),
    sa.Index("lipsync_jobs_state", "state", "priority", "created_at"),
    sa.Index("lipsync_jobs_client_code", "interface", "client_code"),
    sa.Index("lipsync_jobs_created", "created_at"),
)

HOSTS = sa.Table(
    "lipsync_hosts",
    _metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("seen_at", sa.Double, nullable=False),
)

ACTIVE_STATES: tuple[JobState, ...] = ("queued", "running")

_LOCK = 0x11B5
"""Number of the PostgreSQL advisory lock that submitting holds, so that the queue's bound is exact, and creating the table."""


Row = Mapping[str, Any]


class Ledger:
    """The table, in SQLite or PostgreSQL. Every method may be called from any thread."""

    def __init__(self, url: str) -> None:
        """Open the database and create the table where it is missing.

        Raises:
            StorageError: the database cannot be opened; the message has the database's own words, which are for the operator alone.
        """
        self._engine = sa.create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=24, hide_parameters=True)  # URLs and names of users
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        if self._is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(is_writer=True)
        try:
            with self._write() as connection:
                self._lock_out_others(connection)
                _metadata.create_all(connection)
                _add_new_columns(connection)
        except StorageError as exc:
            if isinstance(exc, StorageFull) or not isinstance(exc.__cause__, DBAPIError):
                raise
            words = " ".join(str(exc.__cause__.orig).split())
            raise StorageError(f"The jobs' database cannot be opened; check LIPSYNC_DATABASE_URL, or the data folder. It says: {words}") from exc

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def insert(self, job_id: str, spec: JobSpec, priority: int, idempotency_key: str | None, max_queued: int) -> tuple[str, bool]:
        """Take a job up, and return its id and whether it is new. An idempotency key that is known returns the job it belongs to.

        Raises:
            IdempotencyConflict: the key belongs to another request.
            QueueFull: too many jobs wait.
        """
        text = spec.model_dump_json()
        with self._write() as connection:
            self._lock_out_others(connection)
            if idempotency_key is not None:
                known = connection.execute(
                    sa.select(JOBS.c.id, JOBS.c.spec).where(JOBS.c.owner == spec.owner, JOBS.c.idempotency_key == idempotency_key)
                ).one_or_none()
                if known is not None:
                    if JobSpec.stored(known.spec) != JobSpec.stored(text):
                        raise IdempotencyConflict("This key was used before, for another request; use a new key, or send the same request.")
                    return str(known.id), False
            _check_room(connection, max_queued)
            now = round(time.time(), 6)  # as exact as a datetime is, which clients page by
            connection.execute(
                sa.insert(JOBS).values(
                    id=job_id,
                    state="queued",
                    spec=text,
                    interface=spec.interface,
                    client_code=spec.client_code,
                    owner=spec.owner,
                    idempotency_key=idempotency_key,
                    priority=priority,
                    created_at=now,
                    changed_at=now,
                    video=None if is_url(spec.video) else spec.video,
                    audio=None if is_url(spec.audio) else spec.audio,
                    frames=spec.expected_frame_count or None,  # 0 where a header tells no length
                    others=json.dumps([None if is_url(source) else source for source in spec.sources[2:]]),
                )
            )
        return job_id, True

    def check_room(self, max_queued: int) -> None:
        """Look whether a job would be taken up.

        Raises:
            QueueFull: too many jobs wait.
        """
        with self._read() as connection:
            _check_room(connection, max_queued)

    def row(self, job_id: str) -> Row | None:
        """Return everything about a job, None if there is none."""
        with self._read() as connection:
            found = connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).mappings().one_or_none()
        return None if found is None else dict(found)

    def view(self, job_id: str, owner: str | None = None) -> JobView:
        """Return a job as a poll sees it.

        Raises:
            UnknownJob: the owner (None: anybody) has none with this id.
        """
        with self._read() as connection:
            row = connection.execute(sa.select(JOBS).where(JOBS.c.id == job_id)).mappings().one_or_none()
            if row is None or owner not in (None, row["owner"]):
                raise UnknownJob("There is no job with this id; check it, or submit the request again.")
            position = None
            if row["state"] == "queued":
                before = sa.or_(JOBS.c.priority < row["priority"], sa.and_(JOBS.c.priority == row["priority"], JOBS.c.created_at < row["created_at"]))
                position = 1 + connection.execute(
                    sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.state == "queued", before)
                ).scalar_one()  # fmt: skip
        return _view(row, position)

    def find(
        self,
        *,
        interface: str | None,
        client_code: str | None,
        owner: str | None,
        state: JobState | None,
        limit: int,
        before: datetime | None,
        ids: Collection[str] | None,
    ) -> list[JobView]:
        """Return jobs, newest first."""
        wanted = {"interface": interface, "client_code": client_code, "owner": owner, "state": state}
        query = sa.select(JOBS).where(*(JOBS.c[name] == value for name, value in wanted.items() if value is not None))
        if before is not None:
            query = query.where(JOBS.c.created_at < before.timestamp())
        if ids is not None:
            query = query.where(JOBS.c.id.in_(ids))
        with self._read() as connection:
            rows = connection.execute(query.order_by(JOBS.c.created_at.desc(), JOBS.c.id).limit(limit)).mappings().all()
            positions: dict[str, int] = {}
            if any(row["state"] == "queued" for row in rows):
                waiting = connection.execute(sa.select(JOBS.c.id).where(JOBS.c.state == "queued").order_by(JOBS.c.priority, JOBS.c.created_at))
                positions = {job_id: position for position, job_id in enumerate(waiting.scalars(), 1)}
        return [_view(row, positions.get(row["id"])) for row in rows]

    def change(self, job_id: str, values: Mapping[str, Any], *, states: Sequence[str] = (), run: int | None = None) -> bool:
        """Change a job if it is in one of some states and at a run, and return whether it was."""
        statement = sa.update(JOBS).where(JOBS.c.id == job_id).values(**values, changed_at=time.time(), revision=JOBS.c.revision + 1)
        if states:
            statement = statement.where(JOBS.c.state.in_(states))
        if run is not None:
            statement = statement.where(JOBS.c.run == run)
        with self._write() as connection:
            return connection.execute(statement).rowcount > 0

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        with self._write() as connection:
            connection.execute(sa.delete(JOBS).where(JOBS.c.id == job_id))

    def active(self) -> list[Row]:
        """Return id, state, run, priority and changed_at of the jobs that are not finished, first in line first."""
        columns = (JOBS.c.id, JOBS.c.state, JOBS.c.run, JOBS.c.priority, JOBS.c.changed_at)
        query = sa.select(*columns).where(JOBS.c.state.in_(ACTIVE_STATES)).order_by(JOBS.c.priority, JOBS.c.created_at)
        return self._rows(query)

    def at_work(self) -> dict[str, AtWork]:
        """Return by id the jobs that any host is at."""
        now = time.time()
        rows = self._rows(sa.select(JOBS.c.id, JOBS.c.started_at, JOBS.c.eta_s, JOBS.c.frames).where(JOBS.c.state == "running"))
        return {row["id"]: AtWork(now - row["started_at"], row["eta_s"], row["frames"]) for row in rows}

    def waiting(self, limit: int) -> dict[str, int | None]:
        """Return by id the frames of the jobs that wait, first in line first; None where their number is not known."""
        query = sa.select(JOBS.c.id, JOBS.c.frames).where(JOBS.c.state == "queued").order_by(JOBS.c.priority, JOBS.c.created_at)
        return {row["id"]: row["frames"] for row in self._rows(query.limit(limit))}

    def runs(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return the runs of those jobs among some that are not finished."""
        query = sa.select(JOBS.c.id, JOBS.c.run).where(JOBS.c.id.in_(job_ids), JOBS.c.state.in_(ACTIVE_STATES))
        return {row["id"]: row["run"] for row in self._rows(query)}

    def seen(self, host: str) -> None:
        """Write down that a host lives."""
        now = time.time()
        with self._write() as connection:
            if not connection.execute(sa.update(HOSTS).where(HOSTS.c.name == host).values(seen_at=now)).rowcount:
                connection.execute(sa.insert(HOSTS).values(name=host, seen_at=now))

    def abandoned(self, host: str, before: float) -> list[Row]:
        """Return id and run of the jobs that another host is at which was not seen since a time (seconds since 1970)."""
        living = sa.select(HOSTS.c.name).where(HOSTS.c.seen_at >= before)
        query = sa.select(JOBS.c.id, JOBS.c.run).where(JOBS.c.state == "running", JOBS.c.host != host, JOBS.c.host.not_in(living))
        return self._rows(query)

    def undelivered(self) -> list[Row]:
        """Return id, webhook_try and changed_at of the finished jobs whose webhook is not delivered."""
        columns = (JOBS.c.id, JOBS.c.webhook_try, JOBS.c.changed_at)
        return self._rows(sa.select(*columns).where(JOBS.c.webhook_try.is_not(None), JOBS.c.state.in_(FINAL_STATES)))

    def finished_before(self, time_s: float, has_result: bool | None = None) -> list[str]:
        """Return the ids of the jobs that ended before a time (seconds since 1970), of those with or without a result where that is said."""
        query = sa.select(JOBS.c.id).where(JOBS.c.state.in_(FINAL_STATES), JOBS.c.finished_at < time_s)
        return [row["id"] for row in self._rows(query if has_result is None else query.where(JOBS.c.has_result == has_result))]

    def uses(self, path: str, but: str = "") -> bool:
        """Tell whether a job other than `but` needs an input: one that is not finished, or whose result is kept."""
        query = sa.select(JOBS.c.id).where(
            sa.or_(JOBS.c.video == path, JOBS.c.audio == path, JOBS.c.others.contains(json.dumps(path), autoescape=True)),
            sa.or_(JOBS.c.state.in_(ACTIVE_STATES), JOBS.c.has_result),
            JOBS.c.id != but,
        )
        return bool(self._rows(query.limit(1)))

    def count(self, *, interface: str, owner: str | None, states: Sequence[JobState]) -> int:
        """Return how many jobs an owner (None: everybody) has in some states (none: in any)."""
        wanted = {"interface": interface, "owner": owner}
        query = sa.select(sa.func.count()).select_from(JOBS).where(*(JOBS.c[name] == value for name, value in wanted.items() if value is not None))
        if states:
            query = query.where(JOBS.c.state.in_(states))
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        rows = self._rows(sa.select(JOBS.c.state, sa.func.count().label("count")).group_by(JOBS.c.state))
        return {row["state"]: row["count"] for row in rows}

    def oldest_queued_at(self) -> float | None:
        """Return when the job was submitted that waits longest, seconds since 1970; None if none waits."""
        with self._read() as connection:
            oldest = connection.execute(sa.select(sa.func.min(JOBS.c.created_at)).where(JOBS.c.state == "queued")).scalar_one()
        return None if oldest is None else float(oldest)

    def _rows(self, query: sa.Select[Any]) -> list[Row]:
        with self._read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def _lock_out_others(self, connection: sa.Connection) -> None:
        """Have what follows in a transaction happen in no other one at the same time. In SQLite that is so anyway."""
        if not self._is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with translated(), self._writer.begin() as connection:
            yield connection


def _add_new_columns(connection: sa.Connection) -> None:
    """Give a table that an earlier version made the columns that came since; those may be NULL."""
    there = {column["name"] for column in sa.inspect(connection).get_columns(JOBS.name)}
    for column in JOBS.columns:
        if column.name not in there:
            kind = column.type.compile(connection.dialect)
            connection.execute(sa.text(f"ALTER TABLE {JOBS.name} ADD COLUMN {column.name} {kind}"))


def _check_room(connection: sa.Connection, max_queued: int) -> None:
    waiting = connection.execute(sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.state == "queued")).scalar_one()
    if waiting >= max_queued:
        raise QueueFull(f"As many jobs wait already as this service lets wait ({waiting}); try again later.")


def local_inputs(row: Row) -> list[str | None]:
    """Return a job's inputs in the order of `JobSpec.sources`; None for a URL that was not fetched yet."""
    return [row["video"], row["audio"], *json.loads(row["others"] or "[]")]


def _view(row: Mapping[Any, Any], position: int | None) -> JobView:
    values = {name: row[name] for name in JobView.model_fields if name in JOBS.columns}
    times = {name: None if row[name] is None else datetime.fromtimestamp(row[name], UTC) for name in ("created_at", "started_at", "finished_at")}
    spec = JobSpec.stored(row["spec"])
    report = None if row["report"] is None else json.loads(row["report"])
    return JobView.model_validate({**values, **times, "spec": spec, "queue_position": position, "report": report})


def _set_up_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite`
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin a transaction. A writer takes the write lock at once: who takes it later may find that it comes too late, and fails."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("is_writer") else "BEGIN")


@contextmanager
def translated() -> Iterator[None]:
    """Raise SQLAlchemy's errors as ours; their own words, which may have a query's values in them, are no part of it."""
    try:
        yield
    except TimeoutError as exc:
        raise StorageError("The jobs' database has been busy for too long; try again later.") from exc
    except DataError as exc:
        raise InvalidOption("A text of the request has a character in it that the jobs' database cannot take, as NUL; leave it out.") from exc
    except DBAPIError as exc:
        if any(text in str(exc.orig).lower() for text in ("disk is full", "no space left", "disk i/o error")):
            raise StorageFull("The disk of the jobs' database is full or fails; free some space, or look at the disk, then try again.") from exc
        raise StorageError(f"The jobs' database cannot be used ({type(exc.orig).__name__}); check that it runs and can be written.") from exc


def sqlite_url(file: Path) -> str:
    """Return SQLAlchemy's URL for a file, whose path may have characters in it that mean something in a URL."""
    return sa.URL.create("sqlite", database=str(file.absolute())).render_as_string()


def database_url(url: str | None, file: Path) -> str:
    """Return SQLAlchemy's URL for the setting: PostgreSQL by psycopg, or SQLite in a file.

    Raises:
        InvalidOption: the setting is not a URL.
    """
    if url is None:
        return sqlite_url(file)
    try:
        port = sa.make_url(url).port
        if port is not None and not 0 < port < 1 << 16:
            raise ValueError(port)
    except (ValueError, ArgumentError) as exc:  # whose text may have a piece of the password in it
        raise InvalidOption(
            "LIPSYNC_DATABASE_URL is malformed; write it as postgresql://USER:PASSWORD@HOST:PORT/NAME, with %40 for an @, %2F for a / and %3A for "
            "a : inside of a name or password."
        ) from exc
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in ("postgres", "postgresql") else url
