"""A backfill makes one run for each value, so many at once, whatever happens to them, and is cancelled as one."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from flowkit.errors import NotFound
from flowkit.model import Backfill, Cause, Deployment, Ending, Run, State
from flowkit.store import Store
from tests.store import given
from tests.store.given import T0, TEXT, at

ID = "flights:day"
LATER = at(9999)


def backfill(
    store: Store,
    values: Sequence[int] = range(5),
    *,
    concurrency: int = 2,
    again: State = State.CANCELLED,
    only_again: bool = False,
    deployment: Deployment | None = None,
    **policy: int,
) -> Backfill:
    deployment = deployment or store.deploy(given.deployment(), TEXT, now=T0)[0]
    wanted = Backfill(id=ID, deployment="flights", parameter="day", concurrency=concurrency, created=T0, counts={})
    runs = [
        given.run(
            key=f"flights:day={value}",
            deployment="flights",
            snapshot=deployment.snapshot,
            series=ID,
            parameters={"day": value},
            created=T0 + timedelta(microseconds=number),
            **policy,
        )
        for number, value in enumerate(values)
    ]
    return store.backfill(wanted, runs, again=[again], only_again=only_again, now=T0)


def claim(store: Store, now: datetime = LATER) -> Run | None:
    return store.claim(["default"], "w1", now=now)


def drained(store: Store, *, failing: Sequence[int] = ()) -> list[int]:
    """Run all that can be run; the values, in order."""
    found = []
    while run := claim(store):
        found.append(run.parameters["day"])
        ending = Ending(State.FAILED, Cause.NOTEBOOK, "no") if found[-1] in failing else Ending(State.SUCCEEDED)
        assert store.finish(run.id, run.attempt, ending, now=T0)
    return found


def test_each_value_has_a_run_in_the_order_given(store: Store) -> None:
    made = backfill(store, [3, 1, 2])

    assert made == Backfill(
        id=ID, deployment="flights", parameter="day", concurrency=2, created=T0, counts={State.PENDING: 3}
    )
    assert store.backfills() == [made]
    assert [run.parameters["day"] for run in store.backfill_runs(ID)] == [3, 1, 2]
    assert drained(store) == [3, 1, 2]
    assert store.backfills(ID)[0].counts == {State.SUCCEEDED: 3}


def test_the_same_again_makes_only_what_is_missing(store: Store) -> None:
    backfill(store, [1, 2, 3])
    drained(store)

    again = backfill(store, [2, 3, 4, 5])

    assert again.counts == {State.SUCCEEDED: 3, State.PENDING: 2}
    assert drained(store) == [4, 5]


def test_a_new_version_of_the_deployment_does_not_begin_again(store: Store) -> None:
    backfill(store, [1, 2])
    drained(store)
    changed, _ = store.deploy(given.deployment(snapshot="another"), TEXT, now=T0)

    assert backfill(store, [1, 2, 3], deployment=changed).counts == {State.SUCCEEDED: 2, State.PENDING: 1}


def test_at_most_so_many_run_at_once(store: Store) -> None:
    backfill(store, concurrency=2)

    one, two = claim(store), claim(store)
    assert one is not None
    assert two is not None
    assert claim(store) is None
    assert store.ready(["default"], now=LATER, limit=9) == 0
    store.finish(two.id, 1, Ending(State.SUCCEEDED), now=T0)
    three = claim(store)
    assert three is not None
    assert three.parameters["day"] == 2
    assert claim(store) is None


def test_a_run_that_is_tried_again_or_whose_worker_died_keeps_its_turn(store: Store) -> None:
    backfill(store, concurrency=1, retries=1)
    for lost in (False, True):
        run = claim(store, LATER)
        assert run is not None
        assert run.parameters["day"] == 0
        if lost:
            store.rescue(run.id, run.attempt, 0, now=T0)
        else:
            store.finish(run.id, run.attempt, Ending(State.FAILED, Cause.NOTEBOOK, "no"), now=T0)
    assert drained(store) == [0, 1, 2, 3, 4]


def test_other_runs_do_not_wait_for_a_backfill(store: Store) -> None:
    backfill(store, range(100), concurrency=1)
    assert claim(store)
    other = given.submitted(store)

    run = claim(store)

    assert run is not None
    assert run.id == other.id


def test_more_may_run_at_once_from_now_on(store: Store) -> None:
    backfill(store, concurrency=1)
    assert claim(store)
    assert claim(store) is None

    backfill(store, concurrency=3)

    assert claim(store)
    assert claim(store)
    assert claim(store) is None


def test_only_the_failed_ones_run_again(store: Store) -> None:
    backfill(store, range(6))
    assert drained(store, failing=[1, 3, 5]) == [0, 1, 2, 3, 4, 5]

    assert backfill(store, range(6)).counts == {State.SUCCEEDED: 3, State.FAILED: 3}
    again = backfill(store, [0, 1, 2, 3, 99], again=State.FAILED, only_again=True)

    assert again.counts == {State.SUCCEEDED: 3, State.FAILED: 1, State.PENDING: 2}
    assert drained(store) == [1, 3]


def test_it_is_cancelled_as_one_and_taken_up_again(store: Store) -> None:
    backfill(store)
    other = given.submitted(store, queue="other")
    done, under_way = claim(store), claim(store)
    assert done is not None
    assert under_way is not None
    store.finish(done.id, 1, Ending(State.SUCCEEDED), now=T0)

    assert store.cancel_backfill(ID, now=T0) == 4

    assert store.backfills(ID)[0].counts == {State.SUCCEEDED: 1, State.RUNNING: 1, State.CANCELLED: 3}
    assert store.cancel_backfill(ID, now=T0) == 0
    store.finish(under_way.id, 1, Ending(State.CANCELLED), now=T0)
    assert store.backfills(ID)[0].counts == {State.SUCCEEDED: 1, State.CANCELLED: 4}
    assert claim(store) is None
    assert store.run(other.id).state is State.PENDING
    backfill(store)
    assert drained(store) == [1, 2, 3, 4]


@pytest.mark.parametrize("noticed", [True, False])
def test_what_is_still_being_cancelled_is_taken_up_again(store: Store, noticed: bool) -> None:
    """*noticed*: its worker has told the kernel to end before the cancel was taken back."""
    backfill(store, [7])
    under_way = claim(store)
    assert under_way is not None
    store.cancel_backfill(ID, now=T0)

    assert backfill(store, [7]).counts == {State.RUNNING: 1}

    assert not store.run(under_way.id).cancelling
    ended = store.finish(under_way.id, 1, Ending(State.CANCELLED if noticed else State.SUCCEEDED), now=T0)
    assert ended is not None
    if noticed:
        assert (ended.state, ended.last_attempt - ended.attempt) == (State.PENDING, 1)
        assert drained(store) == [7]
    assert store.backfills(ID)[0].counts == {State.SUCCEEDED: 1}


def test_an_unknown_backfill_is_named_with_its_nearest(store: Store) -> None:
    backfill(store)
    with pytest.raises(NotFound, match="no backfill 'flights:dya'; did you mean 'flights:day'"):
        store.backfills("flights:dya")


def test_runs_of_a_backfill_are_kept_so_that_they_are_not_made_again(store: Store) -> None:
    deployment, _ = store.deploy(replace(given.deployment(), keep_succeeded=1), TEXT, now=T0)
    for number in range(3):
        run = given.claimed(store, deployment="flights", created=at(number))
        store.finish(run.id, 1, Ending(State.SUCCEEDED), now=T0)
    backfill(store, deployment=deployment)
    drained(store)

    store.forget([run.id for run in store.prunable()])

    assert len(store.runs(deployment="flights")) == 5 + 1
    assert backfill(store, deployment=deployment).counts == {State.SUCCEEDED: 5}


def test_while_it_is_made_and_claimed_and_cancelled_at_once_never_more_run_and_none_is_stuck(
    database_url: str, store: Store
) -> None:
    backfill(store, range(40), concurrency=3)
    deadline = time.monotonic() + 60

    def act(number: int) -> None:
        chance = random.Random(number)
        with Store.open(database_url) as own:
            while time.monotonic() < deadline:
                run = own.claim(["default"], f"w{number}", now=LATER)
                counts = own.counts()
                assert counts[State.RUNNING] <= 3
                if run is None and counts[State.PENDING] == counts[State.RUNNING] == 0:
                    return
                if run is None:
                    continue
                how = chance.random()
                if how < 0.1 and number == 0:
                    own.cancel_backfill(ID, now=T0)
                    backfill(own, range(40), concurrency=3)
                elif how < 0.3:
                    own.rescue(run.id, run.attempt, 0, now=T0)
                else:
                    own.finish(run.id, run.attempt, Ending(State.SUCCEEDED), now=T0)

    given.together(5, act)

    counts = store.counts()
    assert counts[State.PENDING] == counts[State.RUNNING] == 0
    assert sum(counts.values()) == 40
