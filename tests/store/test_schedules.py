"""A firing becomes one run or one skip, whoever tries, however many, and wherever they die."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flowkit.errors import Conflict
from flowkit.model import CatchUp, Deployment, Ending, Overlap, Plan, Reason, Run, Schedule, Skip, State
from flowkit.store import Store
from flowkit.worker import cron
from tests.servers import Databases
from tests.store import given
from tests.store.given import T0, TEXT, at
from tests.store.races import outages

MINUTE = timedelta(minutes=1)


def scheduled(store: Store, name: str = "flights", *, next: datetime = T0, **schedule: object) -> Deployment:
    """Every minute on the minute of T0, unless told otherwise."""
    every = Schedule(every=60.0, anchor=T0 - MINUTE, next=next)
    return store.deploy(given.deployment(name, schedule=replace(every, **schedule)), TEXT, now=T0)[0]  # type: ignore[arg-type]


def fire(store: Store, now: datetime = T0, *, limit: int = 100) -> tuple[list[Run], list[Skip]]:
    return store.fire(lambda deployment: cron.plan(deployment, now), now=now, limit=limit)


def state(store: Store, run: Run) -> State:
    return store.run(run.id).state


def finish(store: Store, run: Run) -> Run | None:
    return store.finish(run.id, run.attempt, Ending(State.SUCCEEDED), now=T0)


# What is due


def test_what_is_due_is_listed_the_longest_overdue_first(store: Store) -> None:
    late = scheduled(store, "late", next=at(-60))
    latest = scheduled(store, "latest", next=at(-120))
    now = scheduled(store, "now", next=at(0))
    scheduled(store, "soon", next=at(0.000001))
    store.deploy(given.deployment("by hand"), TEXT, now=T0)

    assert store.due(now=T0) == [latest, late, now]
    assert store.due(now=T0, limit=1) == [latest]


def test_a_firing_stores_its_run_and_moves_on(store: Store) -> None:
    scheduled(store)

    [run], skips = fire(store)

    assert skips == []
    assert store.run(run.id) == run
    assert (run.scheduled_for, run.available, run.state) == (T0, None, State.PENDING)
    schedule = store.deployment("flights").schedule
    assert schedule is not None
    assert (schedule.next, schedule.anchor) == (at(60), at(-60))
    assert store.due(now=T0) == []
    assert fire(store) == ([], [])


def test_a_schedule_that_fires_no_more_has_no_next(store: Store) -> None:
    scheduled(store, end=at(59))

    assert len(fire(store)[0]) == 1

    assert store.due(now=at(9_999_999)) == []


def test_what_a_plan_leaves_is_left_and_the_others_fire(store: Store) -> None:
    broken, _ = scheduled(store, "broken"), scheduled(store, "sound")

    def plan(deployment: Deployment) -> Plan | None:
        return None if deployment.name == "broken" else cron.plan(deployment, T0)

    runs, _ = store.fire(plan, now=T0)

    assert [run.deployment for run in runs] == ["sound"]
    assert store.due(now=T0) == [broken]


def test_what_was_paused_or_rescheduled_meanwhile_is_not_fired(store: Store) -> None:
    scheduled(store, "paused")
    scheduled(store, "rescheduled")
    store.pause("paused", now=T0)
    scheduled(store, "rescheduled", every=3600.0, next=at(3600))

    assert fire(store) == ([], [])
    assert store.runs() == []


def test_a_firing_that_has_its_run_already_only_moves_on(store: Store) -> None:
    deployment = scheduled(store)
    store.submit(given.run(deployment="flights", version=deployment.version, scheduled_for=T0), TEXT)

    runs, _ = fire(store)

    assert runs == []
    assert len(store.runs()) == 1
    assert store.due(now=T0) == []


# Catching up


def test_after_an_outage_the_newest_runs_and_the_others_are_one_skip(store: Store) -> None:
    scheduled(store)

    [run], [skip] = fire(store, at(600))

    assert run.scheduled_for == at(600)
    assert (skip.first, skip.last, skip.count, skip.reason) == (T0, at(540), 10, Reason.MISSED)
    assert store.skips("flights") == [skip]


@pytest.mark.parametrize("overlap", [Overlap.QUEUE, Overlap.ALLOW])
def test_all_that_was_missed_runs_in_order(store: Store, overlap: Overlap) -> None:
    scheduled(store, catch_up=CatchUp.ALL, overlap=overlap)
    fire(store, at(240))

    began = []
    while run := store.claim(["default"], "w1", now=at(300)):
        assert overlap is Overlap.ALLOW or store.claim(["default"], "w2", now=at(300)) is None
        began.append(run.scheduled_for)
        finish(store, run)

    assert began == [at(60 * minute) for minute in range(5)]
    assert store.counts()[State.PENDING] == 0


# Overlap


@pytest.mark.parametrize("running", [False, True], ids=["pending", "running"])
def test_a_firing_is_skipped_while_an_earlier_run_has_not_ended(store: Store, running: bool) -> None:
    scheduled(store)
    [run], _ = fire(store)
    if running:
        claimed = store.claim(["default"], "w1", now=T0)
        assert claimed is not None
        run = claimed

    runs, [skip] = fire(store, at(60))
    assert runs == []
    assert (skip.first, skip.last, skip.count, skip.reason) == (at(60), at(60), 1, Reason.OVERLAP)
    assert store.skips("flights") == [skip]

    store.cancel(run.id, now=T0)
    if running:
        store.finish(run.id, 1, Ending(State.CANCELLED), now=T0)
    assert [run.scheduled_for for run in fire(store, at(120))[0]] == [at(120)]


def test_a_run_by_hand_is_no_overlap(store: Store) -> None:
    scheduled(store)
    given.submitted(store, deployment="flights")

    assert len(fire(store)[0]) == 1


def test_of_several_that_are_due_at_once_the_first_runs_where_overlap_is_skipped(store: Store) -> None:
    scheduled(store, catch_up=CatchUp.ALL)

    [run], [skip] = fire(store, at(180))

    assert run.scheduled_for == T0
    assert (skip.first, skip.last, skip.count, skip.reason) == (at(60), at(180), 3, Reason.OVERLAP)


def test_overlapping_runs_run_where_that_is_allowed(store: Store) -> None:
    scheduled(store, overlap=Overlap.ALLOW)
    for minute in range(3):
        fire(store, at(60 * minute))

    assert all(store.claim(["default"], "w1", now=at(180)) for _ in range(3))
    assert store.skips("flights") == []


def test_a_firing_cancels_the_earlier_run(store: Store) -> None:
    scheduled(store, overlap=Overlap.CANCEL_RUNNING)
    [first], _ = fire(store)
    by_hand = given.submitted(store, deployment="flights", queue="other")
    claimed = store.claim(["default"], "w1", now=T0)
    assert claimed is not None

    [second], skips = fire(store, at(60))
    [third], _ = fire(store, at(120))

    assert skips == []
    assert store.run(first.id).cancelling
    assert [state(store, run) for run in (second, third, by_hand)] == [State.CANCELLED, State.PENDING, State.PENDING]
    assert store.claim(["default"], "w2", now=at(120)) is None, "the first one's kernel may still live"
    assert finish(store, claimed) is not None
    assert state(store, first) is State.CANCELLED
    begun = store.claim(["default"], "w2", now=at(120))
    assert begun is not None
    assert begun.id == third.id


def test_of_several_due_at_once_the_newest_runs_where_it_would_cancel_the_others(store: Store) -> None:
    scheduled(store, catch_up=CatchUp.ALL, overlap=Overlap.CANCEL_RUNNING)

    [run], [skip] = fire(store, at(180))

    assert run.scheduled_for == at(180)
    assert (skip.first, skip.last, skip.count, skip.reason) == (T0, at(120), 3, Reason.REPLACED)


def queued(store: Store, count: int) -> list[Run]:
    scheduled(store, overlap=Overlap.QUEUE)
    return [run for minute in range(count) for run in fire(store, at(60 * minute))[0]]


@pytest.mark.parametrize("how", ["succeeds", "fails", "is cancelled", "is lost three times"])
def test_a_queued_run_waits_until_the_earlier_one_ended(store: Store, how: str) -> None:
    first, second = queued(store, 2)
    now = at(300)
    run = store.claim(["default"], "w1", now=now)
    assert run is not None
    assert run.id == first.id
    assert store.claim(["default"], "w2", now=now) is None
    assert store.ready(["default"], now=now, limit=9) == 0

    if how == "is cancelled":
        store.cancel(run.id, now=now)
        assert store.claim(["default"], "w2", now=now) is None
        store.finish(run.id, 1, Ending(State.CANCELLED), now=now)
    elif how == "is lost three times":
        for _ in range(3):
            store.rescue(run.id, run.attempt, 0, now=now)
            now += timedelta(minutes=1)
            run = store.claim(["default"], "w1", now=now)
            assert run is not None
    else:
        store.finish(run.id, 1, Ending(State.SUCCEEDED if how == "succeeds" else State.FAILED), now=now)

    if how != "is lost three times":
        run = store.claim(["default"], "w2", now=now)
        assert run is not None
    assert run.id == second.id


def test_a_queued_run_also_waits_for_the_retries_of_the_earlier_one(store: Store) -> None:
    first, _ = queued(store, 2)
    for _ in range(2):
        run = store.claim(["default"], "w1", now=at(300))
        assert run is not None
        assert run.id == first.id
        assert store.release(run.id, run.attempt, now=at(300))
        assert store.ready(["default"], now=at(300), limit=9) == 1


def test_a_queued_run_that_is_cancelled_while_it_waits_lets_nobody_pass(store: Store) -> None:
    first, second, third = queued(store, 3)

    store.cancel(second.id, now=T0)

    run = store.claim(["default"], "w1", now=at(300))
    assert run is not None
    assert run.id == first.id
    assert store.claim(["default"], "w1", now=at(300)) is None
    finish(store, run)
    run = store.claim(["default"], "w1", now=at(300))
    assert run is not None
    assert run.id == third.id


def test_a_queued_run_that_is_cancelled_when_its_turn_comes_passes_it_on(store: Store, database_url: str) -> None:
    first, second, third = queued(store, 3)
    run = store.claim(["default"], "w1", now=at(300))
    assert run is not None
    cancelled = threading.Event()

    def slowly(connection: object, cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread() is canceller and statement.startswith("UPDATE runs"):
            cancelled.set()
            time.sleep(0.5)  # while the first one ends, and finds the second one next in line

    with Store.open(database_url) as other:
        canceller = threading.Thread(target=other.cancel, args=(second.id,), kwargs={"now": T0})
        sa.event.listen(sa.Engine, "after_cursor_execute", slowly)
        try:
            canceller.start()
            cancelled.wait()
            assert finish(store, run)
            canceller.join()
        finally:
            sa.event.remove(sa.Engine, "after_cursor_execute", slowly)

    assert [state(store, one) for one in (first, second)] == [State.SUCCEEDED, State.CANCELLED]
    run = store.claim(["default"], "w1", now=at(300))
    assert run is not None
    assert run.id == third.id


def test_a_queued_run_that_is_retried_waits_again(store: Store) -> None:
    first, second, third = queued(store, 3)
    store.cancel(first.id, now=T0)
    store.retry(first.id, now=T0)

    began = []
    while run := store.claim(["default"], "w1", now=at(300)):
        assert store.claim(["default"], "w2", now=at(300)) is None
        began.append(run.id)
        finish(store, run)

    assert began == [second.id, third.id, first.id]


def test_one_run_at_a_time_has_its_turn_whatever_plan_the_server_makes(postgres_databases: Databases) -> None:
    plain = {"enable_hashjoin", "enable_mergejoin", "enable_hashagg", "enable_material", "enable_sort"}
    avoided = "; ".join(f"SET {one} = off" for one in sorted(plain))

    def plan_badly(connection: Any, _: object) -> None:
        connection.execute(avoided)
        connection.commit()

    with postgres_databases.fresh() as url:
        sa.event.listen(sa.Engine, "connect", plan_badly)
        try:
            with Store.open(url) as store:
                queued(store, 4)
                run = store.claim(["default"], "w1", now=at(300))
                assert run is not None
                finish(store, run)

                ready = store.ready(["default"], now=at(300), limit=9)
        finally:
            sa.event.remove(sa.Engine, "connect", plan_badly)

    assert ready == 1


def test_a_schedule_that_is_made_to_queue_waits_for_the_run_from_before(store: Store) -> None:
    scheduled(store)
    fire(store)
    run = store.claim(["default"], "w1", now=T0)
    assert run is not None
    scheduled(store, overlap=Overlap.QUEUE)
    [second], _ = fire(store, at(60))

    assert store.claim(["default"], "w1", now=at(60)) is None
    finish(store, run)
    run = store.claim(["default"], "w1", now=at(60))
    assert run is not None
    assert run.id == second.id


def test_while_runs_end_and_fire_and_are_claimed_and_cancelled_at_once_none_overlap_and_none_is_stuck(
    database_url: str, store: Store
) -> None:
    names = ["a", "b", "c"]
    for name in names:
        scheduled(store, name, overlap=Overlap.QUEUE)
    last = 20
    deadline = time.monotonic() + 60

    def act(number: int) -> None:
        chance = random.Random(number)
        with Store.open(database_url) as own:
            for minute in range(last + 1) if number == 0 else ():
                while any(fire(own, at(60 * minute))):
                    pass
            while number and time.monotonic() < deadline:
                run = own.claim(["default"], f"w{number}", now=at(9999))
                if run is None and len(own.runs(limit=999)) == 3 * (last + 1) and not own.counts()[State.PENDING]:
                    return
                if run is None:
                    continue
                running = Counter(one.deployment for one in own.runs(limit=999, states=[State.RUNNING]))
                assert max(running.values(), default=0) <= 1, running
                if chance.random() < 0.3:
                    for one in (run, *own.runs(states=[State.PENDING], limit=2)):
                        with suppress(Conflict):  # somebody was faster
                            own.cancel(one.id, now=T0)
                finish(own, run)

    given.together(6, act)

    assert store.counts()[State.PENDING] == store.counts()[State.RUNNING] == 0
    assert store.counts()[State.SUCCEEDED] + store.counts()[State.CANCELLED] == 3 * (last + 1)


# Jitter


def test_a_run_with_jitter_is_the_same_firing_and_waits(store: Store) -> None:
    scheduled(store, jitter=30.0)

    [run], _ = fire(store)

    assert run.scheduled_for == T0
    assert run.available is not None
    assert T0 <= run.available < at(30)
    assert store.run(run.id) == run
    assert store.claim(["default"], "w1", now=run.available - timedelta(milliseconds=1)) is None
    assert store.claim(["default"], "w1", now=run.available) is not None


# Many


def test_a_hundred_that_are_due_take_no_more_statements_than_one(store: Store) -> None:
    scheduled(store, "one", next=at(-60))
    for number in range(100):
        scheduled(store, f"flights {number}")
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "after_cursor_execute", note)
    try:
        fire(store, at(-1))
        of_one = len(seen)
        runs, _ = fire(store)
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", note)

    assert len(runs) == 100
    assert len(seen) - of_one == of_one > 3


def test_eight_tickers_make_one_run_of_each_of_1000_firings_due_at_once(database_url: str, store: Store) -> None:
    for number in range(1000):
        scheduled(store, f"flights {number}")

    def tick(_: int) -> tuple[int, int]:
        fired = skipped = 0
        with Store.open(database_url) as own:
            while own.due(now=T0, limit=1):
                runs, skips = fire(own)
                fired += len(runs)
                skipped += len(skips)
        return fired, skipped

    fired = given.together(8, tick)

    runs = store.runs(limit=2000)
    assert sum(runs for runs, _ in fired) == len(runs) == 1000
    assert sum(skips for _, skips in fired) == 0
    assert {(run.deployment, run.scheduled_for) for run in runs} == {
        (f"flights {number}", T0) for number in range(1000)
    }


@pytest.mark.parametrize("seed", range(10))
def test_whatever_the_outages_and_policies_every_firing_is_a_run_or_a_skip(store: Store, seed: int) -> None:
    assert outages(store, seed) == 100


def test_old_skips_are_forgotten(store: Store) -> None:
    scheduled(store)
    fire(store, at(600))
    store.forget_skips(before=at(600))
    assert len(store.skips("flights")) == 1

    store.forget_skips(before=at(601))
    assert store.skips("flights") == []


#: A ticker that stops for ever in the middle of its transaction, right after the statement it was told.
STUCK = """
import sys, time
import sqlalchemy as sa
from flowkit.store import Store
from tests.store.test_schedules import fire

store = Store.open(sys.argv[1])

@sa.event.listens_for(sa.Engine, "after_cursor_execute")
def stop(connection, cursor, statement, parameters, context, many):
    if statement.startswith(sys.argv[2]):
        print("stuck", flush=True)
        time.sleep(600)

fire(store)
print("not stuck")
"""


@pytest.mark.parametrize("statement", ["INSERT INTO runs", "UPDATE deployments"])
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

    until = time.monotonic() + 10
    while not (runs := fire(store)[0]) and time.monotonic() < until:
        time.sleep(0.05)  # PostgreSQL lets go of the row once it has noticed that the ticker is dead
    assert store.runs() == runs
    assert len(runs) == 1
    schedule = store.deployment("flights").schedule
    assert schedule is not None
    assert schedule.next == at(60)
