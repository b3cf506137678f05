"""A disk and a database that fail at every place where they can, over a run's whole life."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from flowkit import failpoints
from flowkit.artifacts import Artifacts
from flowkit.errors import Unavailable, UsageError
from flowkit.model import Overlap, Schedule, State
from flowkit.store import Store
from flowkit.testing import FakeKernel
from flowkit.worker.dispatch import Clock, Dispatcher
from flowkit.worker.worker import identity
from tests.store import given
from tests.store.given import T0
from tests.store.test_backfills import backfill

LEASE = 15.0

DISK = [
    f"artifact.{place}:{error}"
    for place in ("write", "fsync", "rename")
    for error in ("enospc", "eio", "enospc@1", "eio@2")
]
STORE = [
    f"store.{call}:drop-{when}@{nth}"
    for call, times in {"submit": 2, "claim": 2, "record": 3, "finish": 2, "rescue": 1}.items()
    for when in ("before", "after")
    for nth in range(1, times + 1)
]


#: Where a worker tells of itself, and where firings and backfills become runs.
OTHERS = [
    f"store.{call}:drop-{when}@1"
    for call in ("enrol", "seen", "beat", "fire", "backfill")
    for when in ("before", "after")
]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


class Saving(FakeKernel):
    """Saves once while it runs, and lives so long that its worker beats for it."""

    meanwhile: Callable[[], None]

    def __call__(self, order, *, on_save, **callbacks):  # type: ignore[no-untyped-def]
        self.meanwhile()
        on_save(json.dumps({"cells": [], "running": order.current.attempt}))
        return super().__call__(order, on_save=on_save, **callbacks)


def live(store: Store, folder: Path) -> None:
    """Until the run has ended, as several workers would."""
    hand = [1000.0]
    kernel = Saving()

    def enrolled() -> Dispatcher:
        return Dispatcher(
            store,
            Artifacts(str(folder)),
            worker=identity(["default"], 2, at=T0),
            ring=lambda run: None,
            lease=LEASE,
            folder=folder / "work",
            execute=kernel,
            clock=Clock(now=lambda: given.at(hand[0]), monotonic=lambda: hand[0], sleep=lambda seconds: None),
        )

    try:
        worker = enrolled()
    except Unavailable:  # as a worker that is started again
        worker = enrolled()

    def beats() -> None:
        hand[0] += LEASE / 2
        with suppress(Unavailable):
            worker.pulse()

    kernel.meanwhile = beats
    for _ in range(8):
        for act in (lambda: worker.tick(T0), lambda: worker.seen(T0), worker.look, worker.pulse, worker.rescue):
            with suppress(Unavailable):
                act()
        hand[0] += LEASE
        if not (store.runs(states=[State.PENDING, State.RUNNING]) or store.due(now=T0)):
            return


@pytest.mark.parametrize("rule", DISK + STORE)
def test_whatever_fails_where_succeeded_means_saved_and_nothing_is_told_twice(
    store: Store, tmp_path: Path, rule: str
) -> None:
    fails_at(store, tmp_path, rule)


def fails_at(store: Store, folder: Path, rule: str) -> None:
    """One run, with that failure in its life; asserts what must be so whatever fails."""
    wanted = given.run(retries=1, parameters={"failures": 1})
    failpoints.arm(rule)
    for _ in range(3):
        with suppress(Unavailable):
            store.submit(wanted, given.TEXT)
            break
    live(store, folder)
    failpoints.arm("")

    run = store.run(wanted.id)
    assert run.state.final
    if rule in STORE:
        assert run.state is State.SUCCEEDED
    if run.state is State.SUCCEEDED:
        assert run.output is not None
        data = Path(run.output).read_bytes()
        assert sha256(data).hexdigest() == run.digest
        assert json.loads(data) == json.loads(given.TEXT)
    else:
        assert run.error is not None
        assert "cannot write the artifact" in run.error
    for attempt in range(1, run.attempt + 1):
        told = [event.to_json() for event in store.events(run.id, attempt=attempt)[1]]
        assert len(set(told)) == len(told)
    assert list(folder.rglob(".notebook*")) == [], "no half written file is left"


@pytest.mark.parametrize("rule", OTHERS)
def test_an_answer_that_is_lost_neither_loses_nor_doubles_a_firing_or_a_backfills_run(
    store: Store, tmp_path: Path, rule: str
) -> None:
    schedule = Schedule(every=60.0, anchor=given.at(-60), next=T0, overlap=Overlap.ALLOW)
    deployed, _ = store.deploy(given.deployment(schedule=schedule), given.TEXT, now=T0)
    failpoints.arm(rule)
    for _ in range(2):
        with suppress(Unavailable):
            backfill(store, deployment=deployed)
            break
    live(store, tmp_path)
    failpoints.arm("")

    runs = store.runs(limit=100)
    assert [run.scheduled_for for run in runs if run.scheduled_for] == [T0]
    assert sorted(run.parameters["day"] for run in runs if not run.scheduled_for) == [0, 1, 2, 3, 4]
    assert {(run.state, run.crashes) for run in runs} == {(State.SUCCEEDED, 0)}
    assert store.workers(since=T0)


def test_a_notebook_that_is_not_what_was_written_has_not_succeeded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that says yes and keeps something else."""
    write = Artifacts.write

    def lossy(self: Artifacts, path: str, data: bytes) -> str:
        return write(self, path, data[:-1])

    monkeypatch.setattr(Artifacts, "write", lossy)
    run = given.submitted(store)
    live(store, tmp_path)

    ended = store.run(run.id)
    assert ended.state is State.FAILED
    assert ended.error is not None
    assert ended.error.endswith("is not what was written there; see to that disk")


def test_a_misspelt_failpoint_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'artifact\.write:full'; what happens is one of"):
        failpoints.arm("artifact.write:full")
