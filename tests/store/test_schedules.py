"""A firing becomes one run, whoever tries, however many, and wherever they die."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import pytest

from flowkit.model import Deployment, Run, Schedule
from flowkit.store import Store
from tests.store import given
from tests.store.given import T0, TEXT, at


def scheduled(store: Store, name: str = "flights", *, next: datetime = T0) -> Deployment:
    schedule = Schedule(every=60.0, anchor=T0, next=next)
    return store.deploy(given.deployment(name, schedule=schedule), TEXT, now=T0)[0]


def firing(deployment: Deployment) -> Run:
    assert deployment.schedule is not None
    return given.run(deployment=deployment.name, version=deployment.version, scheduled_for=deployment.schedule.next)


def test_what_is_due_is_listed_the_longest_overdue_first(store: Store) -> None:
    late = scheduled(store, "late", next=at(-5))
    latest = scheduled(store, "latest", next=at(-9))
    now = scheduled(store, "now", next=at(0))
    scheduled(store, "soon", next=at(0.000001))
    store.deploy(given.deployment("by hand"), TEXT, now=T0)

    assert store.due(now=T0) == [latest, late, now]
    assert store.due(now=T0, limit=1) == [latest]


def test_a_firing_stores_its_run_and_moves_on(store: Store) -> None:
    deployment = scheduled(store)
    run = firing(deployment)

    assert store.fire(deployment, run, next=at(60))

    assert store.run(run.id) == run
    schedule = store.deployment("flights").schedule
    assert schedule is not None
    assert (schedule.next, schedule.anchor) == (at(60), T0)
    assert store.due(now=T0) == []


def test_a_schedule_that_fires_no_more_has_no_next(store: Store) -> None:
    deployment = scheduled(store)

    assert store.fire(deployment, firing(deployment), next=None)
    assert not store.fire(store.deployment("flights"), firing(deployment), next=None)

    assert store.due(now=at(9_999_999)) == []
    assert len(store.runs()) == 1


def test_what_was_fired_paused_or_rescheduled_meanwhile_is_not_fired(store: Store) -> None:
    seen = scheduled(store)
    store.fire(seen, firing(seen), next=at(60))
    assert not store.fire(seen, firing(seen), next=at(60))

    seen = store.deployment("flights")
    store.pause("flights", now=T0)
    assert not store.fire(seen, firing(seen), next=at(120))

    store.resume("flights", next=at(60), now=T0)
    store.deploy(given.deployment(schedule=Schedule(cron="0 6 * * *", next=at(61))), TEXT, now=T0)
    assert not store.fire(seen, firing(seen), next=at(120))

    assert len(store.runs()) == 1


def test_a_firing_that_has_its_run_already_only_moves_on(store: Store) -> None:
    deployment = scheduled(store)
    store.submit(firing(deployment), TEXT)

    assert not store.fire(deployment, firing(deployment), next=at(60))

    assert len(store.runs()) == 1
    assert store.due(now=T0) == []


def test_eight_tickers_make_one_run_of_each_of_100_firings(database_url: str, store: Store) -> None:
    for number in range(10):
        scheduled(store, f"flights {number}")

    def tick(_: int) -> int:
        fired = 0
        with Store.open(database_url) as own:
            while due := own.due(now=at(599)):  # each is ten firings behind
                for deployment in due:
                    assert deployment.schedule is not None
                    assert deployment.schedule.next is not None
                    following = deployment.schedule.next + (at(60) - T0)
                    fired += own.fire(deployment, firing(deployment), next=following)
        return fired

    fired = given.together(8, tick)

    runs = store.runs(limit=1000)
    assert sum(fired) == len(runs) == 100
    assert {(run.deployment, run.scheduled_for) for run in runs} == {
        (f"flights {number}", at(60 * minute)) for number in range(10) for minute in range(10)
    }


#: A ticker that stops for ever in the middle of its transaction, right after the statement it was told.
STUCK = """
import sys, time
from datetime import timedelta
import sqlalchemy as sa
from flowkit.store import Store
from tests.store import given

store = Store.open(sys.argv[1])
[deployment] = store.due(now=given.T0)

@sa.event.listens_for(sa.Engine, "after_cursor_execute")
def stop(connection, cursor, statement, parameters, context, many):
    if statement.startswith(sys.argv[2]):
        print("stuck", flush=True)
        time.sleep(600)

store.fire(deployment, given.run(deployment="flights", scheduled_for=given.T0), next=given.at(60))
print("not stuck")
"""


@pytest.mark.parametrize("statement", ["UPDATE deployments", "INSERT INTO runs"])
def test_a_ticker_killed_in_the_middle_repeats_nothing_and_loses_nothing(
    store: Store, database_url: str, statement: str
) -> None:
    deployment = scheduled(store)
    command = [sys.executable, "-c", STUCK, database_url, statement]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ticker:
        assert ticker.stdout is not None
        try:
            assert ticker.stdout.readline() == "stuck\n"
        finally:
            ticker.kill()

    assert store.runs() == []
    assert store.due(now=T0) == [deployment]

    run = firing(deployment)
    assert store.fire(deployment, run, next=at(60))
    assert store.runs() == [run]
    assert store.deployment("flights") == replace(deployment, schedule=Schedule(every=60.0, anchor=T0, next=at(60)))
