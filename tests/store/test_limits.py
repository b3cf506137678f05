"""What may be under way at once, and what may start in a while: on both databases, however many claim."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from flowkit.errors import NotFound
from flowkit.model import Ending, Limit, Pass, Policy, State
from flowkit.store import Store
from tests.store.given import T0, TEXT, at, deployment, submitted, together

SUCCEEDED = Ending(State.SUCCEEDED)


def deployed(store: Store, name: str = "flights", **policy: object) -> None:
    store.deploy(deployment(name, policy=Policy(**policy)), TEXT, now=T0)  # type: ignore[arg-type]


def running(store: Store) -> int:
    return store.counts()[State.RUNNING]


@pytest.mark.parametrize("limited", ["deployment", "queue"])
def test_no_more_runs_than_the_limit_are_claimed_by_however_many_at_once(store: Store, limited: str) -> None:
    deployed(store, max_concurrent=3 if limited == "deployment" else None)
    store.limit_queue("default", 3 if limited == "queue" else None)
    for _ in range(30):
        submitted(store, deployment="flights", version=1)
    most = []

    def work(number: int) -> int:
        done = 0
        while (run := store.claim(["default"], f"w{number}", now=at(1))) is not None or store.depth(T0):
            if run is not None:
                most.append(running(store))
                assert store.finish(run.id, run.attempt, SUCCEEDED, now=at(2)) is not None
                done += 1
        return done

    assert sum(together(12, work)) == 30
    assert 1 <= max(most) <= 3


def test_the_most_urgent_run_is_claimed_first_whether_its_deployment_is_limited_or_not(store: Store) -> None:
    deployed(store, max_concurrent=9)
    limited = {"deployment": "flights", "version": 1, "max_concurrent": 9}
    last = submitted(store, created=at(2))
    third = submitted(store, created=at(1), **limited)
    second = submitted(store, priority=1, created=at(3))
    first = submitted(store, priority=2, created=at(4), queue="other", **limited)

    claimed = [store.claim(["default", "other"], "w1", now=at(9)) for _ in range(5)]

    assert [run and run.id for run in claimed] == [first.id, second.id, third.id, last.id, None]


def test_runs_that_wait_are_claimed_when_their_deployment_is_limited_no_longer(store: Store) -> None:
    deployed(store, max_concurrent=1)
    for _ in range(3):
        submitted(store, deployment="flights", version=1, max_concurrent=1)
    assert store.claim(["default"], "w1", now=at(1)) is not None
    assert store.claim(["default"], "w1", now=at(1)) is None
    assert store.ready(["default"], now=at(1), limit=9) == 0

    deployed(store)

    assert store.ready(["default"], now=at(1), limit=9) == 2
    assert store.claim(["default"], "w1", now=at(1)) is not None
    assert store.claim(["default"], "w1", now=at(1)) is not None


def test_a_full_deployment_does_not_keep_others_waiting_behind_it(store: Store) -> None:
    deployed(store, max_concurrent=1)
    first = submitted(store, deployment="flights", version=1, priority=9)
    second = submitted(store, deployment="flights", version=1, priority=9, created=at(1))
    other = submitted(store, created=at(2))

    assert store.claim(["default"], "w1", now=at(3)) == store.run(first.id)
    assert store.ready(["default"], now=at(3), limit=9) == 1
    claimed = store.claim(["default"], "w2", now=at(3))
    assert claimed is not None
    assert claimed.id == other.id
    assert store.claim(["default"], "w2", now=at(3)) is None
    assert store.ready(["default"], now=at(3), limit=9) == 0

    wait = store.wait(second, now=at(3))
    assert wait is not None
    assert wait.reason == "1 of 1 of deployment flights are under way"
    store.finish(first.id, 1, SUCCEEDED, now=at(4))
    assert store.wait(second, now=at(4)) is None
    assert store.claim(["default"], "w2", now=at(4)) == store.run(second.id)


def test_a_full_queue_does_not_keep_other_queues_waiting(store: Store) -> None:
    store.limit_queue("slow", 1)
    for seconds, queue in enumerate(("slow", "slow", "quick")):
        submitted(store, queue=queue, created=at(seconds))

    claimed = [store.claim(["slow", "quick"], "w1", now=at(1)) for _ in range(3)]

    assert [run and run.policy.queue for run in claimed] == ["slow", "quick", None]
    queues = {queue.name: queue for queue in store.queues()}
    assert (queues["slow"].waiting, queues["slow"].running, queues["slow"].max_concurrent) == (1, 1, 1)
    assert (queues["slow"].oldest, queues["quick"].oldest, queues["quick"].max_concurrent) == (at(1), None, None)


def test_a_limit_that_is_raised_or_taken_away_holds_from_the_next_claim_on(store: Store) -> None:
    deployed(store, max_concurrent=1)
    for _ in range(5):
        submitted(store, deployment="flights", version=1)

    def claim(most: int) -> int:
        return sum(store.claim(["default"], "w1", now=at(1)) is not None for _ in range(most))

    assert claim(2) == 1
    deployed(store, max_concurrent=2)
    assert claim(2) == 1
    deployed(store)
    assert claim(9) == 3


@pytest.mark.parametrize("how", ["finish", "release", "rescue", "cancel"])
def test_whatever_ends_an_attempt_makes_room_for_the_next(store: Store, how: str) -> None:
    deployed(store, max_concurrent=1)
    first = submitted(store, deployment="flights", version=1)
    next = submitted(store, deployment="flights", version=1, created=at(1))
    store.claim(["default"], "w1", now=at(1))

    if how == "finish":
        store.finish(first.id, 1, Ending(State.FAILED), now=at(2))
    elif how == "release":
        store.release(first.id, 1, now=at(2))
        store.cancel(first.id, now=at(2))
    elif how == "rescue":
        store.rescue(first.id, 1, 0, now=at(2))
    else:
        store.cancel(first.id, now=at(2))
        assert store.claim(["default"], "w1", now=at(2)) is None  # its kernel still lives
        store.finish(first.id, 1, SUCCEEDED, now=at(2))

    assert store.claim(["default"], "w1", now=at(2)) == store.run(next.id)


def test_a_rate_holds_in_every_span_of_its_length(store: Store) -> None:
    """Not in each minute of the clock, of which two ends that meet would let twice as many pass."""
    deployed(store, rate="3/10s")
    for number in range(40):
        submitted(store, deployment="flights", version=1, created=at(number / 1000))
    starts: list[datetime] = []
    for tenth in range(400):
        now = at(tenth / 10)
        while (run := store.claim(["default"], "w1", now=now)) is not None:
            starts.append(now)
            store.finish(run.id, run.attempt, SUCCEEDED, now=now)

    assert len(starts) == 12  # and not one of them late
    for first, fourth in zip(starts, starts[3:], strict=False):
        assert fourth - first >= timedelta(seconds=10)
    waiting = store.runs(states=[State.PENDING])[-1]
    wait = store.wait(waiting, now=at(39.9))
    assert wait is not None
    assert wait.reason == "deployment flights starts 3/10 seconds, and has done so"
    assert wait.until == at(40.0)


def test_a_rate_is_never_exceeded_by_however_many_at_once(store: Store) -> None:
    deployed(store, rate="5/minute")
    for _ in range(20):
        submitted(store, deployment="flights", version=1)

    claimed = together(10, lambda number: [store.claim(["default"], f"w{number}", now=at(number)) for _ in range(3)])

    assert sum(run is not None for runs in claimed for run in runs) == 5


def test_a_clock_that_is_far_ahead_stops_nobody_for_long(store: Store) -> None:
    deployed(store, rate="1/minute")
    for _ in range(2):
        submitted(store, deployment="flights", version=1)

    assert store.claim(["default"], "w1", now=at(86_400)) is not None
    assert store.claim(["default"], "w2", now=at(1)) is not None


# What nodes share


def test_calls_of_nodes_pass_at_the_rate_and_not_one_more_however_many_ask(store: Store) -> None:
    store.set_limit(Limit(name="api", rate="7/minute"))

    def ask(number: int) -> list[Pass | None]:
        return [store.admit("api", counting=True, now=at(number / 100)) for _ in range(4)]

    answers = [answer for some in together(8, ask) for answer in some]

    assert answers.count(Pass()) == 7
    waits = [answer.wait for answer in answers if answer is not None and answer.wait is not None]
    assert len(waits) == 32 - 7
    assert all(59 < wait <= 60.1 for wait in waits)
    assert store.admit("other", counting=True, now=T0) is None


def test_a_limit_closes_after_failures_and_one_call_tries_it(store: Store) -> None:
    store.set_limit(Limit(name="api", rate="1000/second", failures=3, within=10, close_for=30))

    def ask(seconds: float) -> Pass | None:
        return store.admit("api", counting=True, now=at(seconds))

    def fail(seconds: float, error: str | None = "ConnectTimeout: no answer") -> None:
        store.tell("api", error, now=at(seconds))

    for seconds in (0, 9, 10.5):  # never three in ten seconds
        fail(seconds)
    assert ask(11) == Pass(failures=3)
    fail(12)
    assert ask(13) == Pass(closed=29, failures=3, error="ConnectTimeout: no answer")
    fail(14, None)  # of a call that began before
    assert store.limits()[0].closed == at(42)

    tries = together(6, lambda _: ask(50))
    assert tries.count(Pass(failures=3)) == 1
    assert tries.count(Pass(closed=30, trying=True, failures=3, error="ConnectTimeout: no answer")) == 5
    fail(51, "ConnectTimeout: still none")
    assert ask(52) == Pass(closed=29, failures=3, error="ConnectTimeout: still none")

    assert ask(90) == Pass(failures=3)  # and its worker dies
    assert ask(121) == Pass(failures=3)
    fail(122, None)
    assert ask(122) == Pass(failures=3)
    assert (store.limits()[0].closed, store.limits()[0].error) == (None, None)
    for seconds in (123, 124):
        fail(seconds)
    assert ask(125) == Pass(failures=3)


def test_what_a_notebook_declares_gives_way_to_what_is_set(store: Store) -> None:
    store.set_limit(Limit(name="api", rate="5/s", declared=True))
    store.set_limit(Limit(name="api", rate="6/s", declared=True))
    assert [limit.rate for limit in store.limits()] == ["6/second"]
    store.set_limit(Limit(name="api", rate="30/minute"))
    store.set_limit(Limit(name="api", rate="7/s", declared=True))
    assert [limit.rate for limit in store.limits()] == ["30/minute"]
    store.remove_limit("api")
    with pytest.raises(NotFound, match="no limit 'api'; `flowkit limits` lists them"):
        store.remove_limit("api")
