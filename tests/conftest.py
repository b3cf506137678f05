"""Fixtures of the whole suite. A server starts when the first test asks for it, and ends with the session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowkit.store import Store, schema
from tests.servers import DATABASE_URL, REDIS_URL, Databases, PostgresServer, RedisServer, ServerMissing


@pytest.fixture(scope="session", autouse=True)
def cold() -> Iterator[None]:
    """Whether kernels are forked is chosen by a test, not by how long its worker has been up: see tests/worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWKIT_WARM", "off")
        yield


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that all tests share: give your keys a name of your own, or flush what you made."""
    if REDIS_URL:
        yield REDIS_URL
        return
    try:
        server = RedisServer()
    except ServerMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    with server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL that all tests share, as a user who may create databases in it."""
    if DATABASE_URL:
        yield DATABASE_URL
        return
    try:
        server = PostgresServer()
    except ServerMissing as missing:
        pytest.fail(str(missing), pytrace=False)
    with server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_databases(postgres_url: str) -> Iterator[Databases]:
    tables = [table.name for table in reversed(schema.metadata.sorted_tables)]
    with Databases(postgres_url, prepare=lambda url: Store.open(url).close(), tables=tables) as databases:
        yield databases


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with flowkit's schema, to copy: faster than to migrate each anew."""
    file = tmp_path_factory.mktemp("template") / "flowkit.db"
    Store.open(f"sqlite:///{file}").close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database without a row; the test runs once on each kind."""
    if request.param == "sqlite":
        file = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "flowkit.db")
        yield f"sqlite:///{file}"
    else:
        databases: Databases = request.getfixturevalue("postgres_databases")
        with databases.fresh() as url:
            yield url


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store.open(database_url) as store:
        yield store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty FLOWKIT_HOME; no other setting of whoever runs the tests gets through."""
    for name in list(os.environ):
        if name.startswith(("FLOWKIT_", "REDIS_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("FLOWKIT_HOME", str(folder))
    return folder
