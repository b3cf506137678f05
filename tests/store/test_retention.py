"""What is kept of the runs that have ended, and what goes with the others."""

from __future__ import annotations

import time

import pytest

from flowkit.errors import NotFound
from flowkit.events import Event
from flowkit.model import Cause, Ending, Run, State
from flowkit.store import Store
from tests.store import given
from tests.store.given import T0, TEXT, at

GOOD = Ending(State.SUCCEEDED)
BAD = Ending(State.FAILED, Cause.NOTEBOOK, "ValueError")


def ended(store: Store, number: int, ending: Ending | None, **changes: object) -> Run:
    """A run that was submitted as the *number*-th; cancelled if there is no ending."""
    run = given.claimed(store, created=at(number), id=f"run-{number:03}", **changes)
    if ending is None:
        store.cancel(run.id, now=T0)
        ending = Ending(State.CANCELLED)
    done = store.finish(run.id, 1, ending, now=T0)
    assert done is not None
    return done


def prunable(store: Store) -> list[str]:
    """Those of all; and the same come for one that is like each of them."""
    found = sorted(run.id for run in store.prunable())
    owners = {run.deployment or run.notebook: run for run in store.runs(limit=999)}
    one_by_one = [other.id for run in owners.values() for other in store.prunable(like=[run])]
    assert sorted(one_by_one) == found == sorted(run.id for run in store.prunable(like=owners.values()))
    return found


def test_the_newest_of_each_deployment_are_kept(store: Store) -> None:
    store.deploy(given.deployment(keep_succeeded=2, keep_failed=1), TEXT, now=T0)
    for number, ending in enumerate([GOOD, BAD, GOOD, None, GOOD, BAD, GOOD]):
        ended(store, number, ending, deployment="flights")
    given.claimed(store, deployment="flights", created=at(-5))
    given.submitted(store, deployment="flights", created=at(-6))

    assert prunable(store) == ["run-000", "run-001", "run-002", "run-003"]
    assert len(store.prunable(limit=3)) == 3


def test_a_deployment_that_keeps_less_from_now_on_prunes_what_it_has(store: Store) -> None:
    store.deploy(given.deployment(), TEXT, now=T0)
    for number in range(3):
        ended(store, number, GOOD, deployment="flights")
    assert prunable(store) == []

    store.deploy(given.deployment(keep_succeeded=0), TEXT, now=T0)

    assert prunable(store) == ["run-000", "run-001", "run-002"]


def test_runs_without_a_deployment_are_counted_by_notebook(store: Store) -> None:
    for number in range(51):
        ended(store, number, GOOD, notebook="/a.ipynb")
    for number in range(100, 121):
        ended(store, number, BAD, notebook="/a.ipynb")
    ended(store, 200, GOOD, notebook="/b.ipynb")

    assert prunable(store) == ["run-000", "run-100"]


def test_a_forgotten_run_is_gone_with_its_events(store: Store) -> None:
    run = given.claimed(store)
    store.record(run.id, 1, [Event("cell", 1.0, "1", state=State.RUNNING)])
    store.finish(run.id, 1, GOOD, now=T0)

    store.forget([run.id, "unknown"])

    with pytest.raises(NotFound):
        store.run(run.id)
    assert store.events(run.id, attempt=1) == (0, [])


def test_a_run_that_has_not_ended_is_not_forgotten(store: Store) -> None:
    pending, running = given.submitted(store), given.claimed(store)
    retried = ended(store, 1, BAD)
    store.retry(retried.id, now=T0)

    store.forget([pending.id, running.id, retried.id])

    assert {run.id for run in store.runs()} == {pending.id, running.id, retried.id}


def test_a_notebook_goes_with_the_last_that_needs_it(store: Store) -> None:
    store.deploy(given.deployment(snapshot="deployed"), TEXT, now=T0)
    store.deploy(given.deployment(snapshot="deployed since"), TEXT, now=T0)
    first, second = ended(store, 1, GOOD, snapshot="by hand"), ended(store, 2, GOOD, snapshot="by hand")

    store.forget([first.id])
    assert store.snapshot("by hand") == TEXT

    store.forget([second.id])
    with pytest.raises(NotFound):
        store.snapshot("by hand")
    assert store.snapshot("deployed") == store.snapshot("deployed since") == TEXT


def test_a_notebook_is_never_forgotten_under_a_run_that_is_just_submitted(store: Store) -> None:
    until = time.monotonic() + 1.5

    def act(number: int) -> int:
        done = 0
        while time.monotonic() < until:
            if number:
                run, _ = store.submit(given.run(), TEXT)
                assert store.snapshot(run.snapshot) == TEXT
                store.cancel(run.id, now=T0)
            else:
                store.forget([run.id for run in store.runs(limit=1000)])
            done += 1
        return done

    assert min(given.together(4, act)) > 3


def test_a_list_of_packages_goes_with_the_last_run_that_has_told_it(store: Store) -> None:
    def told(run: str, *listed: str) -> str:
        data = {"python": "3.11", "packages": list(listed)}
        assert store.record(run, 1, [Event("packages", 1.0, data=data)])
        return store.events(run, output=False)[1][0].name

    runs = [given.claimed(store, created=at(number), id=f"run-{number}") for number in range(3)]
    old, new, same = told("run-0", "some==1"), told("run-1", "some==2"), told("run-2", "some==1")
    for run in runs:
        assert store.finish(run.id, 1, GOOD, now=T0)

    store.forget(["run-0", "run-1"])
    assert old == same
    assert store.packages(old) == ["some==1"]
    assert store.packages(new) == []
    store.forget(["run-2"])
    assert store.packages(old) == []
