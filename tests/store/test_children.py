"""Runs that are nodes of other runs: they are asked for once, and what happens to one its parent and children learn."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.errors import NotFound
from flowkit.family import Family
from flowkit.model import Backfill, Cause, Ending, Run, State, new_id
from flowkit.store import Store
from tests.store import given
from tests.store.given import T0, TEXT, at

SUSPENDED = Ending(State.PENDING)
DONE = Ending(State.SUCCEEDED)
BROKEN = Ending(State.FAILED, Cause.NOTEBOOK, "ValueError: bad day")


def asked(store: Store, parent: Run, count: int, **changes: Any) -> list[Run]:
    queue = changes.pop("queue", parent.policy.queue)
    priority = parent.policy.priority + 1
    numbers = range(len(store.children(parent.id)), 10_000)
    children = [
        given.run(
            id=f"{parent.id}-{number}", parent=parent.id, created=at(10), queue=queue, priority=priority, **changes
        )
        for number in numbers[:count]
    ]
    made = store.ask(parent.id, parent.attempt, children, texts={"digest": TEXT})
    assert made == children
    return children


def suspended(store: Store, count: int, **changes: Any) -> tuple[Run, list[Run]]:
    """A run that waits for that many children, none of which has begun."""
    parent = given.claimed(store, **changes)
    children = asked(store, parent, count)
    after = store.finish(parent.id, parent.attempt, SUSPENDED, now=at(11))
    assert after is not None
    return after, children


def end(store: Store, queue: str, ending: Ending) -> Run:
    """Claim the next run and end it so."""
    claimed = store.claim([queue], "w2", now=at(1000))
    assert claimed is not None
    after = store.finish(claimed.id, claimed.attempt, ending, now=at(1001))
    assert after is not None
    return after


def test_a_run_that_waits_is_claimed_when_its_last_child_has_ended_and_not_before(store: Store) -> None:
    parent, children = suspended(store, 2, retries=1)

    assert (parent.state, parent.waits, parent.last_attempt - parent.attempt) == (State.PENDING, True, 2)
    wait = store.wait(parent, now=at(12))
    assert wait is not None
    assert wait.reason == "for its children, 2 of 2 have not ended"
    assert {end(store, parent.policy.queue, DONE).id for _ in children} == {child.id for child in children}
    again = store.claim([parent.policy.queue], "w1", now=at(1002))
    assert again is not None
    assert (again.id, again.attempt, again.waits) == (parent.id, 2, False)
    after = store.finish(again.id, again.attempt, BROKEN, now=at(1003))
    assert after is not None
    assert after.state is State.PENDING, "waiting has used up its retry"


def test_a_run_whose_children_ended_before_it_began_to_wait_goes_on_at_once(store: Store) -> None:
    parent = given.claimed(store)
    asked(store, parent, 1)
    end(store, parent.policy.queue, DONE)

    after = store.finish(parent.id, parent.attempt, SUSPENDED, now=at(11))

    assert after is not None
    assert (after.state, after.waits) == (State.PENDING, False)


def test_a_run_does_not_succeed_while_a_child_of_it_has_not_ended(store: Store) -> None:
    parent = given.claimed(store)
    asked(store, parent, 1)

    after = store.finish(parent.id, parent.attempt, DONE, now=at(11))

    assert after is not None
    assert (after.state, after.waits) == (State.PENDING, True)


def test_a_child_is_asked_for_once(store: Store) -> None:
    parent = given.claimed(store)
    children = asked(store, parent, 3)

    assert store.ask(parent.id, parent.attempt, children, texts={}) == []
    assert [child.id for child in store.children(parent.id)] == [child.id for child in children]
    assert {child.parent for child in store.children(parent.id)} == {parent.id}


def test_who_has_lost_a_run_or_was_told_to_cancel_it_asks_for_nothing(store: Store) -> None:
    lost, cancelled = given.claimed(store), given.claimed(store)
    store.release(lost.id, lost.attempt, now=T0)
    store.cancel(cancelled.id, now=T0)

    for run in (lost, cancelled):
        child = given.run(parent=run.id)
        assert store.ask(run.id, run.attempt, [child], texts={"digest": TEXT}) is None
        assert store.children(run.id) == []


def test_children_are_claimed_before_runs_that_waited_longer(store: Store) -> None:
    parent = given.claimed(store)
    store.submit(given.run(queue=parent.policy.queue, created=at(1)), TEXT)
    [child] = asked(store, parent, 1)

    claimed = store.claim([parent.policy.queue], "w2", now=at(20))

    assert claimed is not None
    assert claimed.id == child.id


def test_a_cancel_goes_down_the_tree_and_no_further(store: Store) -> None:
    parent, children = suspended(store, 3)
    running = store.claim([parent.policy.queue], "w1", now=at(20))
    assert running is not None
    below = asked(store, running, 2, queue=new_id())
    ended = end(store, parent.policy.queue, DONE)
    other = given.submitted(store)

    after = store.cancel(parent.id, now=at(30))

    assert after.state is State.CANCELLED
    states = {run.id: (run.state, run.cancelling) for run in map(store.run, [c.id for c in (*children, *below)])}
    assert states[ended.id] == (State.SUCCEEDED, False)
    assert states.pop(running.id) == (State.RUNNING, True)
    assert all(state == (State.CANCELLED, False) for id, state in states.items() if id != ended.id)
    assert store.run(other.id).state is State.PENDING


def test_a_run_that_fails_for_good_cancels_its_children_and_one_that_is_retried_does_not(store: Store) -> None:
    for retries, expected in ((0, State.CANCELLED), (1, State.PENDING)):
        parent = given.claimed(store, retries=retries)
        [child] = asked(store, parent, 1)

        store.finish(parent.id, parent.attempt, BROKEN, now=at(11))

        assert store.run(child.id).state is expected


def test_a_cancelled_child_lets_its_parent_go_on(store: Store) -> None:
    parent, [child] = suspended(store, 1)

    store.cancel(child.id, now=at(20))

    assert not store.run(parent.id).waits


def test_a_retry_of_a_run_takes_up_what_failed_below_it_and_nothing_else(store: Store) -> None:
    parent, children = suspended(store, 2)
    queue = parent.policy.queue
    failed, fine = store.claim([queue], "w1", now=at(20)), end(store, queue, DONE)
    assert failed is not None
    below = asked(store, failed, 2)
    store.finish(failed.id, failed.attempt, SUSPENDED, now=at(21))
    for ending in (BROKEN, DONE):
        end(store, queue, ending)
    assert [end(store, queue, BROKEN).id for _ in range(2)] == [failed.id, parent.id]

    after = store.retry(parent.id, now=at(2000))

    assert (after.state, after.waits) == (State.PENDING, True)
    assert store.run(fine.id).state is State.SUCCEEDED
    assert (store.run(failed.id).state, store.run(failed.id).waits) == (State.PENDING, True)
    assert sorted(store.run(one.id).state for one in below) == [State.PENDING, State.SUCCEEDED]
    ended = [end(store, queue, DONE).id for _ in range(3)]
    assert ended[1:] == [failed.id, parent.id]
    assert len(children) == 2


def test_a_retry_of_its_own_takes_up_what_failed_below_it(store: Store) -> None:
    parent, [child] = suspended(store, 1, retries=1)
    queue = parent.policy.queue
    end(store, queue, BROKEN)

    after = end(store, queue, BROKEN)  # since its child has

    assert (after.id, after.state, after.waits) == (parent.id, State.PENDING, True)
    assert store.run(child.id).state is State.PENDING


def test_whoever_was_not_told_of_its_last_child_goes_on_by_the_sweep(store: Store, monkeypatch: Any) -> None:
    parent, _ = suspended(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr("flowkit.store.moves.wake", lambda *_: None)
        end(store, parent.policy.queue, DONE)
    assert store.run(parent.id).waits

    store.wake()

    assert not store.run(parent.id).waits


def test_children_that_end_at_once_let_their_parent_go_on(store: Store) -> None:
    parent, children = suspended(store, 6)
    claimed = [store.claim([parent.policy.queue], "w1", now=at(20)) for _ in children]

    def finish(number: int) -> Run | None:
        run = claimed[number]
        assert run is not None
        return store.finish(run.id, run.attempt, DONE, now=at(21))

    assert all(given.together(len(children), finish))
    store.wake()
    assert not store.run(parent.id).waits


def test_a_run_that_waits_keeps_its_turn(store: Store) -> None:
    queue = new_id()
    name = new_id()
    store.deploy(given.deployment(name), TEXT, now=T0)
    runs = [given.run(deployment=name, version=1, queue=queue, series=f"{name}:day") for _ in range(2)]
    wanted = Backfill(id=f"{name}:day", deployment=name, parameter="day", concurrency=1, created=T0, counts={})
    store.backfill(wanted, runs, again=[], only_again=False, now=T0)
    parent = store.claim([queue], "w1", now=at(1))
    assert parent is not None
    asked(store, parent, 1)
    store.finish(parent.id, parent.attempt, SUSPENDED, now=at(2))
    end(store, queue, DONE)
    ended = [end(store, queue, DONE).id for _ in range(2)]

    assert ended == [runs[0].id, runs[1].id]


def test_a_child_is_forgotten_with_its_parent_and_not_before(store: Store) -> None:
    notebook = f"/{new_id()}.ipynb"
    parent, _ = suspended(store, 60, notebook=notebook)
    children = store.children(parent.id)
    for _ in children:
        end(store, parent.policy.queue, DONE)
    ended = end(store, parent.policy.queue, DONE)
    assert store.prunable(like=[ended, *children]) == []
    assert {id: sorted(ids) for id, ids in store.whole([parent.id]).items()} == {
        parent.id: sorted(c.id for c in children)
    }

    store.forget([parent.id])

    assert store.children(parent.id) == []
    assert parent.id not in [run.id for run in store.runs(limit=1000)]


def test_a_run_stays_until_all_below_it_has_ended(store: Store) -> None:
    parent, _ = suspended(store, 1)
    running = store.claim([parent.policy.queue], "w1", now=at(20))
    assert running is not None
    store.cancel(parent.id, now=at(21))

    assert store.whole([parent.id]) == {}
    store.forget([parent.id])
    assert store.run(parent.id).state is State.CANCELLED

    store.finish(running.id, running.attempt, DONE, now=at(22))
    store.forget([parent.id])
    assert store.children(parent.id) == []


def test_the_notebooks_of_a_family_are_kept_as_long_as_a_run_or_version_needs_them(store: Store) -> None:
    name, digest = new_id(), new_id()
    family = Family({"clean.ipynb": {"snapshot": digest, "family": {"deployment:load": {}}}}, {digest: TEXT})
    deployment = given.deployment(name, family=family.digest)
    deployed, _ = store.deploy(deployment, TEXT, now=T0, family=family)
    run = Run.of(deployed, now=T0)
    store.submit(run)
    store.cancel(run.id, now=T0)
    store.delete(name, cancel=False, now=T0)

    store.forget([])
    assert store.snapshot(digest) == TEXT
    assert run.family is not None
    assert store.family(run.family).tree == family.tree

    store.forget([run.id])
    for gone in (lambda: store.snapshot(digest), lambda: store.family(family.digest)):
        with pytest.raises(NotFound, match="goes with the last run or version"):
            gone()


def test_another_family_makes_a_new_version(store: Store) -> None:
    name = new_id()
    versions = []
    for text in ('{"cells": [1]}', '{"cells": [2]}', '{"cells": [2]}'):
        digest = f"{name}{text}"
        family = Family({"clean.ipynb": {"snapshot": digest}}, {digest: text})
        after, _ = store.deploy(given.deployment(name, family=family.digest), TEXT, now=T0, family=family)
        versions.append(after.version)

    assert versions == [1, 2, 2]
