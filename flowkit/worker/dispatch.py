"""How a firing becomes a run, and a run its ending: tick, look, execute, rescue, prune, over a store.

Knows no queue library: whoever hears a message, or sweeps, calls ``look``.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from flowkit.artifacts import Artifacts, journal_path, notebook_path
from flowkit.errors import ScheduleError, StoreGone, Unavailable
from flowkit.events import Event
from flowkit.journal import read_notebook
from flowkit.model import Cause, CurrentRun, Deployment, Ending, Plan, Run, State, Worker, now
from flowkit.redaction import Redaction
from flowkit.store import MAX_CRASHES, Store
from flowkit.worker import cron, waits
from flowkit.worker.children import Children
from flowkit.worker.executed import mark_crashed
from flowkit.worker.kernel import Order, Stop, run_notebook
from flowkit.worker.limits import Desk, Limiter
from flowkit.worker.results import Results
from flowkit.worker.secrets import Keeper

if TYPE_CHECKING:
    # Handed in, if there is OpenTelemetry and somewhere to send to.
    from flowkit.worker.traces import Trace, Traces

log = logging.getLogger("flowkit.worker")

Ring = Callable[[Run], object]

Execute = Callable[..., Ending]  #: as ``run_notebook``

#: Seconds for which the ending of a run is offered to a store that does not answer. Its lease is over long before.
PERSIST = 120.0

#: The part of the lease after which a worker whose beats do not arrive stops its kernels: before others may take over.
FENCE = 2 / 3

#: Seconds between two looks for results in the cache that nobody may take any more.
EXPIRE = 3600.0

#: Notebooks of runs that a worker keeps at hand.
SNAPSHOTS = 8

#: Children of one batch for which other workers are rung. A worker that has one looks for the next by itself.
RINGS = 50

#: How long it is known which firings did not run.
SKIPS_KEPT = timedelta(days=90)
#: How long whoever follows the events of all runs may be away.
CHANGES_KEPT = timedelta(hours=6)
#: How long it is known who did what by HTTP.
ACTS_KEPT = timedelta(days=90)
#: How long it is known who was told what.
NOTICES_KEPT = timedelta(days=90)
#: How long it is known of a day how a deployment's runs ended: a year, and what a calendar shows of the one before.
DAYS_KEPT = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class Clock:
    """The time, as one process has it. A simulation gives each of its processes another."""

    now: Callable[[], datetime] = now
    monotonic: Callable[[], float] = monotonic
    sleep: Callable[[float], None] = sleep


class Dispatcher:
    """What one worker process does with a store. ``look`` is called from several threads, the rest from one each."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        *,
        worker: Worker,
        ring: Ring,
        lease: float,
        folder: Path,
        keep: int = 0,
        execute: Execute = run_notebook,
        clock: Clock = Clock(),
        limiter: Limiter | None = None,
        traces: Traces | None = None,
    ) -> None:
        """
        Args:
            ring: told of every run that has become ready here.
            lease: seconds another worker's beat may stand still before its run is handed on.
            folder: run folders go here, and are gone when their attempt is over.
            keep: bytes of nodes' results to keep of one deployment.
            execute: what runs an order to its ending.
            limiter: answers nodes that share limits; None: nobody answers what a kernel asks.
            traces: is told what becomes of runs and nodes.
        """
        self.worker = worker
        self.stopping = threading.Event()  #: claim nothing more
        self.gone: StoreGone | None = None  #: there is nothing left to work for
        self.left = threading.Event()  #: the worker is gone; nothing beats any more
        self._store = store
        self._snapshot = lru_cache(maxsize=SNAPSHOTS)(store.snapshot)  # which never change
        self._artifacts = artifacts
        self._results = Results(artifacts, limit=keep)
        self._expired = clock.monotonic()
        self._ended: dict[tuple[str | None, str], Run] | None = None  # one of each deployment, since the last prune
        self._ring = ring
        self._lease = lease
        self._folder = folder
        self._mine: dict[tuple[str, int], _Attempt] = {}
        self._executing: list[_Attempt] = []
        self._beginning = threading.Lock()
        self._watched: dict[str, _Beat] = {}
        self._run_order = execute
        self._clock = clock
        self._limiter = limiter
        self._traces = traces
        store.enrol(worker)

    # -- firings ------------------------------------------------------------------------------------------------------

    def tick(self, at: datetime) -> None:
        """Make every firing that is due a run, or a skip. Every worker ticks: the store takes each firing once."""
        if not self._store.due(now=at, limit=1):
            return
        while not self.stopping.is_set():
            runs, skips = self._store.fire(lambda deployment: _plan(deployment, at), now=at)
            for skip in skips:
                since = skip.first.isoformat()
                log.info("%s: %d firings skipped (%s), from %s", skip.deployment, skip.count, skip.reason, since)
            for run in runs:
                assert run.scheduled_for is not None
                log.info("%s fired for %s: run %s", run.label, run.scheduled_for.isoformat(), run.id[:8])
                if run.available is None or run.available <= at:
                    self._ring(run)
            if not runs and not skips:
                return

    # -- runs ---------------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> int:
        return len(self._mine)

    def ready(self, at: datetime) -> int:
        """How many runs could be claimed now, up to as many as this worker has threads."""
        return self._store.ready(self.worker.queues, now=at, limit=self.worker.concurrency)

    def wake(self) -> None:
        """Let runs go on whose last child has ended without telling them."""
        self._store.wake()

    def look(self) -> None:
        """Claim and execute until nothing is to be had."""
        try:
            while not (self.stopping.is_set() or self._suspects()):
                asked = self._clock.monotonic()
                run = self._store.claim(self.worker.queues, self.worker.id, now=self._clock.now())
                if run is None:
                    return
                self._execute(run, asked)
        except Unavailable as error:
            log.warning("%s", error)
            self._clock.sleep(1.0)

    def _execute(self, run: Run, claimed: float) -> None:
        children = Children(
            run, self._store, self._snapshot, artifacts=self._artifacts.locate("").rstrip("/"), clock=self._clock.now
        )
        trace = None if self._traces is None else self._traces.attempt(run)
        attempt = _Attempt(run, self._store, children, self._ring, beaten=claimed, trace=trace)
        self._mine[run.id, run.attempt] = attempt
        log.info("run %s of %s: attempt %d began", run.id[:8], run.label, run.attempt)
        try:
            self._await_turn(attempt)
            ending = self._run_notebook(run, attempt)
            after = self._settle(run, attempt, ending)
            if attempt.trace is not None:
                attempt.trace.ended(ending, after, at=self._clock.now())
        finally:
            with self._beginning:
                del self._mine[run.id, run.attempt]
                if attempt in self._executing:
                    self._executing.remove(attempt)

    def _suspects(self) -> bool:
        """Whether one of ours may be what kills workers: then there is nothing else to be claimed."""
        return any(attempt.suspect for attempt in list(self._mine.values()))

    def _await_turn(self, attempt: _Attempt) -> None:
        """Until nothing else is executed here, if the run would fail should its worker be lost once more.

        Of all that is lost with a worker only one may be why. Those beside it would be lost with it each time.
        """
        if attempt.suspect and len(self._mine) > 1:
            log.info("run %s of %s: waits to be alone here", attempt.run.id[:8], attempt.run.label)
        while attempt.stop.reason is None:
            with self._beginning:
                if not self._executing or not (attempt.suspect or self._executing[0].suspect):
                    self._executing.append(attempt)
                    return
            self._clock.sleep(0.2)

    def _run_notebook(self, run: Run, attempt: _Attempt) -> Ending:
        path, journal = notebook_path(run.id, run.attempt), journal_path(run.id, run.attempt)
        folder = self._folder / f"{run.id}.{run.attempt}"
        beside = Path(run.notebook).parent

        def save(text: str) -> None:
            data = text.encode()
            output = self._artifacts.write(path, data)
            attempt.output = output, sha256(data).hexdigest()

        def grow(data: bytes, begins: bool) -> None:
            attempt.journal = True
            self._artifacts.append(journal, data, new=begins)

        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._results.order(folder)
            snapshot = self._ask_store(attempt, folder)
            if snapshot is None:
                return Ending(State.CANCELLED, None, attempt.stop.reason)
            redaction = Redaction()
            span = None if attempt.trace is None else str(attempt.trace.span)
            order = Order(
                notebook=snapshot,
                parameters=run.parameters,
                current=CurrentRun.of(run, span=span),
                traceparent=span or run.traceparent,
                kernel=run.policy.kernel,
                timeout=run.policy.timeout,
                cell_timeout=run.policy.cell_timeout,
                memory=run.policy.memory,
                # Where its data and modules lie, if this machine has that folder.
                cwd=beside if beside.is_dir() else folder,
                folder=folder,
                redaction=redaction,
            )
            keeper = Keeper(snapshot, run.parameters, redaction)
            with self._desk(folder, keeper):
                ending = self._run_order(
                    order,
                    on_events=attempt.record,
                    on_last=attempt.keep,
                    on_save=save,
                    on_growth=grow if self._artifacts.appends else None,
                    stop=attempt.stop,
                )
            if attempt.journal:  # all that it says is in what was saved last, so it does no harm where it stays
                with suppress(Unavailable):
                    self._artifacts.remove_files(*_split(journal))
            if ending.state is not State.CANCELLED and attempt.children.refused is not None:
                return Ending(State.FAILED, Cause.NOTEBOOK, attempt.children.refused)
            if ending.state is State.PENDING and not attempt.children.waiting:
                return Ending(State.FAILED, Cause.NOTEBOOK, "it ended as if to wait for children, and has none")
            if ending.state is State.SUCCEEDED and attempt.output is not None:
                place, digest = attempt.output
                if self._artifacts.digest(path) != digest:
                    error = f"the executed notebook {place} is not what was written there; see to that disk"
                    return Ending(State.FAILED, Cause.CRASHED, error)
            return ending
        except Exception as error:  # the one place where whatever went wrong becomes the run's ending
            log.exception("run %s of %s could not be executed", run.id[:8], run.label)
            return Ending(State.FAILED, Cause.CRASHED, f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _ask_store(self, attempt: _Attempt, folder: Path) -> str | None:
        """The notebook's text, with its children laid into the folder. None: the attempt is to stop.

        A store that is silent now is no failure of the run: it is waited for, until the lease has gone or it answers.
        """
        while True:
            try:
                attempt.children.lay(folder)
                return self._snapshot(attempt.run.snapshot)
            except Unavailable as error:
                log.warning("%s", error)
                if attempt.stop.reason is not None:
                    return None
                self._clock.sleep(1.0)

    def _desk(self, folder: Path, keeper: Keeper) -> AbstractContextManager[object]:
        limiter = self._limiter
        if limiter is None:
            return nullcontext()

        def answer(question: dict[str, Any]) -> dict[str, Any] | None:
            if "awaited" in question:
                return waits.answer(self._store, question)
            # What went wrong with a limited call is the notebook's word, and stored.
            return keeper.answer(question) if "secret" in question else limiter.answer(keeper.redacted(question))

        return Desk(folder, answer)

    def _settle(self, run: Run, attempt: _Attempt, ending: Ending) -> Run | None:
        """Tell the store how the attempt ended, for as long as anybody could still want to know. None: it did not take
        that."""
        if attempt.fenced and ending.state is State.CANCELLED:
            log.warning("run %s of %s: stopped, its beats did not reach the store", run.id[:8], run.label)
            return None  # as if this worker had died: whoever sees the beat stand still hands the run on
        until = self._clock.monotonic() + PERSIST
        while not attempt.lost:
            try:
                # An attempt that ended by itself while the worker was stopping has its ending.
                attempt.ask()
                if attempt.handed_back and ending.state is State.CANCELLED:
                    attempt.flush()
                    after = self._store.release(run.id, run.attempt, now=self._clock.now())
                    if after is not None:
                        how = "handed back" if after.state is State.PENDING else after.state
                        log.info("run %s of %s: %s", run.id[:8], run.label, how)
                    return after
                output, digest = attempt.output or (None, None)
                after = self._store.finish(
                    run.id,
                    run.attempt,
                    ending,
                    now=self._clock.now(),
                    what=attempt.unsaved,
                    after=attempt.stored,
                    output=output,
                    digest=digest,
                )
                if after is not None:
                    self._results.ended(after)
                    self._note_ended(after)
                    log.info("run %s of %s: %s", run.id[:8], run.label, _how(after, ending))
                    if after.state is State.PENDING and after.available is None and not after.waits:
                        self._ring(after)
                return after
            except StoreGone as error:
                self.abandon(error)
                return None
            except Unavailable as error:
                if self._clock.monotonic() > until:
                    log.error("run %s of %s: its ending was not recorded: %s", run.id[:8], run.label, error)
                    return None
                self._clock.sleep(1.0)
        log.info("run %s of %s: stopped, it was taken from this worker", run.id[:8], run.label)
        return None

    # -- leases -------------------------------------------------------------------------------------------------------

    def pulse(self) -> None:
        """Once a second: learn which runs are cancelled or no longer ours, and beat for those that are."""
        mine = list(self._mine.values())
        if not mine:
            return
        running = {(beat.run, beat.attempt): beat for beat in self._store.beats()}
        for attempt in mine:
            token = attempt.run.id, attempt.run.attempt
            ours = token in running
            if ours and running[token].cancelling:
                attempt.cancel()
            sent = self._clock.monotonic()
            if ours and sent - attempt.beaten >= self._lease / 3:
                ours = self._store.beat(*token)
                if ours:
                    attempt.beaten = sent
            if not ours and token in self._mine:
                attempt.lose()

    def fence(self) -> None:
        """Twice a second: stop the kernels of attempts whose beats no longer reach the store.

        From a thread of its own, and asking nobody: a call to a store that hangs may never return. The time of a beat
        is when it was sent, so whoever waits for the whole lease to pass finds the kernel gone.
        """
        for attempt in list(self._mine.values()):
            if self._clock.monotonic() - attempt.beaten >= self._lease * FENCE:
                attempt.fence()

    def abandon(self, gone: StoreGone) -> None:
        """Stop every kernel, tell nobody, claim nothing more."""
        self.gone = gone
        self.stopping.set()
        for attempt in list(self._mine.values()):
            attempt.fence()

    def rescue(self) -> None:
        """Hand on every run whose beat stood still for the lease, on *our own* monotonic clock.

        No wall clock is compared with another machine's: those leases lost runs in simulation when clocks jumped.
        """
        watched: dict[str, _Beat] = {}
        asked = self._clock.monotonic()
        beats = self._store.beats()
        told = self._clock.monotonic()  # from the first answer to the last question: neither may take from the lease
        for run, attempt, count, _ in beats:
            before = self._watched.get(run)
            same = before is not None and (before.attempt, before.count) == (attempt, count)
            watched[run] = before if before is not None and same else _Beat(attempt, count, told)
            if asked - watched[run].since >= self._lease and (run, attempt) not in self._mine:
                self._rescue(run, watched[run])
        self._watched = watched

    def _rescue(self, run: str, beat: _Beat) -> None:
        rescued = self._store.rescue(run, beat.attempt, beat.count, now=self._clock.now())
        if rescued is None:
            return
        self._note_ended(rescued)
        log.warning("run %s of %s: its worker is silent; %s", run[:8], rescued.label, rescued.state)
        path = notebook_path(run, beat.attempt)
        saved = read_notebook(self._artifacts, run, beat.attempt)
        if saved is not None:
            self._artifacts.write(path, mark_crashed(saved.decode(), "the worker died while it ran this").encode())
            self._artifacts.remove_files(*_split(journal_path(run, beat.attempt)))
        if self._traces is not None and (trace := self._traces.attempt(rescued)) is not None:
            _, events = self._store.events(run, attempt=beat.attempt, output=False)
            trace.lost(events, rescued, at=self._clock.now())

    # -- coming and going ---------------------------------------------------------------------------------------------

    def seen(self, at: datetime, *, dropped: int = 0) -> None:
        if not self._store.seen(self.worker.id, now=at, dropped=dropped):
            self._store.enrol(replace(self.worker, seen=at, dropped=dropped))

    def prune(self) -> None:
        """Forget the oldest runs beyond their deployment's retention, files first: a row without files can be pruned
        again, files without a row never would be.

        Only where a run has ended here since the last time; the first time and each hour of all deployments.
        """
        ended, self._ended = self._ended, {}
        try:
            self._prune(None if ended is None else list(ended.values()))
        except Unavailable:
            self._ended = None
            raise
        self._store.forget_skips(before=self._clock.now() - SKIPS_KEPT)
        self._store.forget_changes(before=self._clock.now() - CHANGES_KEPT)
        self._store.forget_acts(before=self._clock.now() - ACTS_KEPT)
        self._store.forget_notices(before=self._clock.now() - NOTICES_KEPT)
        self._store.forget_days(before=(self._clock.now() - DAYS_KEPT).date())
        for run in self._results.trim(self._store):
            log.info("forgot the kept results of run %s of %s: too many are kept of it", run.id[:8], run.label)
        if self._clock.monotonic() - self._expired >= EXPIRE:
            self._expired = self._clock.monotonic()
            self._results.expire(self._clock.now())
            self._ended = None

    def _prune(self, like: list[Run] | None) -> None:
        while runs := self._store.prunable(like=like):
            whole = self._store.whole([run.id for run in runs])
            if not whole:  # kernels below them are about to end
                return
            for id, theirs in whole.items():
                for one in (id, *theirs):
                    self._artifacts.remove(f"runs/{one}")
            self._store.forget(list(whole))
            log.info("forgot %d runs beyond their retention", len(whole))

    def _note_ended(self, run: Run) -> None:
        if run.state.final and run.parent is None and self._ended is not None:
            self._ended[run.deployment, run.notebook] = run

    def hand_back(self) -> None:
        """Stop what still runs; its attempts go back to the queue."""
        self.stopping.set()
        for attempt in list(self._mine.values()):
            attempt.hand_back()

    def wait(self, limit: float) -> None:
        """Until nothing is under way, or *limit* seconds are over.

        Not by joining the threads: one whose join was interrupted by Ctrl-C counts as ended in Python up to 3.12.
        """
        until = self._clock.monotonic() + limit
        while self._mine and self._clock.monotonic() < until:
            self._clock.sleep(0.05)

    def leave(self) -> None:
        self.left.set()
        try:
            self._store.leave(self.worker.id)
        except Unavailable as error:
            log.warning("%s", error)


class _Attempt:
    """A run this worker has claimed: its stop handle, and the events the store does not have yet."""

    def __init__(
        self, run: Run, store: Store, children: Children, ring: Ring, *, beaten: float, trace: Trace | None = None
    ) -> None:
        self.run = run
        self.children = children
        self.trace = trace
        self.suspect = run.crashes >= MAX_CRASHES - 1  #: it may be what its worker died of each time
        self.beaten = beaten  #: monotonic; when the last sign of life that the store took was sent
        self.fenced = False
        self.stop = Stop()
        #: where its notebook lies, and the SHA-256 of that, if the store does not know yet
        self.output: tuple[str, str] | None = None
        self.journal = False  #: its notebook has one
        self.lost = False  #: it is no longer ours
        self.handed_back = False
        self.unsaved: list[Event] = []
        self._store = store
        self._ring = ring
        self.stored = 0  #: events that came before the unsaved

    def record(self, events: Sequence[Event]) -> None:
        """Keep the events; those a silent store did not take go with the next ones."""
        self._hear(events)
        try:
            self.flush()
            self.ask()
        except Unavailable as error:
            log.warning("run %s: %d events wait: %s", self.run.id[:8], len(self.unsaved), error)

    def keep(self, events: Sequence[Event]) -> None:
        """The last ones, which go with the ending: one transaction less."""
        self._hear(events)

    def _hear(self, events: Sequence[Event]) -> None:
        self.unsaved.extend(self.children.heard(events))
        if self.trace is not None:
            self.trace.heard(events)

    def flush(self) -> None:
        if self.unsaved or self.output:
            output, digest = self.output or (None, None)
            told = self.run.id, self.run.attempt, self.unsaved
            self._store.record(*told, after=self.stored, output=output, digest=digest)
            self.stored += len(self.unsaved)
            self.unsaved, self.output = [], None

    def ask(self) -> None:
        """Have the store make the runs that nodes asked for."""
        for number, child in enumerate(self.children.ask()):
            if number < RINGS:
                self._ring(child)

    def cancel(self) -> None:
        self.stop.set("cancelled")

    def lose(self) -> None:
        """The store says that it is not ours any more."""
        self.lost = True
        self.stop.set("another worker has it", at_once=True)

    def fence(self) -> None:
        self.fenced = True
        self.stop.set("its worker cannot reach the store", at_once=True)

    def hand_back(self) -> None:
        self.handed_back = True
        self.stop.set("the worker stops")


@dataclass(frozen=True, slots=True)
class _Beat:
    attempt: int
    count: int
    since: float  #: on this process's monotonic clock: when it was first seen like this


def _split(path: str) -> tuple[str, list[str]]:
    folder, _, name = path.rpartition("/")
    return folder, [name]


def _plan(deployment: Deployment, at: datetime) -> Plan | None:
    try:
        return cron.plan(deployment, at)
    except ScheduleError as error:  # such as of a zone that this machine does not know: it must not stop the others
        log.error("%s cannot fire: %s", deployment.name, error)
        return None


def _how(run: Run, ending: Ending) -> str:
    if run.waits:
        return "waits for its children"
    if run.state is State.PENDING and run.available is None:
        return "goes on"
    if run.state is State.PENDING:
        return f"failed ({ending.error}); tried again at {run.available:%Y-%m-%d %H:%M:%S} UTC"
    return str(run.state) + (f" ({run.cause}: {run.error})" if run.cause else "")
