"""What the doctor finds on places that are well, and on those made ill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from flowkit.client import Client
from flowkit.config import Config
from flowkit.doctor import examine
from flowkit.model import Finding, Health, Schedule, now
from flowkit.worker import process
from flowkit.worker.worker import identity
from tests.notebooks_made import write
from tests.processes import flowkit
from tests.servers import Databases, RedisServer
from tests.store.given import TEXT, deployment


def ill(findings: Iterator[Finding]) -> list[tuple[str, Health, str]]:
    """But for what this machine lets a kernel be kept in, which is another test's matter."""
    others = [found for found in findings if found.subject != "isolation"]
    return [(found.subject, found.health, found.found) for found in others if found.health is not Health.GOOD]


def test_a_laptop_without_anything_is_well(home: Path) -> None:
    findings = list(examine(Config.from_env()))

    assert ill(iter(findings)) == []
    assert [found.subject for found in findings] == [
        "store",
        "broker",
        "artifacts",
        "kernel",
        "warm kernels",
        "isolation",
    ]
    assert all(found.remedy is None for found in findings if found.subject != "isolation")
    assert list((home / "artifacts").glob("doctor/*")) == []


def test_why_kernels_are_not_isolated_better_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_tried", lambda: ("reaper", "unshare: Operation not permitted"))

    (finding,) = (found for found in examine(Config.from_env()) if found.subject == "isolation")

    assert finding.health is Health.WARNING
    assert finding.found.startswith("no PID namespaces (unshare: Operation not permitted); a reaper ends what")
    assert finding.remedy


def test_a_store_that_does_not_answer_is_the_only_finding(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_DATABASE_URL", "postgresql://ada:secret@127.0.0.1:1/flowkit")

    (finding,) = examine(Config.from_env())

    assert (finding.subject, finding.health) == ("store", Health.PROBLEM)
    assert "127.0.0.1:1" in finding.found
    assert "secret" not in finding.found
    assert finding.remedy


def test_a_redis_that_may_evict_is_a_problem_and_so_is_one_that_is_not_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_REDIS_URL", "redis://127.0.0.1:1/0")
    assert [found[:2] for found in ill(examine(Config.from_env()))] == [("broker", Health.PROBLEM)]

    with RedisServer() as server:
        monkeypatch.setenv("FLOWKIT_REDIS_URL", server.url)
        assert ill(examine(Config.from_env())) == []

        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        (found,) = ill(examine(Config.from_env()))

    assert found[:2] == ("broker", Health.PROBLEM)
    assert "maxmemory-policy is allkeys-lru" in found[2]


def test_servers_with_files_of_one_machine_beside_them_are_warned_of(
    home: Path, monkeypatch: pytest.MonkeyPatch, postgres_databases: Databases
) -> None:
    with postgres_databases.fresh() as url:
        monkeypatch.setenv("FLOWKIT_DATABASE_URL", url)
        found = ill(examine(Config.from_env()))

    assert [(subject, health) for subject, health, _ in found] == [
        ("broker", Health.WARNING),
        ("artifacts", Health.WARNING),
    ]


def test_artifacts_that_cannot_be_written_are_a_problem(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    (home / "file").touch()
    monkeypatch.setenv("FLOWKIT_ARTIFACTS_URL", str(home / "file" / "below"))

    ((subject, health, text),) = ill(examine(Config.from_env()))

    assert (subject, health) == ("artifacts", Health.PROBLEM)
    assert text.startswith("cannot write the artifact")


def test_a_queue_without_a_worker_is_a_problem_until_one_is_there(home: Path, tmp_path: Path) -> None:
    with Client(Config.from_env()) as client:
        client.submit(write(tmp_path / "x.ipynb", "1"), policy={"queue": "gpu"})
        done = flowkit("doctor")
        client.store.enrol(identity(["gpu"], 1, at=now()))
        after = flowkit("doctor", "--json")

    assert done.returncode == 2
    assert "no worker is alive on queue 'gpu', where 1 run waits" in done.stdout
    assert "flowkit worker --queue gpu" in done.stdout
    assert after.returncode == 0
    assert {found["health"] for found in json.loads(after.stdout)} == {"good"}


def test_a_firing_that_nobody_looked_for_is_among_what_the_dashboard_remarks(home: Path) -> None:
    overdue = Schedule(cron="0 6 * * *", next=now() - timedelta(minutes=10))
    with Client(Config.from_env()) as client:
        client.store.deploy(deployment("flights", schedule=overdue), TEXT, now=now())
        remarks = client.remarks()

    assert [(one.subject, one.health) for one in remarks] == [
        ("workers", Health.PROBLEM),
        ("schedules", Health.PROBLEM),
    ]
    assert remarks[1].found == "flights should have fired 10 minutes ago, and nobody has looked"
