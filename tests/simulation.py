"""The real store and the real dispatcher in a simulated world: virtual time, several workers, all that can go wrong.

One seed is one world. Its processes take turns in one thread, each for as long as it does not wait, so a seed always
gives the same history: ``python -m tests.simulation SEED`` replays one, ``python -m tests.simulation 0 2000`` tries
many. What a run becomes is judged at every answer of the store; see ``Judge``.
"""

from __future__ import annotations

import heapq
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from greenlet import GreenletExit, getcurrent, greenlet

from flowkit import model
from flowkit.errors import Conflict, NotFound, Unavailable
from flowkit.events import Event
from flowkit.family import Family
from flowkit.model import MOVES, CatchUp, Deployment, Ending, Overlap, Policy, Run, Schedule, State
from flowkit.store import MAX_CRASHES, Store, schema
from flowkit.testing import FakeKernel
from flowkit.worker.dispatch import Clock, Dispatcher
from flowkit.worker.kernel import Order
from flowkit.worker.worker import identity

LEASE = 15.0
#: Virtual seconds in which things go wrong.
FAULTS = 45.0
#: Virtual seconds after the last fault in which every run must have ended.
PATIENCE = 900.0
EPOCH = datetime(2013, 7, 1, 6, tzinfo=UTC)
TEXT = '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
LEAF = {"snapshot": "digest"}
FAMILY = Family({"child.ipynb": LEAF | {"family": {"child.ipynb": LEAF}}}, {"digest": TEXT})
EVERY = 7.0  #: seconds between two firings of the schedule
WIDTH = 2  #: runs of the narrow deployment that may be under way at once
#: What can happen to a process or a run, or to all processes.
KINDS = ("kill", "pause", "long pause", "jump", "cut", "slow", "outage", "drain", "cancel")
#: How far a wall clock may jump, in seconds.
JUMPS = (-86_400.0, -3_600.0, 3_600.0, 86_400.0, -EPOCH.timestamp())


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(eq=False)
class Process:
    """A worker process."""

    name: str
    started: float
    ahead: float = 0.0  #: seconds by which its wall clock is wrong
    alive: bool = True
    paused: float = 0.0  #: until then
    cut: float = 0.0  #: until then it cannot reach the store
    slow: float = 0.0  #: until then the store takes seconds to answer it
    unwell: float = -1e9  #: when something last went wrong with it
    rings: int = 0
    dispatcher: Dispatcher = field(init=False)


@dataclass(eq=False)
class Kernel:
    run: str
    attempt: int
    process: Process


def stopped(kernel: Kernel, at: float) -> bool:
    """The kernel of a stopped worker goes on until the worker does, and a moment longer: nobody can help that."""
    return kernel.process.paused > at - 1.5


class Judge:
    """Knows, from what the store has answered, what each run is, and whether the next answer may be so."""

    def __init__(self) -> None:
        self.states: dict[str, State] = {}
        self.attempts: dict[str, int] = {}
        self.owners: dict[str, Process] = {}
        self.cancelling: set[str] = set()  #: running, and cancelled by a person
        self.narrow: set[str] = set()  #: runs of the deployment with a limit
        self.crashes: Counter[str] = Counter()
        self.kernels: list[Kernel] = []
        self.counts: Counter[str] = Counter()

    def submitted(self, run: Run) -> None:
        self.states.setdefault(run.id, State.PENDING)
        self.attempts.setdefault(run.id, 0)
        if run.deployment == "narrow":
            self.narrow.add(run.id)

    def children(self, theirs: Sequence[Run], at: float) -> None:
        """What those below a run have become by what was done to it."""
        for child in theirs:
            before = self.states.get(child.id)
            if before is None:  # whose answer was lost
                self.submitted(child)
                continue
            if child.state is not before:
                self._expect(child.state in MOVES[before], f"{child.id} went from {before} to {child.state}")
                self._expect(before is not State.RUNNING, f"{child.id} is {child.state}, and nobody ended its attempt")
                self.states[child.id] = child.state
                self.crashes[child.id] = 0
                self.counts["children moved"] += 1
            if child.cancelling:
                self.cancelling.add(child.id)
            else:
                self.cancelling.discard(child.id)

    def answered(self, process: Process | None, name: str, args: tuple[Any, ...], answer: Any, at: float) -> None:
        judge = getattr(self, f"_{name}", None)
        if judge is not None:
            judge(process, args, answer, at)

    def _claim(self, process: Process, _: Any, run: Run | None, at: float) -> None:
        if run is None:
            return
        self.submitted(run)
        self._expect(self.states[run.id] is State.PENDING, f"{run.id} was claimed while {self.states[run.id]}")
        self._expect(run.attempt == self.attempts[run.id] + 1, f"{run.id}: attempt {run.attempt} was given twice")
        self.states[run.id], self.attempts[run.id], self.owners[run.id] = State.RUNNING, run.attempt, process
        at_once = sum(self.states[id] is State.RUNNING for id in self.narrow)
        self._expect(at_once <= WIDTH, f"{at_once} runs of a deployment are under way, which may have {WIDTH}")

    def _beat(self, _: Process, args: tuple[Any, ...], ours: bool, at: float) -> None:
        if ours:
            self._holds(args, "a beat")

    def _record(self, _: Process, args: tuple[Any, ...], ours: bool, at: float) -> None:
        if ours:
            self._holds(args, "events")

    def _release(self, _: Process, args: tuple[Any, ...], after: Run | None, at: float) -> None:
        if after is not None:
            self._holds(args, "a release")
            self._ends(after, at)

    def _finish(self, _: Process, args: tuple[Any, ...], after: Run | None, at: float) -> None:
        if after is not None:
            self._holds(args, "an ending")
            self._ends(after, at)

    def _ends(self, after: Run, at: float) -> None:
        """The attempt has."""
        wanted = after.id in self.cancelling
        self._expect((after.state is State.CANCELLED) is wanted, f"{after.id} is {after.state}; cancelled: {wanted}")
        self.cancelling.discard(after.id)
        runs_on = any(kernel.run == after.id and not stopped(kernel, at) for kernel in self.kernels)
        self._expect(not runs_on, f"{after.id} is {after.state} while its kernel runs")
        self.states[after.id] = after.state

    def _ask(self, _: Process, args: tuple[Any, ...], new: list[Run] | None, at: float) -> None:
        if new is not None:
            self._holds(args, "a question for children")
            for child in new:
                self._expect(child.id not in self.states, f"{child.id} was made twice")
                self.submitted(child)
                self.counts["children"] += 1

    def _rescue(self, _: Process, args: tuple[Any, ...], after: Run | None, at: float) -> None:
        if after is None:
            return
        self._holds(args, "a rescue")
        owner = self.owners[after.id]
        runs_on = any((kernel.run, kernel.attempt) == args[:2] and not stopped(kernel, at) for kernel in self.kernels)
        well = at - owner.unwell > LEASE + 3
        self._expect(not (runs_on and well), f"{after.id} was taken from a healthy worker")
        self._expect(not runs_on, f"{after.id} was handed on while its kernel ran")
        self.counts["rescued"] += 1
        self.crashes[after.id] += 1
        self._expect(self.crashes[after.id] <= MAX_CRASHES, f"{after.id} was tried after {MAX_CRASHES} crashes")
        self._ends(after, at)

    def _cancel(self, _: Process, args: tuple[Any, ...], after: Run, at: float) -> None:
        self._expect(not self.states[after.id].final, f"{after.id} was cancelled after its end")
        self.counts["cancelled"] += 1
        self.cancelling.add(after.id)
        if after.state is not State.RUNNING:
            self._ends(after, at)

    def _retry(self, _: Process, args: tuple[Any, ...], after: Run, at: float) -> None:
        self._expect(self.states[after.id] in (State.FAILED, State.CANCELLED), f"{after.id} was retried")
        self.states[after.id] = after.state
        self.crashes[after.id] = 0

    def begins(self, kernel: Kernel, at: float) -> None:
        for other in self.kernels:
            if other.run == kernel.run:
                two = f"{kernel.run} has two kernels, attempts {other.attempt} and {kernel.attempt}"
                self._expect(stopped(other, at), two)
        self.kernels.append(kernel)

    def ends(self, kernel: Kernel) -> None:
        if kernel in self.kernels:
            self.kernels.remove(kernel)

    def _holds(self, args: tuple[Any, ...], what: str) -> None:
        run, attempt = args[:2]
        held = self.attempts[run] == attempt and self.states[run] is State.RUNNING
        self._expect(held, f"{what} of attempt {attempt} of {run} was taken; it is {self.states[run]}")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Violation(otherwise)


class Files:
    """Artifacts that nobody looks at."""

    appends = False

    def write(self, path: str, data: bytes) -> str:
        self._digests[path] = sha256(data).hexdigest()
        return path

    def locate(self, path: str) -> str:
        return path

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}

    def read(self, path: str) -> bytes | None:
        return None

    def digest(self, path: str) -> str | None:
        return self._digests.get(path)

    def remove(self, folder: str) -> None:
        pass


class World:
    def __init__(
        self,
        seed: int,
        store: Store,
        *,
        clock: Callable[[World, Process], Clock] | None = None,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        """*clock*: a mutant's; None: the right one. *kinds*: what may go wrong."""
        self.kinds = kinds
        self.random = random.Random(seed)
        #: What decides about children, of which every other world has none; None: this one.
        self.kin = random.Random(seed) if seed % 2 else None
        self.store = store
        self.time = 0.0
        self.shift = 0.0  #: wall seconds that were skipped, because everybody only waited for them
        self.down = 0.0  #: the store does not answer until then
        self.faulty = True
        self.deadly = self.random.choice((0.0, 0.002))  #: the chance to be killed by an answer
        self.judge = Judge()
        self.processes: list[Process] = []
        self.accepted: set[str] = set()
        self.asked: set[str] = set()
        self._clock = clock or World.clock
        self._hub = getcurrent()
        self._waiting: list[tuple[float, int, greenlet, Process | None]] = []
        self._count = 0

    # -- time ---------------------------------------------------------------------------------------------------------

    def spawn(self, process: Process | None, body: Callable[..., None], *args: Any) -> None:
        self._wait(greenlet(lambda: body(*args), parent=self._hub), process, self.time)

    def sleep(self, seconds: float, process: Process | None = None) -> None:
        if process is not None and not process.alive:
            raise GreenletExit
        self._wait(getcurrent(), process, self.time + seconds)
        self._hub.switch()
        if process is not None and not process.alive:
            raise GreenletExit

    def run_until(self, end: float) -> None:
        while self._waiting and self._waiting[0][0] <= end:
            at, _, actor, process = heapq.heappop(self._waiting)
            self.time = max(self.time, at)
            if process is not None and process.paused > self.time and process.alive:
                self._wait(actor, process, process.paused)
            elif actor or process is None or process.alive:
                actor.switch()  # which raises at its first chance if its process has died
        self.time = end

    def _wait(self, actor: greenlet, process: Process | None, until: float) -> None:
        self._count += 1
        heapq.heappush(self._waiting, (until, self._count, actor, process))

    def wall(self, process: Process | None = None) -> datetime:
        ahead = 0.0 if process is None else process.ahead
        return EPOCH + timedelta(seconds=self.time + self.shift + ahead)

    def clock(self, process: Process) -> Clock:
        offset = process.started * 1000 + 7  # a monotonic clock begins anywhere
        return Clock(
            now=lambda: self.wall(process),
            monotonic=lambda: self.time + offset,
            sleep=lambda seconds: self.sleep(seconds, process),
        )

    # -- the store, as a process reaches it ---------------------------------------------------------------------------

    def ask(self, process: Process | None, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        slow = process is not None and process.slow > self.time
        self.sleep(self.random.uniform(0.0, 6.0 if slow else 0.02), process)
        if self.time < max(self.down, process.cut if process else 0.0):
            if process:
                process.unwell = self.time
            self.sleep(self.random.choice((0.0, 3.0, 10.0)), process)
            if process:
                process.unwell = self.time
            raise Unavailable("the store does not answer")
        answer = getattr(self.store, name)(*args, **options)
        self.judge.answered(process, name, args, answer, self.time)
        if name in ("finish", "release", "rescue", "cancel", "retry") and isinstance(answer, Run) and answer.family:
            self.judge.children(self.below(answer.id), self.time)
        if self.faulty and process is not None:
            fate = self.random.random()
            if fate < self.deadly:
                self.kill(process)  # right after the commit
                raise GreenletExit
            if fate > 0.997:
                process.unwell = self.time
                raise Unavailable("the answer was lost")
        self.sleep(self.random.uniform(0.0, 6.0 if slow else 0.02), process)
        return answer

    def below(self, run: str) -> list[Run]:
        found = self.store.children(run)
        return found + [one for child in found for one in self.below(child.id)]

    # -- processes ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        process = Process(f"w{len(self.processes)}", self.time)
        self.processes.append(process)
        self.spawn(process, self._live, process)

    def kill(self, process: Process) -> None:
        self.judge.counts["killed"] += 1
        self._end(process)

    def _end(self, process: Process) -> None:
        process.alive = False
        self.judge.kernels = [kernel for kernel in self.judge.kernels if kernel.process is not process]
        self.spawn(None, self._restart, self.random.uniform(0.5, 5.0))

    def _restart(self, after: float) -> None:
        self.sleep(after)
        self.start()

    def _live(self, process: Process) -> None:
        clock = self._clock(self, process)
        kernel = FakeKernel(sleep=clock.sleep, monotonic=lambda: self.time)

        def execute(order: Order, *, on_events: Callable[[Sequence[Event]], None], **callbacks: Any) -> Ending:
            mine = Kernel(order.current.id, order.current.attempt, process)
            if callbacks["stop"].reason is None:  # else it ends before its first cell
                self.judge.begins(mine, self.time)
            try:
                if order.parameters.get("poison"):
                    self.sleep(0.5, process)
                    self.kill(process)
                    raise GreenletExit

                def told(events: Sequence[Event]) -> None:
                    if events[0].state is State.RUNNING:
                        self.spawn(process, on_events, events)  # a kernel does not wait for its worker
                        return
                    self.judge.ends(mine)
                    on_events(events)

                return kernel(order, on_events=told, **callbacks)
            finally:
                self.judge.ends(mine)

        while True:
            try:
                process.dispatcher = Dispatcher(
                    _Line(self, process),  # type: ignore[arg-type]
                    Files(),  # type: ignore[arg-type]
                    worker=identity(["default"], 2, at=self.wall(process)),
                    ring=self.ring,
                    lease=LEASE,
                    folder=workplace(self.store),
                    execute=execute,
                    clock=clock,
                )
                break
            except Unavailable:
                self.sleep(1.0, process)
        for pause, act in ((1.0, self._pulse), (0.5, self._fence), (2.0, self._sweep), (0.5, self._listen)):
            self.spawn(process, self._loop, process, pause, act)
        self.spawn(process, self._loop, process, 0.5, self._listen)

    def _loop(self, process: Process, pause: float, act: Callable[[Process], None]) -> None:
        while True:
            with suppress(Unavailable):
                act(process)
            self.sleep(pause, process)

    def _pulse(self, process: Process) -> None:
        process.dispatcher.pulse()

    def _fence(self, process: Process) -> None:
        process.dispatcher.fence()

    def _sweep(self, process: Process) -> None:
        dispatcher = process.dispatcher
        dispatcher.tick(self.wall(process))
        dispatcher.rescue()
        dispatcher.wake()
        process.rings = dispatcher.ready(self.wall(process))
        dispatcher.seen(self.wall(process))

    def _listen(self, process: Process) -> None:
        if process.rings:
            process.rings -= 1
            process.dispatcher.look()

    def ring(self, run: Run) -> None:
        """The doorbell: lost, heard, or heard twice."""
        for _ in range(self.random.choice((0, 1, 1, 2)) if self.faulty else 1):
            alive = [process for process in self.processes if process.alive]
            if alive:
                self.random.choice(alive).rings += 1

    # -- people -------------------------------------------------------------------------------------------------------

    def submit(self, number: int) -> None:
        chance = self.random.random()
        parameters: dict[str, Any] = {"seconds": self.random.choice((0.3, 2.0, 10.0, 20.0, 40.0))}
        if chance < 0.04:
            parameters["poison"] = True
        elif chance < 0.3:
            parameters["failures"] = self.random.choice((1, 5))
        narrow = self.random.random() < 0.5
        if self.kin is not None and self.kin.random() < 0.4:
            failures = self.kin.choice((0, 0, 2))
            leaf: dict[str, Any] = {"seconds": self.kin.choice((0.3, 2.0)), "failures": failures}
            below = {"seconds": 0.3, "children": self.kin.choice((0, 2)), "child": leaf}
            parameters |= {"children": self.kin.choice((1, 3)), "child": self.kin.choice((leaf, below))}
        run = Run(
            id=f"run{number}",
            key=f"key{number}",
            deployment="narrow" if narrow else None,
            version=1 if narrow else None,
            notebook="/n.ipynb",
            snapshot="digest",
            parameters=parameters,
            policy=Policy(retries=self.random.choice((0, 2)), backoff=1.0, priority=self.random.choice((0, 1))),
            created=self.wall() + timedelta(microseconds=number),
            family=FAMILY.digest if "children" in parameters else None,
        )
        self.asked.add(run.id)
        self.judge.submitted(run)
        for _ in range(self.random.choice((1, 5))):
            try:
                stored, _new = self.ask(None, "submit", (run, TEXT, FAMILY), {})
                self.accepted.add(stored.id)
                self.ring(stored)
                break
            except Unavailable:
                self.sleep(2.0)

    def _cancel(self, run: str) -> None:
        self.sleep(self.random.choice((0.0, 5.0)))
        self._by_hand("cancel", run)
        if self.random.random() < 0.3:
            self.sleep(self.random.uniform(0.0, 5.0))
            self._by_hand("retry", run)

    def _by_hand(self, what: str, run: str) -> None:
        with suppress(Conflict, NotFound, Unavailable):
            self.ask(None, what, (run,), {"now": self.wall()})

    # -- faults -------------------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        """One fault after the other, of a few kinds: with all at once, some would hide what others do."""
        kinds = self.random.sample(self.kinds, min(self.random.randint(1, 4), len(self.kinds)))
        pause = self.random.choice((2.0, 4.0, 8.0))
        while self.time < FAULTS:
            self.sleep(self.random.expovariate(1 / pause))
            alive = [process for process in self.processes if process.alive]
            if self.time > FAULTS or not alive:
                continue
            # Most often that of a worker that has something to lose.
            busy = [kernel.process for kernel in self.judge.kernels]
            process = self.random.choice(alive + 3 * busy)
            fault = self.random.choice(kinds)
            self.judge.counts[fault] += 1
            if fault == "kill":
                self.kill(process)
            elif fault in ("pause", "long pause"):
                process.paused = max(
                    process.paused,
                    self.time + self.random.uniform(*((0.5, 5.0) if fault == "pause" else (0.8 * LEASE, 2 * LEASE))),
                )
                process.unwell = process.paused
                theirs = [kernel.run for kernel in self.judge.kernels if kernel.process is process]
                if theirs and self.random.random() < 0.5:  # which it cannot notice
                    self.spawn(None, self._cancel, self.random.choice(theirs))
            elif fault == "jump":
                process.ahead = self.random.choice(JUMPS)
            elif fault == "cut":
                process.cut = self.time + self.random.uniform(0.5 * LEASE, 2.5 * LEASE)
            elif fault == "slow":
                process.slow = self.time + self.random.uniform(0.5 * LEASE, 2.5 * LEASE)
                process.unwell = process.slow + 12.0
            elif fault == "outage":
                self.down = self.time + self.random.choice((2.0, 6.0, 20.0))
            elif fault == "cancel" and self.judge.kernels:
                self.spawn(None, self._cancel, self.random.choice(self.judge.kernels).run)
            elif fault == "drain":
                self.spawn(process, self._drain, process, self.random.uniform(0.0, 6.0))

    def _drain(self, process: Process, grace: float) -> None:
        if not hasattr(process, "dispatcher"):
            return
        dispatcher = process.dispatcher
        dispatcher.stopping.set()
        self.sleep(grace, process)
        dispatcher.hand_back()
        while dispatcher.under_way:
            self.sleep(0.5, process)
        dispatcher.leave()
        self._end(process)

    def heal(self) -> None:
        self.faulty, self.down = False, 0.0
        for process in self.processes:
            process.ahead = process.cut = process.slow = 0.0

    # -- the whole story ----------------------------------------------------------------------------------------------

    def play(self) -> Counter[str]:
        first = EPOCH + timedelta(seconds=EVERY)
        schedule = Schedule(
            every=EVERY,
            anchor=EPOCH,
            next=first,
            catch_up=self.random.choice(list(CatchUp)),
            catch_up_limit=5,
            overlap=self.random.choice((Overlap.SKIP, Overlap.QUEUE, Overlap.ALLOW)),
        )
        nightly = Deployment(
            name="nightly", notebook="/n.ipynb", snapshot="digest", parameters={"seconds": 1.0}, schedule=schedule
        )
        self.store.deploy(nightly, TEXT, now=EPOCH)
        narrow = Deployment(name="narrow", notebook="/n.ipynb", snapshot="digest", policy=Policy(max_concurrent=WIDTH))
        self.store.deploy(narrow, TEXT, now=EPOCH)
        for _ in range(self.random.choice((1, 2, 3, 4))):
            self.start()
        for number in range(self.random.randint(3, 14)):
            self.spawn(None, self._later, self.random.uniform(0.0, 0.7 * FAULTS), self.submit, number)
        self.spawn(None, self.disturb)
        self.run_until(FAULTS)
        self.heal()
        self._count_firings(first)
        self.store.pause("nightly", now=self.wall())
        end = self.time + PATIENCE
        while self.unended() and self.time < end:
            self.run_until(self.time + 5.0)
            left = self.unended()
            waits = [run.available for run in left if run.available is not None]
            idle = all(run.state is State.PENDING for run in left)
            if waits and idle and not self.store.ready(["default"], now=self.wall(), limit=1):
                # A clock that was ahead has put them off.
                self.shift += max(0.0, (min(waits) - self.wall()).total_seconds())
        self.conclude()
        return self.judge.counts

    def _count_firings(self, first: datetime) -> None:
        schedule = self.store.deployment("nightly").schedule
        assert schedule is not None
        assert schedule.next is not None
        due = round((schedule.next - first).total_seconds() / EVERY)
        skipped = sum(skip.count for skip in self.store.skips("nightly", limit=100_000))
        started = [run.scheduled_for for run in self.store.runs(limit=100_000, deployment="nightly")]
        if len(set(started)) != len(started) or len(started) + skipped != due:
            raise Violation(f"{due} firings became {len(started)} runs and {skipped} skips")

    def _later(self, seconds: float, act: Callable[..., None], *args: Any) -> None:
        self.sleep(seconds)
        act(*args)

    def unended(self) -> list[Run]:
        return self.store.runs(limit=1000, states=(State.PENDING, State.RUNNING))

    def conclude(self) -> None:
        runs = {run.id: run for run in self.store.runs(limit=100_000)}
        lost = self.accepted - set(runs)
        if lost:
            raise Violation(f"accepted and lost: {sorted(lost)}")
        roots = [run for run in runs.values() if run.parent is None]
        if unexpected := {run.id for run in roots if run.scheduled_for is None} - self.asked:
            raise Violation(f"nobody asked for {sorted(unexpected)}")
        if unended := self.unended():
            raise Violation(f"not ended {PATIENCE:g} s after the last fault: {unended}")
        for run in runs.values():
            if run.attempt and run.state is not self.judge.states[run.id]:
                raise Violation(f"{run.id} is {run.state}, and was {self.judge.states[run.id]}")
            told = [
                event.to_json() for n in range(1, run.attempt + 1) for event in self.store.events(run.id, attempt=n)[1]
            ]
            if len(set(told)) < len(told):
                raise Violation(f"{run.id} has events twice: {told}")
            theirs = self.store.children(run.id)
            if run.state is State.SUCCEEDED and [child.state for child in theirs] != (
                [State.SUCCEEDED] * run.parameters.get("children", 0)
            ):
                raise Violation(f"{run.id} has succeeded, and its children: {[str(child.state) for child in theirs]}")
            if run.crashes > MAX_CRASHES:
                raise Violation(f"{run.id} was lost {run.crashes} times")
        self.judge.counts["runs"] += len(runs)
        self.judge.counts["succeeded"] += sum(run.state is State.SUCCEEDED for run in runs.values())


class _Line:
    """The store, as a process has it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: self._world.ask(self._process, name, args, options)


@contextmanager
def memory_store() -> Iterator[Store]:
    """A store on a file in memory, where the machine has such a place."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, Store.open(f"sqlite:///{folder}/flowkit.db") as store:
        yield store


def workplace(store: Store) -> Path:
    """Where its workers' files are: by run and attempt, which bear the same names in every world and every process."""
    assert store.url.database is not None
    return Path(store.url.database).parent / "work"


def simulate(seed: int, store: Store, **options: Any) -> Counter[str]:
    """One world, from its beginning to its end. Raises Violation."""
    with store.writing() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            connection.execute(table.delete())
    shutil.rmtree(workplace(store), ignore_errors=True)
    numbers = (f"fired{number:06}" for number in count())
    with mock.patch.object(model, "new_id", numbers.__next__):
        return World(seed, store, **options).play()


def main(first: int, last: int) -> int:
    logging.disable()
    total: Counter[str] = Counter()
    began = time.monotonic()
    broken = 0
    with memory_store() as store:
        for seed in range(first, last):
            try:
                total += simulate(seed, store)
            except Violation as violation:
                broken += 1
                print(f"seed {seed}: {violation}", flush=True)
    print(f"{last - first} seeds, {broken} broken, {time.monotonic() - began:.0f} s; {dict(total)}")
    return 1 if broken else 0


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    sys.exit(main(given[0], given[1] if len(given) > 1 else given[0] + 1))
