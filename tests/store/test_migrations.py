"""A migrated database is what ``schema`` says, and one from the future is left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from flowkit.errors import Unavailable
from flowkit.store import Store, schema
from tests.servers import new_database


@pytest.fixture(params=["sqlite", "postgresql"])
def two_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two databases in which there is nothing."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/migrated.db", f"sqlite:///{tmp_path}/fresh.db"
    else:
        server = request.getfixturevalue("postgres_url")
        with new_database(server) as migrated, new_database(server) as fresh:
            yield migrated, fresh


def test_a_migrated_database_equals_a_fresh_one(two_urls: tuple[str, str]) -> None:
    migrated, fresh = two_urls
    Store.open(migrated).close()
    with engine(fresh) as made:
        schema.metadata.create_all(made)
        with made.begin() as connection:
            for trigger in schema.TRIGGERS[made.dialect.name]:
                connection.exec_driver_sql(trigger)
        expected = description(made)

    with engine(migrated) as upgraded:
        found = description(upgraded)
        with upgraded.connect() as connection:
            # Alembic cannot read an index with an expression from SQLite; the description has compared it by its text.
            opts = {
                "version_table": schema.VERSION_TABLE,
                "include_object": lambda _, name, *__: name != "runs_pending",
            }
            context = MigrationContext.configure(connection, opts=opts)
            difference = compare_metadata(context, schema.metadata)

    assert found == expected
    assert len(found) == len(schema.metadata.tables) >= 8
    assert difference == []


def test_a_database_from_the_future_is_left_alone(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    Store.open(url).close()
    with engine(url) as there, there.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")

    with pytest.raises(Unavailable) as caught:
        Store.open(url)

    newer = f"has schema 9999, newer than this flowkit's {schema.VERSION}; upgrade flowkit"
    assert str(caught.value) == f"the database {url} {newer}"


def test_a_database_of_before_the_first_release_is_left_alone(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    Store.open(url).close()
    with engine(url) as there, there.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {schema.VERSION_TABLE} SET version_num = '0001'")

    with pytest.raises(Unavailable, match=r"has schema 0001, of before the first release, .* name another in FLOWKIT_"):
        Store.open(url)


def test_a_migration_that_fails_leaves_nothing_behind(two_urls: tuple[str, str]) -> None:
    url, _ = two_urls
    with engine(url) as there, there.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE workers (mine TEXT)")  # one of the last that flowkit makes

    with pytest.raises(sa.exc.DBAPIError, match="already exists"):
        Store.open(url)

    with engine(url) as there:
        assert sa.inspect(there).get_table_names() == ["workers"]


class engine:
    """A plain engine, none of flowkit's own."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)

    def __enter__(self) -> sa.Engine:
        return self._engine

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()


def description(made: sa.Engine) -> dict[str, Any]:
    """All there is to know of every table: columns with type and collation, keys, checks, indexes with conditions."""
    inspector = sa.inspect(made)
    tables = {}
    for name in inspector.get_table_names():
        if name == schema.VERSION_TABLE:
            continue
        checks = [(check["name"], words(check["sqltext"])) for check in inspector.get_check_constraints(name)]
        tables[name] = {
            "columns": [
                (column["name"], repr(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(name)
            ],
            "key": inspector.get_pk_constraint(name),
            "references": sorted(inspector.get_foreign_keys(name), key=str),
            "unique": sorted(inspector.get_unique_constraints(name), key=str),
            "checks": checks,
            "indexes": indexes(made, name),
            "triggers": triggers(made, name),
        }
    return tables


def triggers(made: sa.Engine, table: str) -> list[str]:
    """With what they do."""
    query = (
        f"SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table}'"
        if made.dialect.name == "sqlite"
        else "SELECT pg_get_triggerdef(t.oid) || p.prosrc FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
        f"WHERE NOT t.tgisinternal AND t.tgrelid = '{table}'::regclass"
    )
    with made.connect() as connection:
        return sorted(words(definition) for definition in connection.exec_driver_sql(query).scalars())


def indexes(made: sa.Engine, table: str) -> list[str]:
    query = (
        f"SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}' AND sql IS NOT NULL"
        if made.dialect.name == "sqlite"
        else f"SELECT indexdef FROM pg_indexes WHERE tablename = '{table}'"
    )
    with made.connect() as connection:
        return sorted(words(definition) for definition in connection.exec_driver_sql(query).scalars())


def words(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).strip()
