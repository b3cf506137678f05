"""Read and write tables of a database that SQLAlchemy knows, by its URL.

Values are bound parameters, never a part of the text. Names of tables and columns are looked up in the database itself,
so that a name that is not there is refused, whatever it says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Literal

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flowkit.config import without_password
from flowkit.errors import Unavailable, UsageError, did_you_mean
from flowkit.nodes.frames import Frame

__all__ = ["query", "query_each", "upsert", "write"]

#: Rows of a write that are sent at a time.
_ROWS = 1000


def query(
    url: str,
    statement: str,
    *,
    values: dict[str, Any] | None = None,
    rows: int = 1_000_000,
    within: float = 300.0,
) -> pd.DataFrame:
    """Read what a query gives: ``select * from orders where day = :day``.

    Args:
        url: of SQLAlchemy, as in ``postgresql+psycopg://user@host/shop`` or ``sqlite:///shop.db``.
        statement: one, with ``:name`` where a value stands.
        values: what the names stand for; a list where the statement says ``in :name``.
        rows: more than these are an error and not cut off.
        within: seconds after which the database gives the statement up (PostgreSQL and SQLite; others do not).

    Raises:
        Unavailable: the database does not answer, has an error, or was not done in time.
        UsageError: there are more rows, or a value is not given.
    """
    found, count = [], 0
    for part in _parts(url, statement, values, 50_000, within):
        count += len(part)
        if count > rows:
            raise UsageError(f"the query gives more than {rows:,} rows; narrow it down, raise rows=, or use query_each")
        found.append(part)
    return found[0] if len(found) == 1 else pd.concat(found, ignore_index=True)


def query_each(
    url: str,
    statement: str,
    *,
    values: dict[str, Any] | None = None,
    rows: int = 50_000,
    within: float = 300.0,
) -> Iterator[pd.DataFrame]:
    """Read what a query gives, some rows at a time, which is all that is held: for results larger than the memory.

    In a flow its parts are gathered in a list; call it within a node of your own to write them as they come.

    Args:
        url: as in query.
        statement: as in query.
        values: as in query.
        rows: of each part; the last one may have fewer, and there is at least one.
        within: seconds after which the database gives the statement up.

    Raises:
        Unavailable: as query.
    """
    yield from _parts(url, statement, values, rows, within)


def write(
    url: str,
    frame: Frame,
    table: str,
    *,
    how: Literal["append", "replace", "new"] = "append",
    within: float = 300.0,
) -> int:
    """Write a table's rows into a table of the database, all of them or none, and return how many.

    Args:
        table: its name, or ``schema.name``.
        how: append to the one there is; replace its rows, in the same transaction, so that nobody sees it empty; new:
            make it, with types by the first look, and refuse if it is there.
        within: seconds after which the database gives a statement up.

    Raises:
        UsageError: there is no such table or column, or it is there already.
        Unavailable: the database does not answer, or refuses a row.
    """
    data = _pandas(frame)
    with _connected(url, within) as connection:
        if how == "new":
            _make(connection, data, table)
            return len(data)
        target = _table(connection, table)
        columns = _columns(target, data)
        if how == "replace":
            connection.execute(target.delete())
        for rows in _records(data, columns):
            connection.execute(target.insert(), rows)
    return len(data)


def upsert(url: str, frame: Frame, table: str, keys: list[str], *, within: float = 300.0) -> int:
    """Insert rows into a table of the database, or change those that are there, all or none; return how many.

    Doing it twice leaves the same as doing it once.

    Args:
        table: its name, or ``schema.name``.
        keys: columns that tell a row from others; the database has a unique index or primary key of them.
        within: seconds after which the database gives a statement up.

    Raises:
        UsageError: there is no such table, column or key, or two rows have the same.
        Unavailable: the database does not answer, or refuses a row.
    """
    data = _pandas(frame)
    if not keys:
        raise UsageError("upsert is given no keys; name the columns that tell a row from others")
    with _connected(url, within) as connection:
        target = _table(connection, table)
        columns = _columns(target, data)
        for key in keys:
            if key not in columns:
                raise UsageError(f"upsert's rows have no column {key!r}, which is a key{did_you_mean(key, columns)}")
        if data.duplicated(keys).any():
            raise UsageError(f"two rows have the same {', '.join(keys)}; deduplicate them first")
        statement = _upserting(connection, target, columns, keys)
        for rows in _records(data, columns):
            connection.execute(statement, rows)
    return len(data)


def _parts(url: str, statement: str, values: dict[str, Any] | None, rows: int, within: float) -> Iterator[pd.DataFrame]:
    given = values or {}
    text = sa.text(statement)
    wanted = set(text.compile().params)
    for name in wanted - set(given):
        raise UsageError(f"the statement names :{name}, of which no value is given{did_you_mean(name, given)}")
    for name in set(given) - wanted:
        raise UsageError(f"a value is given for {name!r}, which the statement does not name; write :{name} there")
    lists: list[Any] = [
        sa.bindparam(name, expanding=True) for name, value in given.items() if isinstance(value, list | tuple)
    ]
    with _connected(url, within, reading=True) as connection:
        result = connection.execution_options(stream_results=True, max_row_buffer=rows).execute(
            text.bindparams(*lists), given
        )
        with closing(result):
            if not result.returns_rows:
                raise UsageError("the statement gives no rows; query reads, and write and upsert write")
            names = list(result.keys())
            first = True
            while (part := result.fetchmany(rows)) or first:
                yield pd.DataFrame.from_records([tuple(row) for row in part], columns=names, coerce_float=True)
                first = False


@contextmanager
def _connected(url: str, within: float, *, reading: bool = False) -> Iterator[sa.Connection]:
    """A transaction, committed if the block ends well. Nothing of it is kept open."""
    try:
        parsed = sa.make_url(url)
        waiting = {"connect_timeout": 10} if parsed.get_backend_name() == "postgresql" else {}
        engine = sa.create_engine(parsed, poolclass=sa.NullPool, connect_args=waiting)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(f"{without_password(url)!r} is no URL of a database that is installed: {error}") from error
    try:
        with engine.begin() as connection:
            _limit(connection, within, reading)
            yield connection
    except sa.exc.DBAPIError as error:
        what = "the database gave up" if _out_of_time(error) else "the database refused"
        more = f" after {within:g} s, as within= says" if _out_of_time(error) else ""
        raise Unavailable(f"{what}{more}: {_first_line(error.orig)}") from error
    finally:
        engine.dispose()


def _limit(connection: sa.Connection, within: float, reading: bool) -> None:
    if connection.dialect.name == "postgresql":
        limit = str(max(1, int(within * 1000)))
        connection.execute(sa.text("select set_config('statement_timeout', :limit, true)"), {"limit": limit})
        if reading:
            connection.execute(sa.text("set transaction read only"))
    elif connection.dialect.name == "sqlite":
        until = time.monotonic() + within
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(lambda: int(time.monotonic() > until), 100_000)
        if reading:
            connection.execute(sa.text("pragma query_only = on"))


def _out_of_time(error: sa.exc.DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == "57014" or str(error.orig) == "interrupted"


def _table(connection: sa.Connection, name: str) -> sa.Table:
    """As the database describes it, found among its own tables."""
    schema, _, plain = name.rpartition(".")
    look = sa.inspect(connection)
    there = [*look.get_table_names(schema or None), *look.get_view_names(schema or None)] if _has(look, schema) else []
    if plain not in there:
        raise UsageError(f"the database has no table {name!r}{did_you_mean(plain, there)}")
    return sa.Table(plain, sa.MetaData(), schema=schema or None, autoload_with=connection)


def _has(look: sa.Inspector, schema: str) -> bool:
    return not schema or schema in look.get_schema_names()


def _columns(target: sa.Table, data: pd.DataFrame) -> list[str]:
    known = [column.name for column in target.columns]
    for name in data.columns:
        if name not in known:
            hint = did_you_mean(str(name), known) or f"; it has {', '.join(known)}"
            raise UsageError(f"table {target.name!r} has no column {name!r}{hint}")
    return [str(name) for name in data.columns]


def _make(connection: sa.Connection, data: pd.DataFrame, name: str) -> None:
    schema, _, plain = name.rpartition(".")
    for one in (plain, *map(str, data.columns)):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", one):
            raise UsageError(f"{one!r} cannot be the name of a new table or column; use letters, digits and _")
    look = sa.inspect(connection)
    if not _has(look, schema):
        raise UsageError(f"the database has no schema {schema!r}{did_you_mean(schema, look.get_schema_names())}")
    if look.has_table(plain, schema=schema or None):
        raise UsageError(f"the database has a table {name!r} already; append to it, or replace its rows, by how=")
    data.to_sql(plain, connection, schema=schema or None, index=False, if_exists="fail", chunksize=_ROWS)


def _upserting(connection: sa.Connection, target: sa.Table, columns: list[str], keys: list[str]) -> Any:
    others = [name for name in columns if name not in keys]
    if connection.dialect.name not in ("postgresql", "sqlite"):
        raise UsageError(f"upsert knows PostgreSQL and SQLite, not {connection.dialect.name}; write, then merge there")
    look = sa.inspect(connection)
    unique = [set(one["column_names"]) for one in look.get_indexes(target.name, target.schema) if one["unique"]]
    unique += [set(one["column_names"]) for one in look.get_unique_constraints(target.name, target.schema)]
    unique.append({column.name for column in target.primary_key})
    if set(keys) not in unique:
        raise UsageError(
            f"table {target.name!r} has no unique index of {', '.join(keys)}, so rows cannot be told apart"
        )
    insert: Any = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(target)
    if not others:
        return insert.on_conflict_do_nothing(index_elements=keys)
    return insert.on_conflict_do_update(index_elements=keys, set_={name: insert.excluded[name] for name in others})


def _records(data: pd.DataFrame, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows as the drivers take them: Python's own values, what is missing as None."""
    for start in range(0, len(data), _ROWS):
        part = data.iloc[start : start + _ROWS]
        plain = [[None if missing is True else value for value, missing in _values(part[name])] for name in columns]
        yield [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]


def _values(column: pd.Series[Any]) -> Iterator[tuple[Any, Any]]:
    for value in column:
        plain = value.to_pydatetime() if isinstance(value, pd.Timestamp) else value
        yield plain.item() if isinstance(plain, np.generic) else plain, pd.isna(value)


def _pandas(frame: Any) -> pd.DataFrame:
    found: pd.DataFrame = frame if isinstance(frame, pd.DataFrame) else frame.to_pandas()
    return found


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
