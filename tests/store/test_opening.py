"""Opening a database, and what is said when it does not answer."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowkit.errors import Unavailable
from flowkit.model import State
from flowkit.store import Store
from tests.servers import PostgresServer, new_database
from tests.store import given
from tests.store.given import T0


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database in which there is nothing, not even flowkit's tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new' / 'folder' / 'flowkit.db'}"
    else:
        with new_database(request.getfixturevalue("postgres_url")) as url:
            yield url


def refusal(url: str) -> str:
    with pytest.raises(Unavailable) as caught:
        Store.open(url)
    message = str(caught.value)
    assert "\n" not in message
    return message


#: Waits for its parent's word with everything imported, so that all open at the same moment.
OPENER = """
import sys
from flowkit.store import Store
import alembic.command
from tests.store import given

print("ready", flush=True)
sys.stdin.readline()
with Store.open(sys.argv[1]) as store:
    given.submitted(store)
"""


def test_four_processes_may_open_a_fresh_database_at_once(empty_url: str) -> None:
    command = [sys.executable, "-c", OPENER, empty_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    openers = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]
    try:
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "ready\n", opener.communicate()[1]
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write("go\n")
            opener.stdin.flush()
        errors = [opener.communicate(timeout=60)[1] for opener in openers]
    finally:
        for opener in openers:
            opener.kill()

    assert errors == [""] * 4
    with Store.open(empty_url) as store:
        assert store.counts()[State.PENDING] == 4


def test_what_was_stored_is_there_when_it_is_opened_again(empty_url: str) -> None:
    with Store.open(empty_url) as store:
        run = given.submitted(store)

    with Store.open(empty_url) as store:
        assert store.runs() == [run]


def test_the_url_that_other_tools_write_opens_too(postgres_url: str) -> None:
    with new_database(postgres_url) as url, Store.open(url.replace("+psycopg", "")) as store:
        assert store.runs() == []


def test_an_sqlite_file_survives_a_power_cut_and_lets_readers_read(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/flowkit.db") as store, store.writing() as connection:
        settings = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
        assert store.runs() == []  # while that transaction holds the only right to write

    assert settings == ["wal", 2, 1, 10_000]


def test_no_thread_waits_long_for_its_turn_to_write(store: Store) -> None:
    run = given.claimed(store)
    until = time.monotonic() + 1

    def beat(_: int) -> float:
        longest = 0.0
        while (began := time.monotonic()) < until:
            assert store.beat(run.id, 1)
            longest = max(longest, time.monotonic() - began)
        return longest

    assert max(given.together(6, beat)) < 0.7


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    message = refusal(f"postgresql+psycopg://me:s3cret@127.0.0.1:{port}/flowkit")

    assert message.startswith(f"cannot use the database postgresql+psycopg://me:***@127.0.0.1:{port}/flowkit: ")
    assert "Connection refused" in message
    assert "s3cret" not in message


def test_a_server_that_does_not_answer_is_given_up_in_a_few_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        message = refusal(f"postgresql+psycopg://me@127.0.0.1:{silent.getsockname()[1]}/flowkit")

    assert "timeout" in message
    assert time.monotonic() - began < 8


def test_an_unknown_database_and_a_wrong_user_are_told_apart(postgres_url: str) -> None:
    assert 'database "nowhere" does not exist' in refusal(postgres_url.rsplit("/", 1)[0] + "/nowhere")
    assert 'role "nobody" does not exist' in refusal(postgres_url.replace("flowkit@", "nobody@"))


def test_a_crash_of_the_server_is_one_clear_line_and_over_when_it_is_back() -> None:
    with PostgresServer() as server, Store.open(server.url) as store:
        run = given.claimed(store)
        server.kill()

        for act in (store.runs, store.beats, lambda: store.beat(run.id, 1), lambda: store.submit(given.run(), "{}")):
            with pytest.raises(Unavailable, match=f"cannot use the database postgresql.*127.0.0.1:{server.port}/postg"):
                act()

        server.start()
        assert store.beat(run.id, 1)
        assert store.runs() == [run]

        server.kill()
        server.start()
        assert store.beat(run.id, 1)  # whose connection was to the server of before


def test_a_statement_that_takes_too_long_is_given_up(postgres_url: str) -> None:
    with new_database(postgres_url) as url, Store.open(url) as store:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="statement timeout"), store.reading() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(60)")

    assert time.monotonic() - began < 10


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "flowkit.db"
    file.write_text("a notebook, perhaps\n" * 100)

    assert refusal(f"sqlite:///{file}") == f"cannot use the database sqlite:///{file}: file is not a database"
    assert file.read_text().startswith("a notebook, perhaps")


def test_a_file_whose_folder_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    url = f"sqlite:///{tmp_path}/home/flowkit.db"

    assert refusal(url) == f"cannot use the database {url}: cannot make the folder {tmp_path}/home: File exists"


def test_a_folder_without_leave_to_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    url = f"sqlite:///{tmp_path}/locked/home/flowkit.db"
    with unprivileged():
        message = refusal(url)

    folder = f"{tmp_path}/locked/home"
    assert message == f"cannot use the database {url}: cannot make the folder {folder}: Permission denied"


def test_a_file_without_leave_to_write_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/flowkit.db"
    Store.open(url).close()
    (tmp_path / "flowkit.db").chmod(0o444)
    tmp_path.chmod(0o555)
    for folder in list(tmp_path.parents)[:3]:  # the test runner's own, closed to other users
        folder.chmod(folder.stat().st_mode | 0o011)
    try:
        with unprivileged():
            message = refusal(url)
    finally:
        tmp_path.chmod(0o755)

    assert message.startswith(f"cannot use the database {url}: ")
    assert "readonly database" in message or "unable to open" in message


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert refusal(f"sqlite:///{tmp_path}").endswith(f"{tmp_path}: unable to open database file")


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "mysql://me:s3cret@host/db", "flowkit.db", "", "postgresql://me:s3cret@h:x/d"],
)
def test_what_is_no_url_of_a_database_is_told_what_would_be(url: str) -> None:
    message = refusal(url)

    assert message.endswith("flowkit stores in sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE")
    assert "s3cret" not in message


def test_a_busy_file_is_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/flowkit.db"
    with Store.open(url) as store:
        other = sqlite3.connect(tmp_path / "flowkit.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.5, other.rollback).start()

        began = time.monotonic()
        run = given.submitted(store)

        assert time.monotonic() - began > 0.3
        assert store.claim(["default"], "w1", now=T0) is not None
        assert store.run(run.id).attempt == 1
        other.close()


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user who is not the files' owner, if we are root, whom no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
