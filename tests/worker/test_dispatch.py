"""What a worker does with its leases, with the kernel faked and the clock moved by hand."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flowkit.artifacts import Artifacts, journal_path, notebook_path
from flowkit.errors import Unavailable
from flowkit.journal import Journal
from flowkit.model import Cause, Ending, State
from flowkit.store import Store
from flowkit.store.moves import Beat
from flowkit.store.schema import runs
from flowkit.testing import FakeKernel
from flowkit.worker.dispatch import Clock, Dispatcher
from flowkit.worker.executed import Executed
from flowkit.worker.kernel import Order, Stop
from flowkit.worker.worker import identity
from tests.processes import eventually
from tests.store import given
from tests.store.given import T0
from tests.worker.execution import current, notebook, shown

LEASE = 15.0


@dataclass
class Hand:
    """A monotonic clock."""

    at: float = 1000.0


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def kernels() -> dict[int, threading.Event]:
    """Attempt -> what ends its kernel by itself."""
    return {attempt: threading.Event() for attempt in (1, 2)}


@pytest.fixture
def dispatcher(store: Store, tmp_path: Path, hand: Hand, kernels: dict[int, threading.Event]) -> Dispatcher:
    def execute(order: Order, *, stop: Stop, **_: Any) -> Ending:
        ends = kernels[order.current.attempt]
        stop.attach(ends.set)
        ends.wait(30)
        if stop.reason is not None:
            return Ending(State.CANCELLED, None, stop.reason)
        return Ending(State.SUCCEEDED)

    return Dispatcher(
        store,
        Artifacts(str(tmp_path / "artifacts")),
        worker=identity(["default"], 2, at=T0),
        ring=lambda run: None,
        lease=LEASE,
        folder=tmp_path / "work",
        execute=execute,
        clock=Clock(now=lambda: T0, monotonic=lambda: hand.at),
    )


def looking(dispatcher: Dispatcher, *, under_way: int) -> threading.Thread:
    thread = threading.Thread(target=dispatcher.look, daemon=True)
    thread.start()
    eventually(lambda: dispatcher.under_way == under_way)
    return thread


def test_a_worker_may_hold_two_attempts_of_one_run_and_beats_for_the_newer(
    store: Store, dispatcher: Dispatcher, hand: Hand, kernels: dict[int, threading.Event]
) -> None:
    run = given.submitted(store)
    first = looking(dispatcher, under_way=1)
    assert store.rescue(run.id, 1, 0, now=given.at(-60)) is not None  # by another worker
    second = looking(dispatcher, under_way=2)
    kernels[1].set()
    first.join(10)

    hand.at += LEASE / 3
    dispatcher.pulse()

    assert store.beats() == [(run.id, 2, 1, False)]
    kernels[2].set()
    second.join(10)
    assert store.run(run.id).state is State.SUCCEEDED


def test_an_attempt_whose_beats_do_not_arrive_is_stopped_before_its_lease_is_over(
    store: Store, dispatcher: Dispatcher, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = given.submitted(store)
    look = looking(dispatcher, under_way=1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "beats", _unreachable)
        hand.at += LEASE / 2
        with pytest.raises(Unavailable):
            dispatcher.pulse()
        dispatcher.fence()
        assert dispatcher.under_way == 1
        hand.at += LEASE / 4
        dispatcher.fence()
        eventually(lambda: dispatcher.under_way == 0)
    dispatcher.stopping.set()

    assert store.run(run.id).state is State.RUNNING  # for another worker to hand on
    dispatcher.rescue()
    hand.at += LEASE
    dispatcher.rescue()
    assert store.run(run.id).state is State.PENDING
    look.join(10)


def test_a_slow_answer_takes_nothing_from_the_lease(
    store: Store, dispatcher: Dispatcher, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = given.claimed(store)
    beats = store.beats

    def slow() -> list[Beat]:
        hand.at += 10.0
        return beats()

    with monkeypatch.context() as patch:
        patch.setattr(store, "beats", slow)
        dispatcher.rescue()
    hand.at += LEASE - 1.0
    dispatcher.rescue()

    assert store.run(run.id).state is State.RUNNING
    hand.at += 1.0
    dispatcher.rescue()
    assert store.run(run.id).state is State.PENDING


def test_a_pulse_that_failed_is_made_up_for_by_the_next(
    store: Store,
    dispatcher: Dispatcher,
    hand: Hand,
    kernels: dict[int, threading.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = given.submitted(store)
    look = looking(dispatcher, under_way=1)
    hand.at += LEASE / 3
    with monkeypatch.context() as patch:
        patch.setattr(store, "beat", _unreachable)
        with pytest.raises(Unavailable):
            dispatcher.pulse()

    hand.at += 1.0
    dispatcher.pulse()

    assert store.beats() == [(run.id, 1, 1, False)]
    kernels[1].set()
    look.join(10)


def test_a_run_whose_notebook_cannot_be_saved_has_not_succeeded(
    store: Store, tmp_path: Path, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_run_order", FakeKernel())
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    run = given.submitted(store)

    dispatcher.look()

    ended = store.run(run.id)
    assert (ended.state, ended.cause) == (State.FAILED, Cause.CRASHED)
    assert ended.error is not None
    assert "cannot write the artifact" in ended.error


def test_a_store_that_is_silent_while_an_attempt_begins_does_not_fail_it(
    store: Store, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_run_order", FakeKernel())
    snapshot, silent = dispatcher._snapshot, iter([True, False])

    def asked(digest: str) -> str:
        return _unreachable() or "" if next(silent) else snapshot(digest)

    monkeypatch.setattr(dispatcher, "_snapshot", asked)
    run = given.submitted(store)

    dispatcher.look()

    assert store.run(run.id).state is State.SUCCEEDED


def test_what_a_dead_workers_notebook_had_grown_by_is_in_what_is_left_of_it(
    store: Store, dispatcher: Dispatcher, hand: Hand, tmp_path: Path
) -> None:
    run = given.submitted(store)
    assert store.claim(["default"], "dead", now=T0) is not None
    executed, journal, artifacts = Executed(notebook("1"), current()), Journal(), Artifacts(str(tmp_path / "artifacts"))
    artifacts.write(notebook_path(run.id, 1), executed.text().encode())
    journal.begin(executed.text())
    executed.note(0, "so far")
    artifacts.append(journal_path(run.id, 1), journal.grown(executed.grown(()), room=0).data, new=True)

    dispatcher.rescue()
    hand.at += LEASE
    dispatcher.rescue()

    left = json.loads(artifacts.read(notebook_path(run.id, 1)) or b"")
    assert left["metadata"]["flowkit"]["cause"] == "crashed"
    assert [shown(cell) for cell in left["cells"] if cell["cell_type"] == "code"] == ["so far"]
    assert artifacts.read(journal_path(run.id, 1)) is None


def test_of_a_run_that_has_ended_no_journal_is_left(store: Store, dispatcher: Dispatcher, tmp_path: Path) -> None:
    def execute(order: Order, **told: Any) -> Ending:
        told["on_save"]("{}")
        told["on_growth"](b"grown", True)
        told["on_save"]("{}")
        return Ending(State.SUCCEEDED)

    dispatcher._run_order = execute
    run = given.submitted(store)
    dispatcher.look()

    assert store.run(run.id).state is State.SUCCEEDED
    assert [file.name for file in (tmp_path / "artifacts" / "runs" / run.id / "1").iterdir()] == ["notebook.ipynb"]


def test_a_worker_that_was_forgotten_enrols_again(store: Store, dispatcher: Dispatcher) -> None:
    store.leave(dispatcher.worker.id)

    dispatcher.seen(given.at(5))

    assert [(worker.id, worker.seen) for worker in store.workers(since=T0)] == [(dispatcher.worker.id, given.at(5))]


def _unreachable(*_: object) -> None:
    raise Unavailable("the store does not answer")


def test_a_run_that_was_lost_with_its_worker_twice_is_executed_alone(store: Store, tmp_path: Path) -> None:
    """Else a poison run takes those beside it along, three times, and they fail as it does."""
    suspect = given.submitted(store)
    for attempt in (1, 2):
        assert store.claim(["default"], "w0", now=given.at(60 * attempt)) is not None
        assert store.rescue(suspect.id, attempt, 0, now=given.at(60 * attempt)) is not None
    others = [given.submitted(store) for _ in range(4)]
    executing: list[str] = []
    together: list[set[str]] = []
    begun, go_on = threading.Event(), threading.Event()

    def execute(order: Order, **_: Any) -> Ending:
        executing.append(order.current.id)
        together.append(set(executing))
        begun.set()
        go_on.wait(30)
        executing.remove(order.current.id)
        return Ending(State.SUCCEEDED)

    dispatcher = Dispatcher(
        store,
        Artifacts(str(tmp_path / "artifacts")),
        worker=identity(["default"], 3, at=T0),
        ring=lambda run: None,
        lease=LEASE,
        folder=tmp_path / "work",
        execute=execute,
        clock=Clock(now=lambda: given.at(hours)),
    )
    hours = 0.0  # the suspect waits, and the others come first
    first = looking(dispatcher, under_way=1)
    assert begun.wait(30)
    hours = 9999.0
    with store.writing() as connection:
        connection.execute(sa.update(runs).where(runs.c.id == suspect.id).values(priority=1))
    second = looking(dispatcher, under_way=2)
    third = threading.Thread(target=dispatcher.look, daemon=True)
    third.start()
    third.join(10)
    assert not third.is_alive(), "nothing else is claimed beside a suspect"
    assert executing != [suspect.id]
    assert len(executing) == 1
    go_on.set()
    first.join(10)
    second.join(10)
    dispatcher.look()

    assert {suspect.id} in together
    assert [some for some in together if suspect.id in some] == [{suspect.id}]
    assert {store.run(run.id).state for run in (suspect, *others)} == {State.SUCCEEDED}
