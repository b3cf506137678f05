"""Deployments, their versions and their snapshots."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from flowkit.errors import Conflict, NotFound
from flowkit.model import Backfill, CatchUp, Ending, Overlap, Policy, Schedule, State
from flowkit.store import Store
from tests.store import given
from tests.store.given import T0, TEXT, at

DAILY = Schedule(cron="0 6 * * *", zone="America/New_York", next=at(60))


def test_a_deployment_comes_back_as_it_was_given(store: Store) -> None:
    wanted = given.deployment(
        parameters={"day": "2013-07-01", "min_delay": 15},
        policy=Policy(queue="big", priority=3, retries=2, backoff=0.5, timeout=9.0, kernel="python3"),
        schedule=Schedule(every=900.5, zone="Europe/Berlin", anchor=at(-1), next=at(899)),
        keep_succeeded=5,
        keep_failed=2,
    )

    deployed, new = store.deploy(wanted, TEXT, now=T0)

    assert new
    assert deployed == replace(wanted, version=1, created=T0, updated=T0)
    assert store.deployment("flights") == deployed
    assert store.snapshot(wanted.snapshot) == TEXT


def test_deploying_the_same_again_changes_nothing(store: Store) -> None:
    wanted = given.deployment(parameters={"b": math.nan, "a": [1]}, schedule=DAILY)
    first, _ = store.deploy(wanted, TEXT, now=T0)

    again, new = store.deploy(replace(wanted, parameters={"a": [1], "b": math.nan}), TEXT, now=at(9))

    assert not new
    assert repr(again) == repr(first)  # NaN is not equal to itself
    assert repr(store.versions("flights")) == repr([first])


@pytest.mark.parametrize(
    "change",
    [
        {"snapshot": "another"},
        {"parameters": {"day": "2013-07-02"}},
        {"parameters": {"day": 1}},
        {"policy": Policy(retries=1)},
        {"keep_succeeded": 1},
        {"keep_failed": 1},
    ],
    ids=str,
)
def test_a_change_makes_a_new_version_and_keeps_the_old_ones(store: Store, change: dict[str, Any]) -> None:
    wanted = given.deployment(parameters={"day": True})
    first, _ = store.deploy(wanted, TEXT, now=T0)

    second, new = store.deploy(replace(wanted, **change), TEXT, now=at(9))

    assert new
    assert second == replace(wanted, **change, version=2, created=T0, updated=at(9))
    assert store.deployment("flights") == second
    assert store.versions("flights") == [second, first]


def test_a_moved_notebook_is_no_new_version(store: Store) -> None:
    store.deploy(given.deployment(), TEXT, now=T0)

    moved, new = store.deploy(given.deployment(notebook="/elsewhere/flights.ipynb"), TEXT, now=at(9))

    assert new
    assert (moved.version, moved.notebook, moved.updated) == (1, "/elsewhere/flights.ipynb", T0)
    assert store.versions("flights") == [moved]


def test_an_unchanged_schedule_keeps_its_place(store: Store) -> None:
    schedule = Schedule(every=900.0, anchor=T0, next=at(900))
    store.deploy(given.deployment(schedule=schedule), TEXT, now=T0)

    wanted = given.deployment(snapshot="another", schedule=replace(schedule, anchor=at(500), next=at(1400)))
    deployed, _ = store.deploy(wanted, TEXT, now=at(500))

    assert deployed.version == 2
    assert deployed.schedule == schedule == store.deployment("flights").schedule


def test_a_changed_schedule_takes_the_place_it_is_given(store: Store) -> None:
    store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0)
    other = replace(DAILY, zone="Europe/Berlin", next=at(7))

    deployed, new = store.deploy(given.deployment(schedule=other), TEXT, now=at(1))

    assert new
    assert (deployed.version, deployed.schedule) == (1, other)
    assert store.deployment("flights") == deployed


def test_a_schedule_that_fires_as_before_keeps_its_place_and_may_do_something_else_then(store: Store) -> None:
    store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0)
    other = replace(DAILY, overlap=Overlap.ALLOW, catch_up=CatchUp.ALL, grace=7.0, jitter=9.0, next=at(7))

    deployed, new = store.deploy(given.deployment(schedule=other), TEXT, now=at(1))

    assert new
    assert (deployed.version, deployed.schedule) == (1, replace(other, next=DAILY.next))
    assert store.deployment("flights") == deployed


def test_a_schedule_can_be_removed(store: Store) -> None:
    store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0)

    deployed, new = store.deploy(given.deployment(), TEXT, now=at(1))

    assert new
    assert deployed.schedule is None
    assert store.deployment("flights") == deployed
    assert store.due(now=at(99)) == []


def test_a_paused_deployment_has_no_next_firing_until_it_is_resumed(store: Store) -> None:
    store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0)

    paused = store.pause("flights", now=at(1))

    assert paused.paused
    assert paused.schedule == replace(DAILY, next=None)
    assert store.due(now=at(9999)) == []
    assert store.pause("flights", now=at(2)) == paused

    resumed = store.resume("flights", next=at(10_000), now=at(9999))
    assert not resumed.paused
    assert resumed.schedule == replace(DAILY, next=at(10_000))
    assert store.due(now=at(9999)) == []
    assert store.due(now=at(10_000)) == [resumed]


def test_resuming_what_is_not_paused_skips_no_firing(store: Store) -> None:
    deployed, _ = store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0)

    assert store.resume("flights", next=at(9999), now=T0) == deployed


@pytest.mark.parametrize("schedule", [DAILY, replace(DAILY, cron="0 7 * * *"), None], ids=["same", "other", "none"])
def test_a_paused_deployment_that_is_deployed_again_stays_paused(store: Store, schedule: Schedule | None) -> None:
    store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0)
    store.pause("flights", now=T0)

    deployed, _ = store.deploy(given.deployment(snapshot="another", schedule=schedule), TEXT, now=at(1))

    assert deployed.paused
    assert deployed == store.deployment("flights")
    assert store.due(now=at(9999)) == []


def test_deployments_are_listed_by_name(store: Store) -> None:
    for name in ("weather", "Zoo", "flights", "a b", "été"):
        store.deploy(given.deployment(name), TEXT, now=T0)

    assert [deployment.name for deployment in store.deployments()] == ["Zoo", "a b", "flights", "weather", "été"]


def test_an_unknown_deployment_is_named_with_its_nearest(store: Store) -> None:
    store.deploy(given.deployment(), TEXT, now=T0)

    for act in (store.deployment, store.versions, lambda name: store.pause(name, now=T0)):
        with pytest.raises(NotFound) as caught:
            act("flihgts")
        assert str(caught.value) == "no deployment 'flihgts'; did you mean 'flights'?"
    with pytest.raises(NotFound) as caught:
        store.deployment("zzz")
    assert str(caught.value) == "no deployment 'zzz'; `flowkit deployments` lists them"


def test_an_unknown_snapshot_is_named(store: Store) -> None:
    with pytest.raises(NotFound, match="the store has no notebook 'gone'"):
        store.snapshot("gone")


def test_eight_who_deploy_the_same_at_once_make_one_version(store: Store) -> None:
    answers = given.together(8, lambda _: store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0))

    assert [new for _, new in answers].count(True) == 1
    assert {deployed.version for deployed, _ in answers} == {1}


def test_eight_who_deploy_differently_at_once_make_a_version_each(store: Store) -> None:
    def deploy(number: int) -> int:
        return store.deploy(given.deployment(snapshot=f"digest-{number}"), TEXT, now=T0)[0].version

    assert sorted(given.together(8, deploy)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [deployed.version for deployed in store.versions("flights")] == [8, 7, 6, 5, 4, 3, 2, 1]


def test_a_deleted_deployment_is_gone_with_its_schedule_and_its_runs_stay(store: Store) -> None:
    deployed, _ = store.deploy(given.deployment(schedule=DAILY), TEXT, now=T0)
    run = given.claimed(store, deployment="flights", version=1)
    store.finish(run.id, run.attempt, Ending(State.SUCCEEDED), now=T0)

    store.delete("flights", cancel=False, now=T0)

    assert store.deployments() == []
    assert store.due(now=at(10**6)) == []
    assert [(one.id, one.deployment) for one in store.runs()] == [(run.id, "flights")]
    assert store.deploy(replace(deployed, version=0), TEXT, now=at(1))[0].version == 1
    with pytest.raises(NotFound, match="no deployment 'flihgts'; did you mean 'flights'"):
        store.delete("flihgts", cancel=True, now=T0)


def test_a_deployment_with_runs_under_way_is_deleted_only_with_them(store: Store) -> None:
    store.deploy(given.deployment(), TEXT, now=T0)
    store.deploy(given.deployment("other"), TEXT, now=T0)
    wanted = Backfill(id="flights:day", deployment="flights", parameter="day", concurrency=1, created=T0, counts={})
    line = [given.run(deployment="flights", version=1, series="flights:day") for _ in range(3)]
    store.backfill(wanted, line, again=[], only_again=False, now=T0)
    others = given.submitted(store, deployment="other", version=1)

    with pytest.raises(Conflict, match="flights cannot be deleted: 3 runs of it are under way; cancel them"):
        store.delete("flights", cancel=False, now=T0)
    assert store.deployment("flights")

    store.delete("flights", cancel=True, now=T0)

    assert [one.name for one in store.deployments()] == ["other"]
    assert {one.state for one in store.runs(deployment="flights")} == {State.CANCELLED}
    assert store.run(others.id).state is State.PENDING
