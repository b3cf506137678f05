"""Runs by a parameter's value and by a text in the error, and how far back one search looks."""

from __future__ import annotations

from flowkit.model import Cause, Ending, Run, State
from flowkit.store import Store
from tests.store.given import at, claimed, submitted


def failed(store: Store, second: int, error: str, **given: object) -> Run:
    run = claimed(store, created=at(second), **given)
    ended = store.finish(run.id, 1, Ending(State.FAILED, Cause.NOTEBOOK, error), now=at(second + 1))
    assert ended is not None
    return ended


def test_runs_are_found_by_the_parameters_they_were_given_as_a_person_writes_them(store: Store) -> None:
    first = submitted(store, created=at(1), parameters={"day": "2013-07-01", "n": 30})
    submitted(store, created=at(2), parameters={"day": "2013-07-01", "n": 300})
    text = submitted(store, created=at(3), parameters={"n": "30", "day": 'é "quoted" 100%_'})
    within = submitted(store, created=at(4), parameters={"nested": {"n": 30}, "on": True})

    def found(*parameters: tuple[str, str]) -> list[str]:
        return [run.id for run in store.search(limit=9, parameters=parameters).runs]

    assert found(("n", "30")) == [text.id, first.id]
    assert found(("n", "30"), ("day", "2013-07-01")) == [first.id]
    assert found(("day", 'é "quoted" 100%_')) == [text.id]
    assert found(("on", "true")) == [within.id]
    assert found(("nested", '{"n":30}')) == [within.id]
    assert found(("day", "2013%")) == []


def test_runs_are_found_by_a_text_in_their_error_among_those_of_a_deployment_or_a_queue(store: Store) -> None:
    one = failed(store, 1, "KeyError: 'carier'", deployment="a", version=1, queue="q")
    other = failed(store, 2, "by_carrier: keyerror: x", deployment="b", version=1, queue="q")
    failed(store, 3, "ValueError: 100% of %", deployment="a", version=1, queue="r")

    def found(**given: object) -> list[str]:
        return [run.id for run in store.search(limit=9, **given).runs]  # type: ignore[arg-type]

    assert found(error="KEYERROR") == [other.id, one.id]
    assert found(error="keyerror", deployment="a") == [one.id]
    assert found(queue="q") == [other.id, one.id]
    assert found(queue="q", states=[State.SUCCEEDED]) == []
    assert found(queue="q", deployment="a", error="carier") == [one.id]
    assert found(error="%_%") == []
    assert found(error="error", since=at(2), until=at(3)) == [other.id]


def test_a_search_looks_at_so_many_runs_and_goes_on_where_it_ended(store: Store) -> None:
    wanted = submitted(store, created=at(0), parameters={"n": 7})
    for second in range(1, 10):
        submitted(store, created=at(second), parameters={"n": 1})

    first = store.search(limit=2, parameters=[("n", "7")], scanned=6)
    assert (first.runs, first.scanned and first.scanned.created) == ([], at(4))
    second = store.search(limit=2, parameters=[("n", "7")], scanned=6, before=first.scanned)
    assert ([run.id for run in second.runs], second.scanned) == ([wanted.id], None)
    assert store.search(limit=2, parameters=[("n", "1")], scanned=6).scanned is None, "there are enough"
