"""What happens is told in one order, and whoever comes back to where it was misses nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowkit.model import State, now
from flowkit.store import Store
from flowkit.store.changes import Change, Position
from tests.server.mix import begin, deploy, end, said, steps, submit


def told(store: Store, after: Position, *, by: int = 500) -> list[Change]:
    found: list[Change] = []
    while some := store.changes(after=found[-1].position if found else after, limit=by):
        found += some
    return found


def test_a_runs_life_is_told_step_by_step(store: Store) -> None:
    start = store.here()
    run = begin(store, submit(store, deploy(store, "told")))
    store.record(run.id, run.attempt, [*steps(0.0), said("not told: it may be much")])
    store.beat(run.id, run.attempt)
    store.cancel(run.id, now=now())
    assert store.release(run.id, run.attempt, now=now())
    store.retry(run.id, now=now())

    found = told(store, start, by=2)
    became = [(change.state, change.attempt, len(change.events)) for change in found]
    assert became == [
        (State.PENDING, 0, 0),
        (State.RUNNING, 1, 0),
        (None, 1, len(steps(0.0))),
        (State.RUNNING, 1, 0),  # cancelling
        (State.CANCELLED, 1, 0),
        (State.PENDING, 1, 0),
    ]
    assert all(change.now == store.run(run.id) for change in found)
    assert told(store, store.here()) == []


def test_what_is_committed_late_is_not_passed_over(postgres_databases) -> None:  # type: ignore[no-untyped-def]
    """PostgreSQL gives a change its id before it commits, and a later one may be there first."""
    with postgres_databases.fresh() as url, Store.open(url) as store:
        early, late = (submit(store, deploy(store, name, queue=name)) for name in ("early", "late"))
        start = store.here()
        with store.writing() as connection:
            connection.exec_driver_sql(f"UPDATE runs SET state = 'cancelled' WHERE id = '{early.id}'")
            store.cancel(late.id, now=now())
            before = told(store, start)
        after = told(store, before[-1].position if before else start)
        assert [change.run for change in before + after] == [early.id, late.id]


def test_who_comes_back_too_late_is_told_so(store: Store) -> None:
    start = store.here()
    run = begin(store, submit(store, deploy(store, "old")))
    assert not store.changes_forgotten(after=start)
    store.forget_changes(before=now() + timedelta(minutes=1))
    middle = store.here()
    end(store, run)
    assert store.changes_forgotten(after=start)
    assert not store.changes_forgotten(after=middle)
    assert [change.state for change in told(store, middle)] == [State.SUCCEEDED]


@pytest.mark.parametrize("text", ["", "1", "x.1", "1.x", "-1.2", "1.2.3", "١.١", "9" * 50 + ".1"])
def test_a_position_is_two_numbers(text: str) -> None:
    assert Position.parse(text) is None
    assert Position.parse(str(Position(3, 4))) == (3, 4)
