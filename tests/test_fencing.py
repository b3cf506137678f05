"""A store that hangs: connections stay open, nothing is answered, and no timeout of TCP helps."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import StoreGone, Unavailable
from flowkit.model import State, now
from flowkit.store import Store, database
from tests.notebooks_made import write
from tests.processes import eventually, worker
from tests.servers import PostgresServer
from tests.worker.test_orphans import left_of

LEASE = 4.5

CELL = """
import time
import flowkit as fk
print("begun", flush=True)
if fk.current_run().attempt == 1:
    time.sleep(90)
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@contextmanager
def hanging(server: PostgresServer) -> Iterator[None]:
    """The server with all its processes stopped."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    processes = [server.pid, *map(int, children)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(processes):
            os.kill(process, signal.SIGCONT)


def test_a_worker_whose_store_hangs_stops_its_kernels_and_another_attempt_ends_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres: PostgresServer
) -> None:
    monkeypatch.setenv("FLOWKIT_DATABASE_URL", postgres.url)
    monkeypatch.setenv("FLOWKIT_LEASE", str(LEASE))
    with Client(Config.from_env()) as client, worker(FLOWKIT_WARM="off") as process:
        run = client.submit(write(tmp_path / "long.ipynb", CELL))
        eventually(lambda: client.store.events(run.id, output=True)[1])
        assert psutil.Process(process.pid).children()
        with hanging(postgres):
            began = time.monotonic()
            eventually(lambda: not psutil.Process(process.pid).children(recursive=True), seconds=LEASE)
            stopped = time.monotonic() - began
            time.sleep(LEASE / 2)
        ended = client.follow(run.id, lambda *_: None)

    assert stopped < LEASE
    assert (ended.state, ended.attempt, ended.crashes) == (State.SUCCEEDED, 2, 1)


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_worker_whose_sqlite_file_is_gone_stops_its_kernels_and_ends(
    home: Path, tmp_path: Path, sqlite_template: Path, how: str
) -> None:
    with worker() as process, Client(Config.from_env()) as client:
        run = client.submit(write(tmp_path / "long.ipynb", CELL))
        eventually(lambda: client.store.events(run.id, output=True)[1])
        for file in home.glob("flowkit.db*"):
            file.unlink()
        if how == "replaced":
            shutil.copy(sqlite_template, home / "flowkit.db")
        _, told = process.communicate(timeout=40)
        with pytest.raises(StoreGone):
            client.store.cancel(run.id, now=now())

    assert process.returncode == 2
    assert told.splitlines()[-1].endswith(
        "flowkit.db was deleted or replaced while this process used it; put it back and start again"
    )
    assert "Traceback" not in told
    assert left_of(home / "work" / f"{run.id}.1") == []
    if how == "deleted":
        assert list(home.glob("flowkit.db*")) == [], "nobody makes an empty one in its place"
    else:
        with Client(Config.from_env()) as other:
            assert other.store.runs() == []


def test_a_database_that_hangs_is_given_up_and_used_again_when_it_goes_on(postgres: PostgresServer) -> None:
    with Store.open(postgres.url) as store:
        with hanging(postgres):
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"connection timeout|no answer within 6 s"):
                store.beats()
            waited = time.monotonic() - began
        store.beats()

    assert waited < database.SILENCE + 2, "2 s for a busy machine"
