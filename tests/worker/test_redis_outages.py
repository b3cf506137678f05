"""Redis away, and Redis elsewhere: runs are only slower, and heard at once again when it is back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Policy, Run, State
from tests.notebooks_made import write
from tests.processes import eventually, flowkit, with_parent
from tests.servers import RedisBySentinel, RedisServer

#: Seconds within which a run begins whose ring was heard; without one it waits for a sweep, each second.
AT_ONCE = 0.4


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write(tmp_path / "small.ipynb", "1", parameters="seconds: float = 0.0\nfailures: int = 0")


@contextmanager
def fake_worker(journal: Path) -> Iterator[None]:
    """A worker of the queue ``fake``, without kernels. *journal*: it writes each attempt there that begins."""
    command = [sys.executable, "-m", "tests.chaos.worker", "fake", str(journal)]
    with journal.with_name("worker.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=dict(os.environ), preexec_fn=with_parent)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def submitted(client: Client, notebook: Path) -> Run:
    return client.submit(notebook, policy={"queue": "fake"})


def all_succeeded(client: Client, runs: list[Run]) -> bool:
    return all(client.store.run(run.id).state is State.SUCCEEDED for run in runs)


def hears(client: Client, notebook: Path) -> bool:
    """Whether six runs in a row began at once. By sweeps alone, hardly three do."""
    for _ in range(6):
        run = client.follow(submitted(client, notebook).id, lambda *_: None)
        assert run.started is not None
        if (run.started - run.created).total_seconds() > AT_ONCE:
            return False
    return True


def test_without_redis_runs_are_accepted_and_done_and_heard_again_when_it_comes(
    home: Path, tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer() as server:
        server.kill()
        monkeypatch.setenv("FLOWKIT_REDIS_URL", server.url.replace("//", "//:secret@"))
        with Client(Config.from_env()) as client, fake_worker(tmp_path / "journal"):
            eventually(client.workers)

            done = flowkit("run", notebook, "--queue", "fake")
            runs = [submitted(client, notebook) for _ in range(3)]
            eventually(lambda: all_succeeded(client, [*runs, *client.store.runs(limit=1)]))
            monkeypatch.setenv("FLOWKIT_REDIS_URL", server.url)
            server.start()

            with Client(Config.from_env()) as again:
                eventually(lambda: hears(again, notebook), seconds=60)

    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"flowkit: Redis at redis://:***@127.0.0.1:{server.port}/0 does not answer: ")
    assert line.endswith("Connection refused; workers find the run within seconds by looking")


def test_a_backfill_without_redis_warns_once(
    home: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FLOWKIT_REDIS_URL", "redis://127.0.0.1:1/0")
    with Client(Config.from_env()) as client:
        client.deploy(notebook, policy=Policy(queue="fake"))
        client.backfill("small", "failures", ["0", "1", "2"], concurrency=3)

        assert len(client.store.runs()) == 3
    assert len(caplog.records) == 1


def test_when_sentinel_names_another_master_no_run_is_lost_or_done_twice_and_rings_are_heard_there(
    home: Path, tmp_path: Path, notebook: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    with RedisBySentinel() as redis:
        monkeypatch.setenv("FLOWKIT_REDIS_URL", redis.url)
        with Client(Config.from_env()) as client, fake_worker(journal):
            eventually(client.workers)
            eventually(lambda: hears(client, notebook), seconds=60)
            failing_over = threading.Thread(target=redis.fail_over)
            failing_over.start()
            runs = []
            while failing_over.is_alive():
                runs.append(submitted(client, notebook))
                time.sleep(0.1)
            eventually(lambda: all_succeeded(client, runs))
            eventually(lambda: hears(client, notebook), seconds=60)
            shown = client.broker.address, client.broker.facts()

    assert len(runs) >= 5
    attempts = [" ".join(line.split()[:2]) for line in journal.read_text().splitlines()]
    assert len(attempts) == len(set(attempts))
    assert {f"{run.id} 1" for run in runs} <= set(attempts)
    assert shown[0] == redis.url
    assert shown[1] is not None
