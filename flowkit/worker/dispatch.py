"""How a firing becomes a run, and a run its ending: tick, look, execute, rescue, prune, over a store.

Knows no queue library: whoever hears a message, or sweeps, calls ``look``.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep

from flowkit.artifacts import Artifacts, notebook_path
from flowkit.errors import Unavailable
from flowkit.events import Event
from flowkit.model import Cause, CurrentRun, Ending, Run, State, Worker, now
from flowkit.store import Store
from flowkit.worker import cron
from flowkit.worker.executed import mark_crashed
from flowkit.worker.kernel import Order, Stop, run_notebook

log = logging.getLogger("flowkit.worker")

Ring = Callable[[Run], None]

#: Seconds for which the ending of a run is offered to a store that does not answer. Its lease is over long before.
PERSIST = 120.0


class Dispatcher:
    """What one worker process does with a store. ``look`` is called from several threads, the rest from one each."""

    def __init__(
        self, store: Store, artifacts: Artifacts, *, worker: Worker, ring: Ring, lease: float, folder: Path
    ) -> None:
        """
        Args:
            ring: told of every run that has become ready here.
            lease: seconds another worker's beat may stand still before its run is handed on.
            folder: run folders go here, and are gone when their attempt is over.
        """
        self.worker = worker
        self.stopping = threading.Event()  #: claim nothing more
        self.left = threading.Event()  #: the worker is gone; nothing beats any more
        self._store = store
        self._artifacts = artifacts
        self._ring = ring
        self._lease = lease
        self._folder = folder
        self._mine: dict[str, _Attempt] = {}
        self._watched: dict[str, _Beat] = {}
        self._beaten = monotonic()
        store.enrol(worker)

    # -- firings ------------------------------------------------------------------------------------------------------

    def tick(self, at: datetime) -> None:
        """Turn every firing that is due into a run. Every worker ticks: the store lets each firing start one run."""
        for deployment in self._store.due(now=at):
            assert deployment.schedule is not None
            firing, following = cron.latest_due(deployment.schedule, at)
            run = Run.of(deployment, now=at, scheduled_for=firing)
            if self._store.fire(deployment, run, next=following):
                log.info("%s fired for %s: run %s", deployment.name, firing.isoformat(), run.id[:8])
                self._ring(run)

    # -- runs ---------------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        return len(self._mine)

    def ready(self, at: datetime) -> int:
        """How many runs could be claimed now, up to as many as this worker has threads."""
        return self._store.ready(self.worker.queues, now=at, limit=self.worker.concurrency)

    def look(self) -> None:
        """Claim and execute until nothing is to be had."""
        try:
            while not self.stopping.is_set():
                run = self._store.claim(self.worker.queues, self.worker.id, now=now())
                if run is None:
                    return
                self._execute(run)
        except Unavailable as error:
            log.warning("%s", error)
            self.stopping.wait(1.0)

    def _execute(self, run: Run) -> None:
        attempt = self._mine[run.id] = _Attempt(run, self._store)
        log.info("run %s of %s: attempt %d began", run.id[:8], run.label, run.attempt)
        try:
            self._settle(run, attempt, self._run_notebook(run, attempt))
        finally:
            del self._mine[run.id]

    def _run_notebook(self, run: Run, attempt: _Attempt) -> Ending:
        path = notebook_path(run.id, run.attempt)
        folder = self._folder / run.id / str(run.attempt)
        beside = Path(run.notebook).parent

        def save(text: str) -> None:
            attempt.output = self._artifacts.write(path, text.encode())

        try:
            folder.mkdir(parents=True, exist_ok=True)
            order = Order(
                notebook=self._store.snapshot(run.snapshot),
                parameters=run.parameters,
                current=CurrentRun.of(run),
                kernel=run.policy.kernel,
                timeout=run.policy.timeout,
                # Where its data and modules lie, if this machine has that folder.
                cwd=beside if beside.is_dir() else folder,
                folder=folder,
            )
            return run_notebook(order, on_events=attempt.record, on_save=save, stop=attempt.stop)
        except Exception as error:  # the one place where whatever went wrong becomes the run's ending
            log.exception("run %s of %s could not be executed", run.id[:8], run.label)
            return Ending(State.FAILED, Cause.CRASHED, f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _settle(self, run: Run, attempt: _Attempt, ending: Ending) -> None:
        """Tell the store how the attempt ended, for as long as anybody could still want to know."""
        until = monotonic() + PERSIST
        while attempt.lost is None:
            try:
                attempt.flush()
                # An attempt that ended by itself while the worker was stopping has its ending.
                if attempt.handed_back and ending.state is State.CANCELLED:
                    if self._store.release(run.id, run.attempt, now=now()):
                        log.info("run %s of %s: handed back", run.id[:8], run.label)
                    return
                after = self._store.finish(run.id, run.attempt, ending, now=now())
                if after is not None:
                    log.info("run %s of %s: %s", run.id[:8], run.label, _how(after, ending))
                    if after.state is State.PENDING and after.available is None:
                        self._ring(after)
                return
            except Unavailable as error:
                if monotonic() > until:
                    log.error("run %s of %s: its ending was not recorded: %s", run.id[:8], run.label, error)
                    return
                sleep(1.0)
        attempt.flush()  # the last words of a cancelled run; refused if another worker has it
        log.info("run %s of %s: stopped, %s", run.id[:8], run.label, attempt.lost)

    # -- leases -------------------------------------------------------------------------------------------------------

    def pulse(self) -> None:
        """Once a second: learn which runs are no longer ours (cancelled, or taken over), and beat for the others."""
        mine = list(self._mine.values())
        if not mine:
            return
        running = {(run, attempt) for run, attempt, _ in self._store.beats()}
        beat = monotonic() - self._beaten >= self._lease / 3
        if beat:
            self._beaten = monotonic()
        for attempt in mine:
            ours = (attempt.run.id, attempt.run.attempt) in running
            if ours and beat:
                ours = self._store.beat(attempt.run.id, attempt.run.attempt)
            if not ours and attempt.run.id in self._mine:
                attempt.lose(self._store.run(attempt.run.id))

    def rescue(self, at: float) -> None:
        """Hand on every run whose beat stood still for the lease, on *our own* monotonic clock (*at*, in seconds).

        No wall clock is compared with another machine's: those leases lost runs in simulation when clocks jumped.
        """
        watched: dict[str, _Beat] = {}
        for run, attempt, count in self._store.beats():
            before = self._watched.get(run)
            same = before is not None and (before.attempt, before.count) == (attempt, count)
            watched[run] = before if before is not None and same else _Beat(attempt, count, at)
            if at - watched[run].since >= self._lease and run not in self._mine:
                self._rescue(run, watched[run])
        self._watched = watched

    def _rescue(self, run: str, beat: _Beat) -> None:
        rescued = self._store.rescue(run, beat.attempt, beat.count, now=now())
        if rescued is None:
            return
        log.warning("run %s of %s: its worker is silent; %s", run[:8], rescued.label, rescued.state)
        path = notebook_path(run, beat.attempt)
        saved = self._artifacts.read(path)
        if saved is not None:
            self._artifacts.write(path, mark_crashed(saved.decode(), "the worker died while it ran this").encode())

    # -- coming and going ---------------------------------------------------------------------------------------------

    def seen(self, at: datetime) -> None:
        self._store.seen(self.worker.id, now=at)

    def prune(self) -> None:
        """Forget the oldest runs beyond their deployment's retention, files first: a row without files can be pruned
        again, files without a row never would be."""
        while runs := self._store.prunable():
            for run in runs:
                self._artifacts.remove(f"runs/{run.id}")
            self._store.forget([run.id for run in runs])
            log.info("forgot %d runs beyond their retention", len(runs))

    def hand_back(self) -> None:
        """Stop what still runs; its attempts go back to the queue."""
        self.stopping.set()
        for attempt in list(self._mine.values()):
            attempt.hand_back()

    def leave(self) -> None:
        self.left.set()
        try:
            self._store.leave(self.worker.id)
        except Unavailable as error:
            log.warning("%s", error)


class _Attempt:
    """A run this worker has claimed: its stop handle, and the events the store does not have yet."""

    def __init__(self, run: Run, store: Store) -> None:
        self.run = run
        self.stop = Stop()
        self.output: str | None = None
        self.lost: str | None = None  #: why it is no longer ours
        self.handed_back = False
        self._store = store
        self._unsaved: list[Event] = []

    def record(self, events: Sequence[Event]) -> None:
        """Keep the events; those a silent store did not take go with the next ones."""
        self._unsaved.extend(events)
        try:
            self.flush()
        except Unavailable as error:
            log.warning("run %s: %d events wait: %s", self.run.id[:8], len(self._unsaved), error)

    def flush(self) -> None:
        if self._unsaved or self.output:
            self._store.record(self.run.id, self.run.attempt, self._unsaved, output=self.output)
            self._unsaved = []

    def lose(self, now: Run) -> None:
        """The store says that it is not ours any more."""
        self.lost = "cancelled" if now.state is State.CANCELLED else "another worker has it"
        self.stop.set(self.lost)

    def hand_back(self) -> None:
        self.handed_back = True
        self.stop.set("the worker stops")


@dataclass(frozen=True, slots=True)
class _Beat:
    attempt: int
    count: int
    since: float  #: on this process's monotonic clock: when it was first seen like this


def _how(run: Run, ending: Ending) -> str:
    if run.state is State.PENDING:
        return f"failed ({ending.error}); tried again at {run.available:%H:%M:%S} UTC"
    return str(run.state) + (f" ({run.cause}: {run.error})" if run.cause else "")
