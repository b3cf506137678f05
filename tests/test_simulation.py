"""Simulated worlds, as many as fit a quarter of a minute; and mutants, which show that a broken promise is noticed."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
import sqlalchemy as sa

from flowkit.model import Ending, Run, State
from flowkit.store import Store
from flowkit.store import claims as store_claims
from flowkit.store import limits as store_limits
from flowkit.store import moves as store_moves
from flowkit.store import schedules as store_schedules
from flowkit.store.moves import Beat
from flowkit.store.schema import runs
from flowkit.worker.dispatch import Clock, Dispatcher
from tests.simulation import KINDS, Process, Violation, World, memory_store, simulate

#: Seconds that a run of the suite gives to it.
SHARE = 15.0

#: Seeds within which a mutant must be caught.
ENOUGH = 60


@pytest.fixture(scope="module")
def memory() -> Iterator[Store]:
    logging.disable()
    with memory_store() as store:
        yield store
    logging.disable(logging.NOTSET)


def test_every_simulated_world_keeps_the_promises(memory: Store) -> None:
    until = time.monotonic() + SHARE
    seed = 0
    total: Counter[str] = Counter()
    while time.monotonic() < until:
        try:
            total += simulate(seed, memory)
        except Violation as violation:
            pytest.fail(f"{violation}; again: python -m tests.simulation {seed}", pytrace=False)
        seed += 1

    assert total["succeeded"] > total["runs"] / 2, f"hardly anything comes to its end: {total}"
    assert seed >= 5, f"only {seed} worlds in {SHARE:g} s: slower than any machine should be"


def test_a_seed_always_tells_the_same_story(memory: Store) -> None:
    assert simulate(7, memory) == simulate(7, memory)


Patch = Callable[[pytest.MonkeyPatch], None]
MUTANTS: list[tuple[Patch, str, Sequence[str]]] = []


def caught_by(violation: str, *kinds: str) -> Callable[[Patch], Patch]:
    """*kinds*: of the faults in whose worlds it shows soonest; none: of all."""

    def mutant(patch: Patch) -> Patch:
        MUTANTS.append((patch, violation, kinds or KINDS))
        return patch

    return mutant


@caught_by("was taken; it is", "long pause")
def writes_without_a_fence(patch: pytest.MonkeyPatch) -> None:
    def for_any_attempt(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(self: Store, run: str, attempt: int, *told: Any, **more: Any) -> Any:
            return write(self, run, self.run(run).attempt, *told, **more)

        return written

    for name in ("beat", "record", "finish", "release"):
        patch.setattr(Store, name, for_any_attempt(getattr(Store, name)))


@caught_by("accepted and lost")
def acceptance_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    submit = Store.submit
    calls = iter(range(10**9))

    def early(self: Store, run: Run, *told: Any) -> tuple[Run, bool]:
        if next(calls) % 5 == 4:
            return run, True  # and then this process dies
        return submit(self, run, *told)

    patch.setattr(Store, "submit", early)


@caught_by("healthy worker|while its kernel ran")
def rescue_that_does_not_look_at_the_beat(patch: pytest.MonkeyPatch) -> None:
    beats, rescue = Store.beats, Store.rescue

    def still(self: Store) -> list[Beat]:
        return [beat._replace(number=0) for beat in beats(self)]

    def hasty(self: Store, run: str, attempt: int, beat: int, *, now: datetime) -> Run | None:
        current = {beat.run: beat.number for beat in beats(self)}
        return rescue(self, run, attempt, current.get(run, 0), now=now)

    patch.setattr(Store, "beats", still)
    patch.setattr(Store, "rescue", hasty)


@caught_by("after 3 crashes")
def crashes_that_do_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store_moves, "MAX_CRASHES", 1000)


@caught_by("two kernels|while its kernel ran", "cut")
def a_worker_that_does_not_fence_itself(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "fence", lambda self: None)


@caught_by("cancelled: True", "long pause")
def an_ending_that_forgets_the_cancel(patch: pytest.MonkeyPatch) -> None:
    finish = Store.finish

    def deaf(self: Store, run: str, attempt: int, ending: Ending, **more: Any) -> Run | None:
        if ending.state is not State.CANCELLED:
            with self.writing() as connection:
                connection.execute(sa.update(runs).where(runs.c.id == run).values(cancelling=False))
        return finish(self, run, attempt, ending, **more)

    patch.setattr(Store, "finish", deaf)


@caught_by("is cancelled while its kernel runs", "cancel")
def a_cancel_that_does_not_wait_for_the_kernel(patch: pytest.MonkeyPatch) -> None:
    def cancelled(now: datetime) -> Any:
        return store_moves.move(State.CANCELLED).values(finished=now, available=None)

    patch.setattr(store_moves, "_cancelled", cancelled)


@caught_by("has events twice", "slow")
def events_that_are_stored_again(patch: pytest.MonkeyPatch) -> None:
    record, finish = Store.record, Store.finish

    def again(self: Store, *told: Any, after: int, **place: Any) -> bool:
        return record(self, *told, **place)

    def at_the_end(self: Store, *told: Any, after: int, **place: Any) -> Any:
        return finish(self, *told, **place)

    patch.setattr(Store, "record", again)
    patch.setattr(Store, "finish", at_the_end)


@caught_by("firings became")
def a_cursor_that_moves_without_its_run(patch: pytest.MonkeyPatch) -> None:
    insert = store_schedules.insert_runs
    calls = iter(range(10**9))

    def late(*args: Any) -> Any:
        return set() if next(calls) % 5 == 4 else insert(*args)  # not in this transaction, and then not at all

    patch.setattr(store_schedules, "insert_runs", late)


@caught_by("which may have 2")
def a_claim_that_does_not_count_what_is_under_way(patch: pytest.MonkeyPatch) -> None:
    hold = store_limits.hold_limits

    def lax(*args: Any) -> Any:
        held = hold(*args)
        return held and (held[0], [])

    patch.setattr(store_limits, "_full", lambda row, running: None)
    patch.setattr(store_claims, "hold_limits", lax)


@caught_by("not ended")
def a_parent_that_nobody_wakes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store_moves, "wake", lambda *_: None)
    patch.setattr(store_moves, "wake_all", lambda *_: None)


@caught_by("and its children")
def a_parent_that_does_not_look_at_its_children(patch: pytest.MonkeyPatch) -> None:
    finish = Store.finish

    def hasty(self: Store, run: str, attempt: int, ending: Ending, **more: Any) -> Run | None:
        with patch.context() as this:
            if ending.state is State.PENDING:
                this.setattr(store_moves, "WAITS", sa.false())
                ending = Ending(State.SUCCEEDED)
            return finish(self, run, attempt, ending, **more)

    patch.setattr(Store, "finish", hasty)


@pytest.mark.parametrize(("mutant", "violation", "kinds"), MUTANTS, ids=[mutant.__name__ for mutant, *_ in MUTANTS])
def test_the_simulation_catches(
    memory: Store, monkeypatch: pytest.MonkeyPatch, mutant: Patch, violation: str, kinds: Sequence[str]
) -> None:
    mutant(monkeypatch)

    with pytest.raises(Violation, match=violation):
        simulate_all(memory, kinds=kinds)


def test_the_simulation_catches_leases_by_wall_clock(memory: Store) -> None:
    def by_wall(world: World, process: Process) -> Clock:
        right = World.clock(world, process)
        return Clock(now=right.now, monotonic=lambda: right.now().timestamp(), sleep=right.sleep)

    with pytest.raises(Violation):
        simulate_all(memory, clock=by_wall)


def simulate_all(store: Store, **options: Any) -> None:
    for seed in range(ENOUGH):
        simulate(seed, store, **options)
