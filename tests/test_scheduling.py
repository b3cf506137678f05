"""Schedules and backfills as their user has them: commands, and a worker that ticks."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flowkit.artifacts import Artifacts
from flowkit.client import Client, schedule
from flowkit.config import Config
from flowkit.errors import UsageError
from flowkit.model import CatchUp, Overlap, Run, Schedule, State, now
from flowkit.store import Store
from flowkit.worker.cron import span
from flowkit.worker.dispatch import Dispatcher
from flowkit.worker.worker import identity
from tests.notebooks_made import write
from tests.processes import FLOWKIT, answer, eventually, flowkit, worker
from tests.store import given
from tests.store.given import T0, TEXT


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    with Client(Config.from_env()) as client:
        yield client


@pytest.fixture
def daily(tmp_path: Path) -> Path:
    return write(tmp_path / "daily.ipynb", "if day == '2013-01-02': raise ValueError(day)", parameters="day: str = ''")


# Schedules


def test_a_deployment_shows_the_whole_schedule_and_the_same_again_is_nothing_new(home: Path, daily: Path) -> None:
    options = ["--cron", "0 6 * * *", "--tz", "Asia/Kolkata", "--start", "2013-07-01", "--end", "2113-07-01T06:00"]
    options += ["--catch-up", "all", "--catch-up-limit", "7", "--grace", "2h", "--jitter", "5m"]

    schedule = answer("deploy", daily, *options)["schedule"]

    assert schedule.pop("next")
    assert schedule == {
        "cron": "0 6 * * *",
        "every": None,
        "zone": "Asia/Kolkata",
        "start": "2013-06-30T18:30:00Z",
        "end": "2113-07-01T00:30:00Z",
        "catch_up": "all",
        "catch_up_limit": 7,
        "grace": 7200.0,
        "overlap": "queue",
        "jitter": 300.0,
    }
    assert flowkit("deploy", daily, *options).stdout.startswith("nothing new:")
    changed = answer("deploy", daily, *options, "--overlap", "allow")
    assert (changed["version"], changed["schedule"]["overlap"]) == (1, "allow")


def test_a_schedule_that_has_ended_is_told(home: Path, daily: Path) -> None:
    done = flowkit("deploy", daily, "--cron", "0 6 * * *", "--end", "2013-07-01")
    assert "it does not fire: the schedule ended at 2013-07-01" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", "queue"], "a schedule needs a cron expression or an interval"),
        (["--cron", "0 6 * * *", "--start", "soon"], "'soon' is not a time; write one like 2013-07-01"),
        (["--every", "1h", "--start", "2013-07-01", "--tz", "Europe/Madird"], "did you mean 'Europe/Madrid'?"),
        (["--cron", "0 6 * * *", "--overlap", "wait"], "'wait' is not one of 'skip', 'queue'"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(home: Path, daily: Path, options: list[str], message: str) -> None:
    done = flowkit("deploy", daily, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_policy_of_no_such_name_is_refused_from_python_too(client: Client) -> None:

    with pytest.raises(UsageError, match="overlap cannot be 'wait'; it is one of skip, queue, cancel-running, allow"):
        schedule(cron="0 6 * * *", tz="UTC", every=None, overlap="wait")


def test_a_preview_says_what_the_clocks_do(home: Path) -> None:
    days = answer("schedule", "preview", "30 2 * * *", "--tz", "Europe/Madrid", "-n", "380")
    notes = [day["note"] for day in days if day["note"]]
    assert set(notes) == {
        "02:30 does not exist that day",
        "02:30 comes twice that day; it fires the first time only",
    }
    moved = next(day for day in days if day["note"] == "02:30 does not exist that day")
    assert moved["local"][11:] == "03:00:00+02:00"
    assert moved["utc"][11:] == "01:00:00Z"


def test_a_preview_of_a_deployment_is_of_its_schedule(home: Path, daily: Path) -> None:
    answer("deploy", daily, "--every", "1h", "--start", "2113-07-01", "--end", "2113-07-01T01:30")
    times = [firing["utc"] for firing in answer("schedule", "preview", "daily")]
    assert times == ["2113-07-01T00:00:00Z", "2113-07-01T01:00:00Z"]


def test_a_firing_that_did_not_run_is_listed_with_its_reason(client: Client, daily: Path) -> None:
    client.deploy(daily, schedule=Schedule(every=60.0))
    assert "every firing of daily ran" in flowkit("schedule", "skips", "daily").stdout
    client.store.pause("daily", now=now())
    client.store.resume("daily", next=now() - timedelta(minutes=10), now=now())

    with worker():
        eventually(lambda: client.store.skips("daily"))

    [skip] = answer("schedule", "skips", "daily")
    assert (skip["reason"], skip["deployment"]) == ("missed", "daily")
    assert skip["count"] >= 9
    assert "no worker was there when it was time" in flowkit("schedule", "skips", "daily").stdout


# A tick


def dispatcher(store: Store, folder: Path, rung: list[Run]) -> Dispatcher:
    me = identity(["default"], 1, at=T0)
    return Dispatcher(store, Artifacts(str(folder)), worker=me, ring=rung.append, lease=15, folder=folder)


def test_a_schedule_that_cannot_be_worked_out_does_not_stop_the_others(store: Store, tmp_path: Path) -> None:
    for name, zone in (("lost", "Atlantis/Capital"), ("sound", "UTC")):
        schedule = Schedule(cron="* * * * *", zone=zone, next=T0)
        store.deploy(given.deployment(name, schedule=schedule), TEXT, now=T0)

    dispatcher(store, tmp_path, []).tick(T0)

    assert [run.deployment for run in store.runs()] == ["sound"]


def test_one_tick_fires_all_that_is_due_and_rings_for_what_may_run_now(store: Store, tmp_path: Path) -> None:
    schedule = Schedule(every=60.0, anchor=T0, next=T0)
    for number in range(250):
        store.deploy(given.deployment(f"flights {number}", schedule=schedule), TEXT, now=T0)
    late = replace(schedule, jitter=3600.0)
    store.deploy(given.deployment("late", schedule=late), TEXT, now=T0)
    rung: list[Run] = []

    dispatcher(store, tmp_path, rung).tick(T0)

    assert len(store.runs(limit=999)) == 251
    assert {run.deployment for run in rung} == {f"flights {number}" for number in range(250)}


def test_a_year_of_missed_seconds_is_one_tick(store: Store, tmp_path: Path) -> None:
    schedule = Schedule(every=1.0, anchor=T0, next=T0 + timedelta(seconds=1), catch_up=CatchUp.ALL)
    queued = replace(schedule, overlap=Overlap.QUEUE)
    store.deploy(given.deployment(schedule=queued), TEXT, now=T0)

    dispatcher(store, tmp_path, []).tick(T0 + timedelta(days=365))

    assert len(store.runs(limit=999)) == 100
    assert [skip.count for skip in store.skips("flights")] == [365 * 86_400 - 100]


# Backfills


def test_a_backfill_runs_each_value_and_its_failed_ones_again(client: Client, daily: Path) -> None:
    client.deploy(daily)
    span = ["--param", "day", "--from", "2013-01-01", "--to", "2013-01-03"]
    with worker():
        first = flowkit("backfill", "daily", *span, "--concurrency", "2", "--reverse")
        again = flowkit("backfill", "daily", *span, "--json")
        failed = flowkit("backfill", "daily", *span, "--only-failed", "--json")

    assert first.returncode == 1
    assert "backfill daily:day: " in first.stdout
    assert "1 failed" in first.stdout
    assert "2 succeeded" in first.stdout
    assert json.loads(again.stdout)["counts"] == {"failed": 1, "succeeded": 2}
    assert failed.returncode == 1
    runs = answer("show", "daily:day")["runs"]
    assert [(run["parameters"]["day"], run["state"], run["attempt"]) for run in runs] == [
        ("2013-01-03", "succeeded", 1),
        ("2013-01-02", "failed", 2),
        ("2013-01-01", "succeeded", 1),
    ]
    assert [one["id"] for one in answer("backfills")] == ["daily:day"]


def test_a_backfill_is_left_by_ctrl_c_goes_on_and_is_cancelled_as_one(client: Client, daily: Path) -> None:
    client.deploy(daily)
    command = [*FLOWKIT, "backfill", "daily", "--param", "day", "--from", "2014-01-01", "--to", "2014-01-31"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline().startswith("no worker is alive on queue 'default'")
        waiting.send_signal(signal.SIGINT)
        _, told = waiting.communicate(timeout=10)

    assert waiting.returncode == 130
    assert "backfill daily:day goes on; stop it: flowkit cancel daily:day" in told
    assert client.store.counts()[State.PENDING] == 31
    assert flowkit("cancel", "daily:day").stdout == "31 runs of daily:day are cancelled\n"
    assert client.store.counts()[State.CANCELLED] == 31


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--param", "dya", "--from", "2013-01-01", "--to", "2013-01-02"], "did you mean 'day'?"),
        (["--param", "day", "--from", "2013-01-02", "--to", "2013-01-01"], "is after 2013-01-01; give the earlier"),
        (["--param", "day", "--from", "soon", "--to", "2013-01-01"], "give two dates, such as 2013-07-01"),
        (["--param", "day", "--from", "1913-01-01", "--to", "2013-01-01"], "36526 values, and 10000 is the limit"),
    ],
)
def test_a_backfill_that_makes_no_sense_is_refused(
    client: Client, daily: Path, options: list[str], message: str
) -> None:
    client.deploy(daily)
    done = flowkit("backfill", "daily", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert client.store.backfills() == []


def test_values_are_dates_or_times_as_the_span_is_given() -> None:

    assert span("2013-02-27", "2013-03-01", 86_400) == ["2013-02-27", "2013-02-28", "2013-03-01"]
    assert span("2013-01-01", "2013-01-10", 7 * 86_400) == ["2013-01-01", "2013-01-08"]
    assert span("2013-01-01", "2013-01-01", 3600) == ["2013-01-01T00:00:00"]
    assert span("2013-01-01T22:00", "2013-01-02", 3600)[-1] == datetime(2013, 1, 2).isoformat()


def test_a_deployment_is_deleted_from_the_command_line(client: Client, daily: Path) -> None:
    flowkit("deploy", daily)
    waiting = answer("run", "daily")

    refused = flowkit("delete", "daily")
    deleted = flowkit("delete", "daily", "--cancel")

    assert refused.returncode == 2
    assert refused.stderr.startswith("flowkit: daily cannot be deleted: 1 run of it is under way")
    assert deleted.stdout == "daily is deleted; its runs are still listed\n"
    assert client.store.deployments() == []
    assert client.store.run(waiting["id"]).state is State.CANCELLED
