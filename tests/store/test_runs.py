"""The life of a run, one behaviour at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import chain
from typing import Any

import pytest

from flowkit.errors import Conflict, NotFound, UsageError
from flowkit.events import Event
from flowkit.model import Cause, Ending, State
from flowkit.store import MAX_CRASHES, Store
from tests.store import given
from tests.store.given import T0, TEXT, at
from tests.store.races import cancel_against_finish

GOOD = Ending(State.SUCCEEDED)
BAD = Ending(State.FAILED, Cause.NOTEBOOK, "ValueError: no flights")
STOPPED = Ending(State.CANCELLED, None, "cancelled")


# Submitting.


def test_a_submitted_run_comes_back_as_it_was_given(store: Store) -> None:
    run = given.run(
        deployment="flights",
        version=3,
        parameters={"day": "2013-07-01", "n": 1},
        scheduled_for=at(-60),
        zone="America/New_York",
        queue="big",
        priority=7,
        backoff=0.5,
        timeout=60.0,
        kernel="python3",
    )

    stored, new = store.submit(run, TEXT)

    assert new
    assert stored == run == store.run(run.id)
    assert store.snapshot(run.snapshot) == TEXT


@pytest.mark.parametrize(
    "value",
    [
        "quotes \" and ' and \\",
        "lines\nand\ttabs\r\n",
        "NUL \0 here",
        "Größe 東京 🛫 \u2028",
        "half a pair \ud83d alone",
        "x" * 1_000_000,
        math.inf,
        1e-320,
        2**80,
        None,
        {"deep": [{"er": [1, 2.5, True, None]}], "": ""},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_any_parameter_arrives_as_given(store: Store, value: object) -> None:
    run = given.submitted(store, parameters={"value": value})

    assert store.run(run.id).parameters == {"value": value}


def test_nan_arrives_as_nan(store: Store) -> None:
    run = given.submitted(store, parameters={"value": math.nan})

    assert math.isnan(store.run(run.id).parameters["value"])


def test_a_key_submitted_again_gives_the_same_run(store: Store) -> None:
    first = given.submitted(store, key="nightly")

    again, new = store.submit(given.run(key="nightly", queue="other"), TEXT)

    assert (again, new) == (first, False)
    assert store.runs() == [first]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"deployment": "arrivals"}, "another deployment"),
        ({"snapshot": "other"}, "another notebook"),
        ({"parameters": {"day": True, "limit": math.nan}}, "other parameters"),
    ],
)
def test_a_key_is_not_given_to_another_request(store: Store, changes: dict[str, Any], told: str) -> None:
    request = {"key": "nightly", "deployment": "flights", "parameters": {"day": 1, "limit": math.nan}}
    first = given.submitted(store, **request)
    again, new = store.submit(given.run(**request), TEXT)
    assert (again.id, new) == (first.id, False)

    with pytest.raises(Conflict) as refused:
        store.submit(given.run(**request | changes), TEXT)

    assert str(refused.value) == f"key 'nightly' belongs to run {first.id[:8]}, of {told}; take another key"
    assert len(store.runs()) == 1


def test_a_firing_submitted_again_gives_the_same_run(store: Store) -> None:
    first = given.submitted(store, deployment="flights", scheduled_for=T0)

    again, new = store.submit(given.run(deployment="flights", scheduled_for=T0), TEXT)

    assert (again, new) == (first, False)


def test_eight_who_submit_one_key_at_once_get_one_run(store: Store) -> None:
    answers = given.together(8, lambda _: store.submit(given.run(key="nightly"), TEXT))

    assert [new for _, new in answers].count(True) == 1
    assert len({run.id for run, _ in answers}) == 1


def test_two_hundred_keys_submitted_twenty_times_at_once_are_two_hundred_runs(store: Store) -> None:
    def submit_all(_: int) -> list[tuple[str, bool]]:
        answers = [store.submit(given.run(key=f"key {number}"), TEXT) for number in range(200)]
        return [(run.id, new) for run, new in answers]

    answers = given.together(20, submit_all)

    assert len({tuple(id for id, _ in answer) for answer in answers}) == 1
    assert sum(new for answer in answers for _, new in answer) == 200
    assert len(store.runs(limit=1000)) == 200


def test_a_run_without_its_notebook_is_refused(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        store.submit(given.run(snapshot="digest"))

    assert str(caught.value) == "the store does not have the notebook 'digest'; submit the run with its text"
    assert store.runs() == []


def test_two_runs_with_one_id_are_refused(store: Store) -> None:
    run = given.submitted(store)

    with pytest.raises(Conflict, match=f"there is another run with the id '{run.id}'; give each run an id of its own"):
        store.submit(replace(run, key="another"), TEXT)


def test_a_submitted_run_has_the_attempts_of_its_policy(store: Store) -> None:
    assert given.submitted(store, retries=3).last_attempt == 4


def test_a_naive_datetime_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="naive datetime 2013-07-01T06:00:00; flowkit stores aware UTC only"):
        store.submit(given.run(created=datetime(2013, 7, 1, 6)), TEXT)


def test_a_number_that_no_column_holds_is_refused(store: Store) -> None:
    for policy in ({"priority": 2**31}, {"priority": -(2**70)}, {"retries": 2**63}):
        with pytest.raises(
            UsageError, match="is out of range; flowkit stores whole numbers from -2147483648 to 214748"
        ):
            store.submit(given.run(**policy), TEXT)
    assert given.submitted(store, priority=2**31 - 1).policy.priority == 2**31 - 1


def test_an_instant_of_another_zone_comes_back_in_utc(store: Store) -> None:
    elsewhere = T0.astimezone(timezone(timedelta(hours=-5)))

    found = store.run(given.submitted(store, created=elsewhere).id)

    assert found.created.isoformat() == T0.isoformat() == "2013-07-01T06:00:00.123456+00:00"


# Claiming.


def test_a_claimed_run_is_running_under_its_worker(store: Store) -> None:
    run = given.submitted(store)

    claimed = store.claim(["default"], "w1", now=at(5))

    assert claimed == replace(run, state=State.RUNNING, attempt=1, worker="w1", started=at(5))
    assert claimed == store.run(run.id)
    assert store.claim(["default"], "w2", now=at(5)) is None


@pytest.mark.parametrize("queues", [["default"], ["other", "default"], ["default", "default"]])
def test_the_best_run_is_claimed_first(store: Store, queues: list[str]) -> None:
    old = given.submitted(store, created=at(0))
    older = given.submitted(store, created=at(-1))
    urgent = given.submitted(store, created=at(1), priority=1)
    twins = [given.submitted(store, created=at(2), id=id) for id in ("twin-b", "twin-a")]
    late = given.submitted(store, created=at(3), priority=-1)

    claimed = [store.claim(queues, "w1", now=at(9)) for _ in range(7)]

    order = [urgent, older, old, twins[1], twins[0], late]
    assert [run and run.id for run in claimed] == [run.id for run in order] + [None]


def test_the_best_run_of_several_queues_is_claimed_first(store: Store) -> None:
    given.submitted(store, queue="a", created=at(0), id="a-old")
    given.submitted(store, queue="b", created=at(1), id="b-urgent", priority=5)
    given.submitted(store, queue="b", created=at(-1), id="b-older")
    given.submitted(store, queue="c", created=at(-9), id="c-not-ours")

    claimed = [store.claim(["a", "b", "empty"], "w1", now=at(9)) for _ in range(4)]

    assert [run and run.id for run in claimed] == ["b-urgent", "b-older", "a-old", None]


def test_a_run_is_not_claimed_before_it_is_available(store: Store) -> None:
    given.submitted(store, available=at(10))

    assert store.claim(["default"], "w1", now=at(9.999)) is None
    claimed = store.claim(["default"], "w1", now=at(10))
    assert claimed is not None
    assert claimed.available is None


def test_a_worker_of_no_queue_claims_nothing(store: Store) -> None:
    given.submitted(store)

    assert store.claim([], "w1", now=T0) is None
    assert store.claim(["nobody's \0 queue"], "w1", now=T0) is None


def test_eight_claimers_get_each_of_200_runs_once(store: Store) -> None:
    runs = [given.submitted(store, queue=f"q{number % 3}", created=at(number)) for number in range(200)]

    def claim_all(number: int) -> list[str]:
        mine = []
        while run := store.claim(["q0", "q1", "q2"], f"w{number}", now=at(999)):
            assert (run.attempt, run.worker) == (1, f"w{number}")
            mine.append(run.id)
        return mine

    claimed = list(chain(*given.together(8, claim_all)))

    assert sorted(claimed) == sorted(run.id for run in runs)


def test_of_eight_who_claim_at_once_nobody_goes_away_empty(store: Store) -> None:
    for number in range(80):
        given.submitted(store, created=at(number))

    for _ in range(10):
        claimed = given.together(8, lambda number: store.claim(["default"], f"w{number}", now=T0))

        assert len({run.id for run in claimed if run is not None}) == 8


# Living.


def test_a_beat_counts_while_the_run_is_ours(store: Store) -> None:
    run = given.claimed(store)

    assert store.beats() == [(run.id, 1, 0, False)]
    assert store.beat(run.id, 1)
    assert store.beat(run.id, 1)
    assert store.beats() == [(run.id, 1, 2, False)]
    assert not store.beat(run.id, 2)
    store.cancel(run.id, now=T0)
    assert store.beat(run.id, 1)
    assert store.beats() == [(run.id, 1, 3, True)]
    store.finish(run.id, 1, STOPPED, now=T0)
    assert not store.beat(run.id, 1)
    assert store.beats() == []


def test_events_are_read_in_order_and_a_follower_goes_on_where_it_was(store: Store) -> None:
    run = given.claimed(store)
    flow = Event("flow", 1.5, flow="flights", data={"nodes": {"a": [], "b": ["a"]}})
    node = Event("node", 2.5, "a", flow="flights", state=State.FAILED, error="naïve \0 \ud83d", attempt=2)
    output = Event("output", 3.5, "stdout", data="x" * 1_000_000)

    assert store.record(run.id, 1, [flow])
    position, first = store.events(run.id)
    assert store.record(run.id, 1, [node, output])

    assert first == [flow]
    last, rest = store.events(run.id, attempt=1, after=position)
    assert rest == [node, output]
    assert store.events(run.id, attempt=1, after=last) == (last, [])
    assert store.events(run.id) == (last, [flow, node, output])
    assert store.events(run.id, output=True)[1] == [output]
    assert store.events(run.id, output=False)[1] == [flow, node]


def test_events_belong_to_their_attempt(store: Store) -> None:
    run = given.claimed(store, retries=1)
    event = Event("cell", 1.0, "1", state=State.RUNNING)
    store.record(run.id, 1, [event])
    store.finish(run.id, 1, BAD, now=T0)
    store.claim([run.policy.queue], "w2", now=at(60))

    assert store.events(run.id) == (0, [])
    assert store.events(run.id, attempt=1) == (1, [event])
    assert not store.record(run.id, 1, [event], output="/stale")
    assert store.run(run.id).output is None


def test_recording_says_where_the_executed_notebook_lies(store: Store) -> None:
    run = given.claimed(store)

    store.record(run.id, 1, [], output="/artifacts/1.ipynb")
    store.record(run.id, 1, [Event("cell", 1.0, "1", state=State.RUNNING)])

    assert store.run(run.id).output == "/artifacts/1.ipynb"
    assert store.events(run.id)[0] == 1


def test_a_run_that_is_being_cancelled_says_its_last_words(store: Store) -> None:
    run = given.claimed(store)
    event = Event("output", 1.0, "stderr", data="KeyboardInterrupt")
    store.cancel(run.id, now=T0)

    assert store.record(run.id, 1, [event], output="/artifacts/1.ipynb")
    store.finish(run.id, 1, STOPPED, now=T0)
    assert not store.record(run.id, 1, [event], output="/stale")

    assert store.events(run.id) == (1, [event])
    assert store.run(run.id).output == "/artifacts/1.ipynb"


def test_a_finished_run_takes_no_more_words(store: Store) -> None:
    run = given.claimed(store)
    store.finish(run.id, 1, GOOD, now=T0)

    assert not store.record(run.id, 1, [Event("output", 1.0, "stdout", data="zombie")], output="/stale")

    assert store.events(run.id) == (0, [])
    assert store.run(run.id).output is None


# Ending.


def test_a_run_succeeds_once(store: Store) -> None:
    run = given.claimed(store)

    done = store.finish(run.id, 1, GOOD, now=at(9))

    assert done == replace(run, state=State.SUCCEEDED, finished=at(9)) == store.run(run.id)
    assert store.finish(run.id, 1, BAD, now=at(10)) is None
    assert store.run(run.id) == done


def test_a_failure_is_retried_with_a_growing_wait_until_the_last_attempt(store: Store) -> None:
    run = given.claimed(store, retries=2, backoff=3.0)

    waits = []
    for attempt in (1, 2):
        pending = store.finish(run.id, attempt, BAD, now=T0)
        assert pending is not None
        assert (pending.state, pending.cause, pending.error) == (State.PENDING, Cause.NOTEBOOK, BAD.error)
        assert pending.finished is None
        assert pending.available is not None
        waits.append((pending.available - T0).total_seconds())
        assert store.claim([run.policy.queue], "w1", now=pending.available) is not None
    failed = store.finish(run.id, 3, BAD, now=at(99))

    assert waits == [3.0, 6.0]
    assert failed is not None
    assert (failed.state, failed.cause, failed.finished) == (State.FAILED, Cause.NOTEBOOK, at(99))


def test_a_retry_that_succeeds_leaves_no_cause(store: Store) -> None:
    run = given.claimed(store, retries=1)
    store.finish(run.id, 1, BAD, now=T0)
    again = store.claim([run.policy.queue], "w1", now=at(60))
    assert again is not None
    assert again.cause is Cause.NOTEBOOK

    done = store.finish(run.id, 2, GOOD, now=at(61))

    assert done is not None
    assert (done.state, done.cause, done.error) == (State.SUCCEEDED, None, None)


def test_a_run_that_could_not_begin_is_not_retried(store: Store) -> None:
    run = given.claimed(store, retries=5)

    failed = store.finish(run.id, 1, Ending(State.FAILED, Cause.SETUP, "no kernel 'julia'"), now=T0)

    assert failed is not None
    assert (failed.state, failed.cause, failed.error) == (State.FAILED, Cause.SETUP, "no kernel 'julia'")


def test_a_thousand_retries_do_not_wait_for_ever(store: Store) -> None:
    run = given.claimed(store, retries=3000, backoff=2.0)
    for attempt in range(1, 30):
        pending = store.finish(run.id, attempt, BAD, now=T0)
        assert pending is not None
        assert pending.available is not None
        store.claim([run.policy.queue], "w1", now=pending.available)

    assert pending.available - T0 == timedelta(days=1)


def test_an_error_of_any_text_can_be_stored(store: Store) -> None:
    run = given.claimed(store)

    store.finish(run.id, 1, Ending(State.FAILED, Cause.NOTEBOOK, "ValueError: \0 \ud83d 🛫"), now=T0)

    assert store.run(run.id).error == "ValueError: \ufffd \ufffd 🛫"


def test_an_attempt_does_not_end_as_something_else(store: Store) -> None:
    run = given.claimed(store)

    with pytest.raises(ValueError, match="an attempt does not end running"):
        store.finish(run.id, 1, Ending(State.RUNNING), now=T0)
    assert store.run(run.id) == run


def test_a_run_handed_back_is_runnable_at_once_and_has_lost_no_retry(store: Store) -> None:
    run = given.claimed(store, retries=1, backoff=3.0)

    assert store.release(run.id, 1, now=T0)
    assert store.release(run.id, 1, now=T0) is None

    again = store.claim([run.policy.queue], "w2", now=at(5))
    assert again is not None
    assert (again.attempt, again.last_attempt, again.cause) == (2, 3, None)
    pending = store.finish(run.id, 2, BAD, now=at(6))
    assert pending is not None
    assert pending.available == at(9)


def test_a_run_under_way_is_cancelled_when_its_kernel_has_ended(store: Store) -> None:
    run = given.claimed(store)

    asked = store.cancel(run.id, now=at(5))

    assert (asked.state, asked.cancelling, asked.finished) == (State.RUNNING, True, None)
    assert store.cancel(run.id, now=at(6)) == asked
    with pytest.raises(Conflict, match="is being cancelled; only a failed or cancelled run can be retried"):
        store.retry(run.id, now=at(6))
    ended = store.finish(run.id, 1, STOPPED, now=at(7))
    assert ended is not None
    assert (ended.state, ended.cancelling, ended.finished) == (State.CANCELLED, False, at(7))
    assert store.finish(run.id, 1, GOOD, now=at(8)) is None
    assert store.run(run.id) == ended


@pytest.mark.parametrize("how", ["succeeds", "fails", "is handed back", "is lost with its worker"])
def test_a_cancelled_run_is_cancelled_however_its_attempt_ends(store: Store, how: str) -> None:
    run = given.claimed(store, retries=3)
    store.cancel(run.id, now=at(5))

    ended = {
        "succeeds": lambda: store.finish(run.id, 1, GOOD, now=at(6)),
        "fails": lambda: store.finish(run.id, 1, BAD, now=at(6)),
        "is handed back": lambda: store.release(run.id, 1, now=at(6)),
        "is lost with its worker": lambda: store.rescue(run.id, 1, 0, now=at(6)),
    }[how]()

    assert ended is not None
    assert (ended.state, ended.cancelling, ended.finished, ended.cause) == (State.CANCELLED, False, at(6), None)


def test_a_waiting_run_can_be_cancelled(store: Store) -> None:
    run = given.submitted(store)

    assert store.cancel(run.id, now=T0).state is State.CANCELLED
    assert store.claim(["default"], "w1", now=at(60)) is None


def test_of_cancel_and_finish_at_once_exactly_one_wins(store: Store) -> None:
    assert cancel_against_finish(store, 40).total() == 40


@pytest.mark.parametrize("ending", [GOOD, BAD], ids=["succeeded", "failed"])
def test_an_ended_run_cannot_be_cancelled(store: Store, ending: Ending) -> None:
    run = given.claimed(store)
    store.finish(run.id, 1, ending, now=T0)

    with pytest.raises(Conflict) as caught:
        store.cancel(run.id, now=T0)

    short = run.id[:8]
    assert str(caught.value) == f"run {short} is {ending.state}; only a pending or running run can be cancelled"


def test_a_failed_run_can_be_retried_with_all_its_retries(store: Store) -> None:
    run = given.claimed(store, retries=1, backoff=3.0, scheduled_for=at(-60))
    store.finish(run.id, 1, BAD, now=T0)
    store.claim([run.policy.queue], "w1", now=at(60))
    store.finish(run.id, 2, BAD, now=at(60))

    again = store.retry(run.id, now=at(70))

    assert (again.state, again.attempt, again.last_attempt) == (State.PENDING, 2, 4)
    assert (again.finished, again.available, again.crashes) == (None, None, 0)
    assert again.scheduled_for == at(-60)
    assert store.claim([run.policy.queue], "w1", now=at(70)) is not None
    pending = store.finish(run.id, 3, BAD, now=at(70))
    assert pending is not None
    assert pending.available == at(73)


def test_a_cancelled_run_can_be_retried_and_its_old_worker_changes_nothing(store: Store) -> None:
    run = given.claimed(store)
    store.cancel(run.id, now=T0)
    store.finish(run.id, 1, STOPPED, now=T0)

    again = store.retry(run.id, now=T0)

    assert again.state is State.PENDING
    assert not store.beat(run.id, 1)
    assert not store.record(run.id, 1, [], output="/stale")
    assert store.finish(run.id, 1, GOOD, now=T0) is None
    assert store.run(run.id) == again


def test_only_a_failed_or_cancelled_run_can_be_retried(store: Store) -> None:
    pending, running, done = given.submitted(store), given.claimed(store), given.claimed(store)
    store.finish(done.id, 1, GOOD, now=T0)

    for run, state in ((pending, "pending"), (running, "running"), (done, "succeeded")):
        before = store.run(run.id)
        with pytest.raises(Conflict) as caught:
            store.retry(run.id, now=T0)
        assert str(caught.value) == f"run {run.id[:8]} is {state}; only a failed or cancelled run can be retried"
        assert store.run(run.id) == before


# Rescuing.


def test_a_run_whose_worker_is_silent_is_handed_on(store: Store) -> None:
    run = given.claimed(store)
    store.beat(run.id, 1)

    rescued = store.rescue(run.id, 1, 1, now=at(20))

    assert rescued is not None
    assert (rescued.state, rescued.cause, rescued.crashes) == (State.PENDING, Cause.CRASHED, 1)
    assert rescued.error == "attempt 1 was lost with its worker w1"
    assert (rescued.attempt, rescued.last_attempt, rescued.available) == (1, 2, at(21))
    assert not store.beat(run.id, 1)
    assert store.finish(run.id, 1, GOOD, now=at(21)) is None


def test_a_run_whose_worker_still_speaks_is_not_rescued(store: Store) -> None:
    run = given.claimed(store)
    [(_, attempt, beat, _)] = store.beats()
    store.beat(run.id, 1)

    assert store.rescue(run.id, attempt, beat, now=T0) is None
    assert store.run(run.id) == run


def test_a_silent_run_is_rescued_by_one_of_eight(store: Store) -> None:
    run = given.claimed(store)

    answers = given.together(8, lambda _: store.rescue(run.id, 1, 0, now=T0))

    assert [answer is not None for answer in answers].count(True) == 1
    assert store.run(run.id).crashes == 1


def test_a_run_that_kills_its_workers_fails_in_the_end(store: Store) -> None:
    run = given.claimed(store, retries=9)
    waits = []
    for attempt in range(1, MAX_CRASHES):
        rescued = store.rescue(run.id, attempt, 0, now=T0)
        assert rescued is not None
        assert rescued.available is not None
        waits.append((rescued.available - T0).total_seconds())
        store.claim([run.policy.queue], f"w{attempt + 1}", now=rescued.available)

    failed = store.rescue(run.id, MAX_CRASHES, 0, now=at(60))

    assert waits == [1.0, 2.0]
    assert failed is not None
    assert (failed.state, failed.cause, failed.finished) == (State.FAILED, Cause.CRASHED, at(60))
    assert failed.error == ("attempt 3 was lost with its worker w3; 3 attempts were lost so, and it is not tried again")


@pytest.mark.parametrize("lost_by", ["release", "finish", "rescue", "cancel"])
def test_a_worker_that_lost_its_run_to_another_changes_nothing(store: Store, lost_by: str) -> None:
    run = given.claimed(store, retries=1)
    if lost_by == "release":
        store.release(run.id, 1, now=T0)
    elif lost_by == "finish":
        store.finish(run.id, 1, BAD, now=T0)
    elif lost_by == "rescue":
        store.rescue(run.id, 1, 0, now=T0)
    else:
        store.cancel(run.id, now=T0)
        store.finish(run.id, 1, STOPPED, now=T0)
        store.retry(run.id, now=T0)
    theirs = store.claim([run.policy.queue], "w2", now=at(60))
    assert theirs is not None
    assert (theirs.state, theirs.attempt, theirs.worker) == (State.RUNNING, 2, "w2")

    assert not store.beat(run.id, 1)
    assert not store.record(run.id, 1, [Event("output", 1.0, "stdout", data="zombie")], output="/stale")
    assert store.release(run.id, 1, now=at(61)) is None
    assert store.rescue(run.id, 1, 0, now=at(61)) is None
    assert store.finish(run.id, 1, GOOD, now=at(61)) is None
    assert store.finish(run.id, 1, BAD, now=at(61)) is None

    assert store.run(run.id) == theirs
    assert store.beats() == [(run.id, 2, 0, False)]
    assert store.events(run.id) == (0, [])


# Reading.


def test_a_run_is_found_by_any_prefix_that_fits_no_other(store: Store) -> None:
    given.submitted(store, id="abcd1111-x")
    given.submitted(store, id="abcd2222-x")

    assert store.run("abcd1").id == "abcd1111-x"
    assert store.run("ABCD2222").id == "abcd2222-x"


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("abcd", "more than one run begins with 'abcd' (abcd1111-x, abcd2222-x); give more of it"),
        ("abc", "'abc' names no run; give its id, or at least its first 4 characters"),
        ("", "'' names no run; give its id, or at least its first 4 characters"),
        ("ab%d", "no run 'ab%d'; `flowkit runs` lists them"),
        ("efgh\0", "no run 'efgh\\x00'; `flowkit runs` lists them"),
    ],
)
def test_an_id_that_names_no_run_says_so(store: Store, id: str, message: str) -> None:
    given.submitted(store, id="abcd1111-x")
    given.submitted(store, id="abcd2222-x")

    with pytest.raises(NotFound) as caught:
        store.run(id)

    assert str(caught.value) == message


def test_what_needs_a_run_says_if_there_is_none(store: Store) -> None:
    for act in (store.cancel, store.retry):
        with pytest.raises(NotFound, match="no run 'nowhere'; `flowkit runs` lists them"):
            act("nowhere", now=T0)
    assert store.events("nowhere") == (0, [])


def test_runs_are_listed_newest_first_page_by_page(store: Store) -> None:
    for number in range(25):
        given.submitted(store, created=at(number // 3), id=f"run-{number:02}")

    pages, before = [], None
    while page := store.runs(limit=10, before=before):
        pages.append([run.id for run in page])
        before = page[-1]

    assert [len(page) for page in pages] == [10, 10, 5]
    assert list(chain(*pages)) == [f"run-{number:02}" for number in reversed(range(25))]


def test_runs_are_listed_by_deployment_and_state(store: Store) -> None:
    mine = given.claimed(store, deployment="flights", created=at(1))
    other = given.submitted(store, deployment="weather", created=at(2))
    alone = given.submitted(store, created=at(3))
    store.cancel(alone.id, now=T0)

    def ids(**query: object) -> list[str]:
        return [run.id for run in store.runs(**query)]  # type: ignore[arg-type]

    assert ids(deployment="flights") == [mine.id]
    assert ids(states=[State.CANCELLED, State.PENDING]) == [alone.id, other.id]
    assert ids(states=iter([State.RUNNING]), deployment="weather") == []
    assert ids() == [alone.id, other.id, mine.id]


def test_the_numbers_of_the_dashboard(store: Store) -> None:
    given.claimed(store)
    for queue, available in (("a", None), ("a", at(60)), ("b", None)):
        given.submitted(store, queue=queue, available=available)

    assert store.counts() == {
        State.PENDING: 3,
        State.RUNNING: 1,
        State.SUCCEEDED: 0,
        State.FAILED: 0,
        State.CANCELLED: 0,
    }
    assert store.counts(most=2)[State.PENDING] == 2
    assert store.depth(T0) == {"a": 2, "b": 1}
    assert store.ready(["a", "b"], now=T0, limit=9) == 2
    assert store.ready(["a"], now=at(60), limit=9) == 2
    assert store.ready(["a"], now=at(60), limit=1) == 1
    assert store.ready([], now=T0, limit=9) == 0


def test_a_page_of_runs_in_any_order_says_how_many_there_are(store: Store) -> None:
    named = given.submitted(store, name="Ångström", created=at(0))
    early = given.claimed(store, deployment="a", version=1, created=at(1), now=at(5))
    late = given.claimed(store, deployment="b", version=1, created=at(2), now=at(7), notebook="/other.ipynb")

    def page(offset: int = 0, limit: int = 9, **asked: Any) -> tuple[list[str], int]:
        found, total = store.page(offset=offset, limit=limit, **asked)
        return [run.id for run in found], total

    assert page() == ([late.id, early.id, named.id], 3)
    assert page(1, 1) == ([early.id], 3)
    assert page(order=[("created", False)]) == ([named.id, early.id, late.id], 3)
    assert page(order=[("state", True), ("started", True)]) == ([late.id, early.id, named.id], 3)
    assert page(named="Ång") == ([named.id], 1)
    assert page(named="ng") == ([], 0)
    assert page(deployment="a", states=[State.RUNNING]) == ([early.id], 1)
    assert page(started=at(6)) == ([late.id], 1)
    assert page(notebook="/other.ipynb") == ([late.id], 1)
    assert store.run(named.id).label == "Ångström"
