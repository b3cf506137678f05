"""One database: connections, short transactions, and one-line errors when it does not answer."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flowkit import failpoints
from flowkit.config import without_password
from flowkit.errors import StoreGone, Unavailable, UsageError
from flowkit.model import now
from flowkit.store.migrations import migrate

#: Seconds a write waits for the other writers of an SQLite file.
BUSY = 10.0

#: Nobody waits for a dead server: a partition is noticed in about 4 s, where the defaults take over 40.
POSTGRES = {
    "connect_timeout": 3,
    "tcp_user_timeout": 4000,  # milliseconds
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "options": "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=10000",
}

#: Seconds after which an idle connection is asked whether its server is still there.
FRESH = 0.05

#: Seconds without a word from PostgreSQL after which a statement is given up. The server's own limit is reached before,
#: unless it hangs: a stopped process keeps its connections open, and no TCP timeout notices.
SILENCE = 6.0

#: The same for the question whether a connection from the pool still lives. Short, as it may be followed by the timeout
#: of a new connection, and nobody is to wait for more than six seconds in all.
PING = 2.0

#: SQLite's codes for a wrong statement or wrong data; with any other it is the file that cannot be used.
SQLITE_OUR_FAULT = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}


class Database:
    """A connection pool. It may be used from any number of threads, not across a fork."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self._engine = _sqlite_engine(url) if url.get_backend_name() == "sqlite" else _postgres_engine(url)
        self._file: tuple[int, int] | None = None  # which one an SQLite database is, once it is open
        self._writer = self._engine.execution_options(flowkit_writes=True)
        # PostgreSQL shows each statement its own moment anyhow: without BEGIN and COMMIT it is asked once, not thrice.
        alone = {} if url.get_backend_name() == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
        self._reader = self._engine.execution_options(**alone)
        # SQLite lets a writer that waits sleep ever longer while others pass by; our own threads need not do that.
        self._turn = threading.Lock() if url.get_backend_name() == "sqlite" else nullcontext()
        self.insert = sqlite.insert if url.get_backend_name() == "sqlite" else postgresql.insert

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect, and create or upgrade the schema; any number of processes may do so at once.

        Raises:
            Unavailable: it cannot be reached, written or understood; which, where and why in one line.
        """
        database = cls(_parsed(url))
        try:
            if database.url.get_backend_name() == "sqlite":
                database._prepare_file()
            with database.writing() as connection:
                migrate(connection, shown=database.shown)
            if database.url.get_backend_name() == "sqlite":
                database._file = database._found()
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shown(self) -> str:
        """Its URL without the password."""
        return without_password(self.url.render_as_string(hide_password=False))

    def clock(self) -> datetime:
        """The database's own wall clock; for SQLite that of this machine."""
        if self.url.get_backend_name() == "sqlite":
            return now()
        with self.reading() as connection:
            found: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
            return found

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads: on SQLite it sees one moment, and waits for nobody."""
        self._check_file()
        with self._translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes, committed at the end, undone by an exception. On SQLite it is the only one."""
        place = _place() if failpoints.armed() else ""
        self._check_file()
        with self._translated(), self._turn, self._writer.begin() as connection:
            yield connection
            self._check_file()  # the last moment at which that can be undone
            failpoints.passing(place, before=True)
        failpoints.passing(place, before=False)

    def _check_file(self) -> None:
        """A file that was deleted takes what is written to it, and nobody ever reads that."""
        if self._file is not None and self._found() != self._file:
            what = "was deleted or replaced while this process used it"
            raise StoreGone(f"the database {self.shown} {what}; put it back and start again")

    def _found(self) -> tuple[int, int] | None:
        assert self.url.database is not None
        try:
            found = os.stat(self.url.database)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.TimeoutError as error:
            raise Unavailable(f"cannot use the database {self.shown}: all its connections are busy") from error
        except sa.exc.StatementError as error:
            if isinstance(error.orig, ValueError | UsageError):  # from one of our column types
                raise error.orig from None
            reason = _unreachable(error)
            if reason is None:
                raise
            raise Unavailable(f"cannot use the database {self.shown}: {reason}") from error

    def _prepare_file(self) -> None:
        """Make the folder; and let readers and the one writer not wait for each other, which the file remembers."""
        assert self.url.database is not None
        folder = Path(self.url.database).absolute().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot make the folder {folder}: {error.strerror}"
            raise Unavailable(f"cannot use the database {self.shown}: {reason}") from error
        deadline = time.monotonic() + BUSY
        while True:
            try:
                with self._translated(), self._engine.connect() as connection:
                    dbapi: Any = connection.connection.dbapi_connection
                    dbapi.execute("PRAGMA journal_mode=WAL")
                return
            except (Unavailable, sqlite3.OperationalError) as error:
                # This one statement does not wait for others that open the same new file; and what it raises is the
                # driver's own error.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    if isinstance(error, Unavailable):
                        raise
                    raise Unavailable(f"cannot use the database {self.shown}: {error}") from error
                time.sleep(0.02)


def _place() -> str:
    """``store.finish``, by the name of the method that writes."""
    frame = sys._getframe(3)  # beyond ``writing`` and the two of its context
    return f"store.{frame.f_code.co_name}"


def _parsed(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise Unavailable(f"{without_password(url)!r} is not a database URL; {_EXPECTED}") from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    raise Unavailable(f"cannot use the database {without_password(url)}; {_EXPECTED}")


_EXPECTED = "flowkit stores in sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    # Readers are many and short; one that finds no connection waits.
    engine = sa.create_engine(url, connect_args={"timeout": BUSY}, pool_size=8, max_overflow=24, pool_timeout=BUSY)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver begins no transaction of its own; see below
        connection.execute("PRAGMA synchronous=FULL")  # what is committed survives a power cut
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later fails at once if another wrote meanwhile, timeout or not.
        writes = connection.get_execution_options().get("flowkit_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args=POSTGRES, pool_size=8, max_overflow=24, pool_timeout=3.0)

    @sa.event.listens_for(engine, "checkin")
    def rest(_: object, record: Any) -> None:
        record.info["since"] = time.monotonic()

    @sa.event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, args: list[Any], options: dict[str, Any]) -> psycopg.Connection[Any]:
        return _Connection.connect(*args, **options)

    @sa.event.listens_for(engine, "checkout")
    def ping(connection: _Connection, record: Any, _: object) -> None:
        # A server that has been restarted costs no caller an error. Not at each use, as the pool itself would: a worker
        # that is busy would ask as often whether the server is there as for anything else. Nor for as long.
        if time.monotonic() - record.info.get("since", time.monotonic()) > FRESH:
            connection.patience = PING
            try:
                engine.dialect.do_ping(connection)  # type: ignore[arg-type]
            except psycopg.Error as error:
                raise sa.exc.InvalidatePoolError from error
            connection.patience = SILENCE

    return engine


Answer = TypeVar("Answer")


class _Connection(psycopg.Connection[Any]):
    """A connection that does not wait for ever for a server that has stopped."""

    patience = SILENCE  #: seconds

    def wait(self, gen: Generator[Any, int, Answer], *args: Any, **options: Any) -> Answer:
        return super().wait(self._heard(gen), *args, **options)

    def _heard(self, gen: Generator[Any, int, Answer]) -> Generator[Any, int, Answer]:
        """*gen*, which is told every 0.1 s whether its socket is ready, until it was not for too long."""
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > self.patience:
                    self.pgconn.finish()  # an answer that comes later is nobody's
                    raise psycopg.OperationalError(f"no answer within {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return cast(Answer, ended.value)


def _unreachable(error: sa.exc.StatementError) -> str | None:
    """Why the database cannot be used, in one line; None if the error is not about that but about what we asked."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None or code & 0xFF in SQLITE_OUR_FAULT:
            return None
        return str(cause)
    if isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.ReadOnlySqlTransaction):
        return "; ".join(line.strip() for line in str(cause).splitlines() if line.strip())
    if isinstance(cause, psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidSchemaName):
        return cause.diag.message_primary or str(cause)
    return None
