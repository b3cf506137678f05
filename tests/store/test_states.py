"""Whatever happens in whatever order: only legal moves, attempts only grow, a stale attempt never changes anything."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from flowkit.errors import Conflict
from flowkit.events import Event
from flowkit.model import MOVES, Cause, Ending, Run, State, new_id
from flowkit.store import MAX_CRASHES, Store
from tests.store import given

EVENT = Event("cell", 1.0, "1", state=State.RUNNING)
ENDINGS = [Ending(State.SUCCEEDED), Ending(State.PENDING)] + [
    Ending(State.FAILED, cause, "an error") for cause in Cause
]


@dataclass
class Seen:
    """What the test knows of a run without asking the store."""

    run: Run
    events: int = 0  #: of all attempts
    beats: int = 0  #: of the newest attempt
    budget: int = 0  #: failures by its own fault that are still retried
    cancelling: bool = False
    children: list[str] = field(default_factory=list)


class Lives(RuleBasedStateMachine):
    store: ClassVar[Store]

    def __init__(self) -> None:
        super().__init__()
        self.now: datetime = given.T0
        self.queue = new_id()
        self.seen: dict[str, Seen] = {}
        self.claims: list[tuple[str, int]] = []  #: every token that any worker ever held

    @precondition(lambda self: len(self.seen) < 3)  # few runs, that much happens to each
    @rule(retries=st.integers(0, 2), priority=st.integers(-1, 1))
    def submit(self, retries: int, priority: int) -> None:
        policy = {"queue": self.queue, "retries": retries, "priority": priority}
        id = f"{self.queue}-{len(self.seen)}"  # not random: ids decide ties, and hypothesis replays what it saw
        wanted = given.run(id=id, deployment=self.queue, created=self.now, **policy)
        run, new = self.store.submit(wanted, given.TEXT)
        assert new
        self.seen[run.id] = Seen(run, budget=retries)

    @rule(seconds=st.sampled_from([0.5, 5, 60]))
    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def claim(self, worker: str) -> None:
        claimed = self.store.claim([self.queue], worker, now=self.now)
        runnable = [
            seen.run
            for seen in self.seen.values()
            if seen.run.state is State.PENDING and (seen.run.available is None or seen.run.available <= self.now)
            if not seen.run.waits
        ]
        if not runnable:
            assert claimed is None
            return
        best = min(runnable, key=lambda run: (-run.policy.priority, run.created, run.id))
        assert claimed is not None
        assert (claimed.id, claimed.attempt, claimed.worker) == (best.id, best.attempt + 1, worker)
        self.seen[best.id].beats = 0
        self.claims.append((best.id, claimed.attempt))
        self.look(claimed)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        id, attempt, ours = self.pick(data)
        assert self.store.beat(id, attempt) is ours
        self.seen[id].beats += ours

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        id, attempt, _ = self.pick(data)
        run = self.seen[id].run
        ours = run.attempt == attempt and run.state is State.RUNNING
        assert self.store.record(id, attempt, [EVENT]) is ours
        self.seen[id].events += ours

    @precondition(lambda self: self.claims and len(self.seen) < 5)
    @rule(data=st.data(), retries=st.integers(0, 1))
    def ask(self, data: st.DataObject, retries: int) -> None:
        parent, attempt, ours = self.pick(data)
        id = f"{self.queue}-{len(self.seen)}"
        policy = {"queue": self.queue, "retries": retries, "priority": self.seen[parent].run.policy.priority + 1}
        child = given.run(id=id, deployment=self.queue, created=self.now, parent=parent, **policy)
        made = self.store.ask(parent, attempt, [child], texts={"digest": given.TEXT})
        if not ours or self.seen[parent].cancelling:
            assert made is None
            return
        assert made is not None
        assert [one.id for one in made] == [id]
        self.seen[id] = Seen(self.store.run(id), budget=retries)
        self.seen[parent].children.append(id)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), ending=st.sampled_from(ENDINGS))
    def finish(self, data: st.DataObject, ending: Ending) -> None:
        id, attempt, ours = self.pick(data)
        after = self.store.finish(id, attempt, ending, now=self.now)
        assert (after is not None) is ours
        if after is None:
            return
        if self.seen[id].cancelling:
            self.look(after, expected=State.CANCELLED)
            return
        if ending.state is State.PENDING or (ending.state is State.SUCCEEDED and self.open(id)):
            assert after.waits is bool(self.open(id))
            self.look(after, expected=State.PENDING)
            return
        again = ending.state is State.FAILED and ending.cause is not Cause.SETUP and self.seen[id].budget > 0
        assert after.state is (State.PENDING if again else ending.state)
        assert (after.cause, after.error) == (ending.cause, ending.error)
        if again:
            self.retried_below(id)
            assert after.waits is bool(self.open(id))
        self.seen[id].budget -= again
        self.look(after)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        id, attempt, ours = self.pick(data)
        after = self.store.release(id, attempt, now=self.now)
        assert (after is not None) is ours
        if after is not None:
            self.look(after, expected=State.CANCELLED if self.seen[id].cancelling else State.PENDING)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), late=st.booleans())
    def rescue(self, data: st.DataObject, late: bool) -> None:
        id, attempt, ours = self.pick(data)
        silent = ours and not late
        crashes = self.seen[id].run.crashes
        after = self.store.rescue(id, attempt, self.seen[id].beats - late, now=self.now)
        assert (after is not None) is silent
        if after is not None:
            assert after.crashes == crashes + 1
            kept = State.FAILED if after.crashes >= MAX_CRASHES else State.PENDING
            self.look(after, expected=State.CANCELLED if self.seen[id].cancelling else kept)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        seen = self.seen[data.draw(st.sampled_from(sorted(self.seen)))]
        run = seen.run
        try:
            after = self.store.cancel(run.id, now=self.now)
        except Conflict:
            assert run.state.final
            return
        if run.state is State.PENDING:
            self.look(after, expected=State.CANCELLED)
            return
        assert after == replace(run, cancelling=True)
        seen.run, seen.cancelling = after, True
        self.cancelled_below(run.id)

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        seen = self.seen[data.draw(st.sampled_from(sorted(self.seen)))]
        before = seen.run
        try:
            after = self.store.retry(before.id, now=self.now)
            self.retried_below(before.id)
            assert after.waits <= bool(self.open(before.id))
            self.look(after, expected=State.PENDING)
            assert before.state in (State.FAILED, State.CANCELLED)
            seen.budget = before.policy.retries
        except Conflict:
            assert before.state not in (State.FAILED, State.CANCELLED)

    @invariant()
    def nothing_else_has_changed(self) -> None:
        stored = {run.id: run for run in self.store.runs(limit=1000, deployment=self.queue)}
        assert stored == {id: seen.run for id, seen in self.seen.items()}

    def teardown(self) -> None:
        for id, seen in self.seen.items():
            attempts = range(1, seen.run.attempt + 1)
            assert seen.events == sum(len(self.store.events(id, attempt=attempt)[1]) for attempt in attempts)

    def pick(self, data: st.DataObject) -> tuple[str, int, bool]:
        """A token that some worker held once, and whether it is still good."""
        id, attempt = data.draw(st.sampled_from(self.claims))
        run = self.seen[id].run
        return id, attempt, run.state is State.RUNNING and run.attempt == attempt

    def open(self, id: str) -> list[str]:
        return [child for child in self.seen[id].children if not self.seen[child].run.state.final]

    def cancelled_below(self, id: str) -> None:
        for child in self.open(id):
            seen = self.seen[child]
            after = self.store.run(child)
            if seen.cancelling:
                continue
            if seen.run.state is State.RUNNING:
                assert after == replace(seen.run, cancelling=True)
                seen.run, seen.cancelling = after, True
                self.cancelled_below(child)
            else:
                self.look(after, expected=State.CANCELLED)

    def retried_below(self, id: str) -> None:
        for child in self.seen[id].children:
            seen = self.seen[child]
            if seen.cancelling:  # which is taken back
                self.retried_below(child)
                seen.run, seen.cancelling = replace(seen.run, cancelling=False), False
            elif seen.run.state in (State.FAILED, State.CANCELLED):
                self.retried_below(child)
                after = self.store.run(child)
                assert after.waits is bool(self.open(child))
                self.look(after, expected=State.PENDING)
                seen.budget = after.policy.retries

    def look(self, after: Run, *, expected: State | None = None) -> None:
        """Judge what a run has become."""
        before = self.seen[after.id].run
        assert after.state in MOVES[before.state]
        assert expected in (None, after.state)
        assert after.attempt == before.attempt + (after.state is State.RUNNING)
        assert after.last_attempt >= before.last_attempt
        assert (after.finished is not None) is after.state.final
        assert not after.cancelling
        self.seen[after.id].cancelling = False
        if after.state is State.PENDING:
            assert after.attempt < after.last_attempt
        if after.state is State.SUCCEEDED:
            assert after.cause is None
        if after.state is State.FAILED:
            assert after.cause is not None
        self.seen[after.id].run = after
        if after.state in (State.FAILED, State.CANCELLED):
            self.cancelled_below(after.id)
        parent = self.seen.get(after.parent or "")
        if parent is not None and parent.run.waits and after.state.final and not self.open(parent.run.id):
            parent.run = self.store.run(parent.run.id)
            assert not parent.run.waits


def test_no_sequence_of_calls_makes_an_illegal_move(store: Store) -> None:
    class LivesHere(Lives):
        pass

    LivesHere.store = store
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        LivesHere,
        settings=settings(
            max_examples=30, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=slow
        ),
    )
