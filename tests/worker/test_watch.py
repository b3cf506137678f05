"""What is late, too long, stuck or skipped is told once, by whoever looks, and that it is over; on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flowkit.model import Deployment, Ending, Overlap, Run, Schedule, State, Worker, watches
from flowkit.store import Store
from flowkit.worker.cron import plan
from flowkit.worker.watch import Watcher
from tests.store.given import T0, TEXT, at, claimed, deployment, submitted

MINUTE = 60.0


@pytest.fixture
def two(store: Store) -> list[Watcher]:
    """As many processes that look."""
    store.deploy(deployment(), TEXT, now=T0)
    return [Watcher(store) for _ in range(2)]


def asked(store: Store, on: str, deployment: str | None = "flights") -> None:
    store.add_alert(deployment, "ops", watches(on), now=at(-1))


def look(watchers: list[Watcher], minutes: float) -> None:
    for one in watchers:
        one.look(at(minutes * MINUTE))


def told(store: Store) -> list[str]:
    """Each as its kind and what it says, the first first."""
    return [f"{one.kind}: {one.said}" for one in reversed(store.notices())]


def waiting(store: Store, **changes: object) -> Run:
    return submitted(store, deployment="flights", version=1, **changes)


def claim(store: Store, minutes: float, queue: str = "default") -> Run:
    found = store.claim([queue], "w1", now=at(minutes * MINUTE))
    assert found is not None
    return found


def end(store: Store, run: Run, minutes: float) -> None:
    assert store.finish(run.id, run.attempt, Ending(State.SUCCEEDED), now=at(minutes * MINUTE))


def test_a_run_that_does_not_start_is_late_once_and_its_start_is_told(store: Store, two: list[Watcher]) -> None:
    asked(store, "late:10m,recovery")
    for second in range(3):
        waiting(store, created=at(second))

    look(two, 9)
    assert told(store) == []
    for minutes in (11, 12):
        look(two, minutes)
    late = "late: due at 2013-07-01 06:00 UTC, and not started 11 min later: no worker is alive on queue 'default'"
    assert told(store) == [late]
    [notice] = store.notices()
    assert notice.remedy == "start one: flowkit worker"

    first = claim(store, 13)
    look(two, 13)
    assert told(store) == [late]  # the others still wait
    end(store, first, 13)
    for _ in range(2):
        end(store, claim(store, 14), 14)
    for minutes in (14, 15):
        look(two, minutes)
    assert told(store) == [late, "started: started 13 min late"]


def test_a_firing_that_no_worker_has_noticed_is_late(store: Store, two: list[Watcher]) -> None:
    store.deploy(scheduled(), TEXT, now=T0)
    asked(store, "late:5m", None)

    look(two, 4)
    look(two, 6)

    late = "late: due at 2013-07-01 06:01 UTC, and 5 min later no worker has taken note"
    assert told(store) == [late]
    fire(store, 7)
    end(store, claim(store, 7), 7)
    look(two, 7)
    assert told(store) == [late]
    assert store.lasting() == []


def test_runs_that_are_made_up_are_late_though_nobody_saw_them_wait(store: Store, two: list[Watcher]) -> None:
    asked(store, "late:5m")
    look(two, 59.9)
    for minute in (2, 1):
        waiting(store, created=at(60 * MINUTE), scheduled_for=at(minute * MINUTE))
        end(store, claim(store, 60), 60.1)

    look(two, 60.2)
    look(two, 60.3)

    assert told(store) == ["late: started 58 min late, due at 2013-07-01 06:02 UTC, and 1 more of it"]


@pytest.mark.parametrize(("on", "than"), [("long:20m", "more than 20m"), ("long:3x", "usually it takes 5 min")])
def test_a_run_that_takes_too_long_is_told_and_how_it_ends(
    store: Store, two: list[Watcher], on: str, than: str
) -> None:
    asked(store, f"{on},recovery")
    for number in range(3):
        usual = claimed(store, deployment="flights", version=1, created=at(-9_000 + number), now=at(-9_000))
        assert store.finish(usual.id, 1, Ending(State.SUCCEEDED), now=at(-8_700))
    run = claimed(store, deployment="flights", version=1, now=T0)

    look(two, 14)
    assert told(store) == []
    for minutes in (21, 22):
        look(two, minutes)
    end(store, run, 25)
    for minutes in (25, 26):
        look(two, minutes)

    assert told(store) == [f"long: has run for 21 min, {than}", "ended: succeeded after 25 min"]
    assert {one.of_run for one in store.notices()} == {run.id}


@pytest.mark.parametrize("alive", [True, False])
def test_a_queue_where_nobody_claims_is_stuck_once_until_somebody_does(
    store: Store, two: list[Watcher], alive: bool
) -> None:
    asked(store, "stuck:2m,recovery")
    store.deploy(deployment("elsewhere"), TEXT, now=T0)
    asked(store, "stuck:2m", "elsewhere")  # of which nothing waits
    if alive:
        store.enrol(Worker(id="w1", host="h", pid=1, queues=("default",), concurrency=2, started=T0, seen=at(3_600)))
    waiting(store)
    waiting(store, created=at(1), queue="busy")

    for step in range(7):
        look(two, step / 2)
        if step in (1, 3, 5):  # in another queue runs are claimed
            end(store, claim(store, step / 2, "busy"), step / 2)
            waiting(store, created=at(step), queue="busy")
    why = "the 2 places of its workers, or its limits, are taken" if alive else "no worker is alive on queue 'default'"
    stuck = f"stuck: 1 run is ready, and nobody claimed any for 2 min: {why}"
    assert told(store) == [stuck]

    claim(store, 3.5)
    look(two, 3.5)
    look(two, 4)
    assert told(store) == [stuck, "moving: runs are claimed again"]


def test_firings_that_are_skipped_in_a_row_are_told_once(store: Store, two: list[Watcher]) -> None:
    store.deploy(scheduled(), TEXT, now=T0)
    asked(store, "skipped,recovery")
    fire(store, 1)
    run = claim(store, 1)

    for minutes in (2, 3, 4):
        fire(store, minutes)
        look(two, minutes + 0.1)
    why = "its firing of 2013-07-01 06:02 UTC did not run: an earlier run of the schedule had not ended"
    assert told(store) == [f"skipped: {why}"]

    end(store, run, 4.5)
    fire(store, 5)
    two.append(Watcher(store))  # one that starts now makes nothing new of what is over
    look(two, 5.1)
    look(two, 5.2)
    claim(store, 5.3)
    fire(store, 6)
    look(two, 6.1)
    assert [one.partition(" UTC")[0][-5:] for one in told(store)] == ["06:02", "06:06"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain", "it tells failure, recovery, late, long, stuck, skipped"),
        ("late:2x", "write 'late:10m', not 'late:2x'; 10s is the least"),
        ("long:1x", "write 'long:3x', not 'long:1x'"),
        ("stuck:5", "write 'stuck:5m'"),
        ("late:nans", "write 'late:10m'"),
        ("skipped:1m", "write 'skipped', not 'skipped:1m'"),
        (",", "it tells failure"),
    ],
)
def test_what_cannot_be_told_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        watches(text)


def test_what_an_alert_tells_is_written_as_it_is_read() -> None:
    found = watches("failure, late,long:90m,long:2h,stuck")
    assert ",".join(map(str, found)) == "failure,late:10m,long:2h,stuck:5m"
    assert watches(",".join(map(str, found))) == found
    assert found[2].seconds == timedelta(hours=2).total_seconds()


def scheduled() -> Deployment:
    return deployment(schedule=Schedule(every=MINUTE, anchor=T0, next=at(MINUTE), overlap=Overlap.SKIP))


def fire(store: Store, minutes: float) -> None:
    now = at(minutes * MINUTE)
    store.fire(lambda one: plan(one, now), now=now)
