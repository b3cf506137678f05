"""What people look at: rates, what ended lately, how a year went; each a deployment's own."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from flowkit.events import Event
from flowkit.model import Act, Cause, Ending, Schedule, State
from flowkit.store import Store
from flowkit.store.figures import percentiles
from tests.store.given import T0, TEXT, at, claimed, deployment, run, submitted

SECOND = timedelta(seconds=1)


def ended(store: Store, *, took: float, after: float = 0.0, state: State = State.SUCCEEDED, **given: object) -> str:
    """A run submitted at *after*, started a second later."""
    begun = claimed(store, created=at(after), now=at(after + 1), **given)
    cause, error = (Cause.NOTEBOOK, "ValueError: x") if state is State.FAILED else (None, None)
    store.finish(begun.id, 1, Ending(state, cause, error), now=at(after + 1 + took))
    return begun.id


def test_what_ended_lately_is_told_with_how_long_it_took_and_waited(store: Store) -> None:
    old = ended(store, took=1, deployment="flights", version=1)
    failed = ended(store, took=20, after=60, state=State.FAILED, deployment="flights", version=1)
    good = ended(store, took=2, after=70, deployment="flights", version=1)
    claimed(store, created=at(80), now=at(81))

    found = store.ended(since=at(30), limit=10)

    assert [one.id for one in found] == [failed, good]
    assert [(one.state, one.waited, one.took) for one in found] == [
        (State.FAILED, 1.0, 20.0),
        (State.SUCCEEDED, 1.0, 2.0),
    ]
    assert (found[0].error, found[0].label) == ("ValueError: x", "flights")
    assert [one.id for one in store.ended(since=T0, states=[State.SUCCEEDED], limit=10)] == [good, old]
    assert [one.id for one in store.ended(since=T0, states=[State.SUCCEEDED], limit=1)] == [good]


def test_the_newest_of_each_deployment_are_its_own(store: Store) -> None:
    mine = [ended(store, took=1, after=10 * number, deployment="flights", version=1) for number in range(3)]
    ended(store, took=1, after=99, deployment="weather", version=1)

    found = store.lately(["flights", "nobody"], limits={State.SUCCEEDED: 2, State.FAILED: 2})

    assert [one.id for one in found["flights"]] == [mine[2], mine[1]]
    assert found["nobody"] == []


def test_the_last_success_of_each_deployment_is_found(store: Store) -> None:
    for name in ("flights", "weather", "broken"):
        store.deploy(deployment(name), TEXT, now=T0)
    ended(store, took=1, deployment="flights", version=1)
    newest = ended(store, took=1, after=10, deployment="flights", version=1)
    ended(store, took=1, after=20, deployment="flights", version=1, state=State.FAILED)
    ended(store, took=1, deployment="broken", version=1, state=State.FAILED)
    other = ended(store, took=1, deployment="weather", version=1)

    found = store.last_successes(["flights", "weather", "broken", "nobody"])

    assert {name: run.id for name, run in found.items()} == {"flights": newest, "weather": other}


def test_runs_under_way_are_told_the_longest_first_with_what_they_use(store: Store) -> None:
    young = claimed(store, created=at(5), now=at(9))
    old = claimed(store, created=at(6), now=at(7))
    points = [[1.0, 1.0, 0.5, 1000], [2.0, 1.0, 1.5, 2000]]
    store.record(old.id, 1, [Event("usage", 2.0, data=points), Event("output", 3.0, "stdout", data="x")])

    assert [one.id for one in store.under_way(limit=9)] == [old.id, young.id]
    assert store.uses(old.id, 1) == (2.0, 1.0, 1.5, 2000)
    assert store.uses(young.id, 1) is None


def test_rates_count_what_came_and_what_ended_of_each_queue(store: Store) -> None:
    for number in range(4):
        ended(store, took=1, after=10 * number, queue="quick")
    submitted(store, queue="slow", created=at(39))

    found = store.rates(since=T0, now=at(40), limit=100)

    assert found["quick"] == (4 / 40, 4 / 40)
    assert found["slow"] == (1 / 40, 0.0)
    # Of more than are counted, the newest tell: two in the last 20 s.
    assert store.rates(since=T0, now=at(50), limit=3)["quick"].come == 2 / (50 - 20)


def test_a_year_counts_days_in_the_deployments_zone_and_keeps_those_that_were_pruned(store: Store) -> None:
    schedule = Schedule(cron="0 6 * * *", zone="America/New_York", next=at(99))
    store.deploy(deployment("flights", schedule=schedule), TEXT, now=T0)
    late = datetime(2013, 7, 2, 3, 30, tzinfo=UTC)  # half past eleven in the evening before, there
    for number, state in enumerate((State.SUCCEEDED, State.FAILED, State.SUCCEEDED)):
        begun = claimed(store, deployment="flights", version=1, created=late + number * SECOND, zone="America/New_York")
        store.finish(begun.id, 1, Ending(state), now=late + timedelta(minutes=1))
    due = run(deployment="flights", version=1, scheduled_for=late + timedelta(days=3), created=late + timedelta(days=9))
    store.submit(due, TEXT)
    before = store.year("flights", "America/New_York", since=T0)

    store.forget([one.id for one in store.runs(deployment="flights", states=[State.SUCCEEDED, State.FAILED])])

    assert before == {
        date(2013, 7, 1): {State.SUCCEEDED: 2, State.FAILED: 1},
        date(2013, 7, 4): {State.PENDING: 1},
    }
    assert store.year("flights", "America/New_York", since=T0) == before
    store.forget_days(before=date(2013, 7, 2))
    assert list(store.year("flights", "America/New_York", since=T0)) == [date(2013, 7, 4)]


def test_a_deleted_deployment_leaves_no_days(store: Store) -> None:
    store.deploy(deployment("flights"), TEXT, now=T0)
    kept, later = (
        ended(store, took=1, deployment="flights", version=1),
        ended(store, took=1, after=9, deployment="flights"),
    )
    store.forget([kept])
    store.delete("flights", cancel=False, now=T0)

    store.forget([later])

    assert store.year("flights", "UTC", since=T0) == {}


def test_acts_are_found_by_who_did_them(store: Store) -> None:
    for number, who in enumerate(("ada", "bob", "ada")):
        store.note(Act(at=at(number), who=who, role="admin", what=f"POST /{number}", status=200, address="::1"))

    assert [act.what for act in store.acts(who="ada")] == ["POST /2", "POST /0"]
    assert [act.what for act in store.acts(who="ada", before=store.acts(who="ada")[0].id)] == ["POST /0"]
    assert store.actors() == ["ada", "bob"]


def test_percentiles_are_values_that_were_there() -> None:
    assert percentiles([3.0, 1.0, 2.0, 4.0], 0.0, 0.5, 0.95) == [1.0, 3.0, 4.0]
    assert percentiles([], 0.5) == []
