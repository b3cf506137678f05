"""The one reader of the store: asks twice a second what all open browsers together look at, and hands it out.

So fifty browsers on the same page cost the database as much as one, and none of them waits for another's question.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import Protocol

from flowkit.artifacts import Artifacts
from flowkit.changes import Comparison
from flowkit.errors import NotFound, Unavailable, UsageError
from flowkit.events import Event, fold
from flowkit.history import changed
from flowkit.model import LIVE, Limit, NodeRun, Run, State, Wait, Worker, now
from flowkit.store import Store

log = logging.getLogger("flowkit.server")

#: Runs on one page of the table.
PAGE = 200
#: So many runs of a state are counted at each look; of more, the page says that there are more.
MOST = 10_000
#: Seconds between two looks at the store: what happens shall be on the screen within one.
EVERY = 0.5
#: A store that takes long to answer rests as long again, up to so many seconds. Pages take more silence for an outage.
SELDOM = 2.0
#: Seconds that many requests of browsers are gathered before they are answered together.
GATHER = 0.02
#: Characters of a run's output that are kept for whoever looks at it: its end.
TAIL = 64_000


@dataclass(frozen=True, slots=True)
class View:
    """One page of the table of runs."""

    states: tuple[State, ...] = ()  #: empty for all
    deployment: str | None = None
    before: str | None = None  #: id of the run before the first; None for the newest


@dataclass(frozen=True, slots=True)
class Asked:
    """What a browser looks at."""

    view: View = View()
    run: str | None = None  #: id, or the beginning of one
    graph: bool = False  #: the run's graph is to be seen
    changes: bool = False  #: what changed since the last success before the run
    turns: tuple[int, int] = (0, 0)  #: how often it has turned to another page, and to another run


@dataclass(frozen=True, slots=True)
class Overview:
    counts: dict[State, int]  #: no state's is more than ``MOST``
    depth: dict[str, int]  #: runs waiting, by queue
    workers: list[Worker]  #: alive
    deployments: list[str]  #: names
    closed: list[Limit]  #: limits that nodes share, after too many failures


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a run's log."""

    place: int  #: counts from 1 within the attempt, without a gap
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A run that somebody looks at: what its newest attempt has recorded so far."""

    run: Run
    nodes: list[NodeRun] = field(default_factory=list)
    wait: Wait | None = None  #: why it is not claimed
    log: list[Output] = field(default_factory=list)  #: its end
    position: int = 0  #: of the store's events
    steps: list[Event] = field(default_factory=list)  #: all events but output
    outputs: int = 0  #: pieces of output so far

    def read(self, store: Store, at: datetime) -> Followed:
        """As it is now; the same object if nothing has happened."""
        run = store.run(self.run.id)
        if run.attempt != self.run.attempt:
            return Followed(run).read(store, at)
        # Also after the end: what was recorded right before it comes with the next look.
        position, events = store.events(run.id, attempt=run.attempt, after=self.position)
        wait = store.wait(run, now=at)
        if run == self.run and not events and wait == self.wait:
            return self
        steps = self.steps + [event for event in events if event.kind != "output"]
        said = [event for event in events if event.kind == "output"]
        pieces = [Output(place, e.name, str(e.data)[-TAIL:]) for place, e in enumerate(said, start=self.outputs + 1)]
        return Followed(
            run=run,
            nodes=fold(steps, ended=run.state.final),
            wait=wait,
            log=_tail(self.log + pieces),
            position=position,
            steps=steps,
            outputs=self.outputs + len(pieces),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the store has found for one browser."""

    at: datetime
    asked: Asked
    overview: Overview | None = None  #: this and the rest: None if ``problem``
    runs: list[Run] | None = None
    more: bool = False  #: there are older runs than these
    followed: Followed | None = None
    changes: Comparison | str | None = None  #: since the last success; or why there is nothing to compare
    missing: str | None = None  #: why the run that was asked for is not there
    problem: str | None = None  #: why the store does not answer


class Viewer(Protocol):
    """A browser. ``asked`` is read, and ``show`` is called, in the reader's thread."""

    asked: Asked

    def show(self, seen: Seen) -> None: ...


class Reader:
    """Looks at the store in a thread of its own while there is a viewer."""

    def __init__(self, store: Store, artifacts: Artifacts, *, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._artifacts = artifacts
        self._clock = clock
        self._viewers: list[Viewer] = []
        self._followed: dict[str, Followed | NotFound] = {}
        self._before: dict[str, Run] = {}
        self._changes: dict[str, tuple[Run, Comparison | str]] = {}
        self._woken = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="flowkit-reader", daemon=True)
        self._thread.start()

    def add(self, viewer: Viewer) -> None:
        self._viewers.append(viewer)
        self.wake()

    def remove(self, viewer: Viewer) -> None:
        if viewer in self._viewers:
            self._viewers.remove(viewer)

    def wake(self) -> None:
        """A viewer looks at something else now: do not wait for the next second."""
        self._woken.set()

    def close(self) -> None:
        self._closed.set()
        self._woken.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        took = 0.0
        while not self._closed.is_set():
            if self._woken.wait(min(max(EVERY, took), SELDOM) if self._viewers else None):
                self._closed.wait(GATHER)
            self._woken.clear()
            viewers = list(self._viewers)
            if viewers and not self._closed.is_set():
                began = monotonic()
                self._look(viewers)
                took = monotonic() - began

    def _look(self, viewers: Sequence[Viewer]) -> None:
        at = self._clock()
        # Read once: a viewer may turn elsewhere meanwhile, and is answered what it asked when this look began.
        asked = [(viewer, viewer.asked) for viewer in viewers]
        try:
            overview = self._overview(at)
            pages = {view: self._page(view) for view in {question.view for _, question in asked}}
            self._follow({question.run for _, question in asked if question.run}, at)
        except Exception as error:  # whatever it is, the next time may be better; the page must not stand still
            if not isinstance(error, Unavailable):
                log.exception("the dashboard could not read the store")
            for viewer, question in asked:
                self._tell(viewer, Seen(at, question, problem=str(error)))
            return
        for viewer, question in asked:
            runs = pages[question.view]
            seen = Seen(at, question, overview, runs[:PAGE], more=len(runs) > PAGE)
            followed = self._followed[question.run] if question.run else None
            if isinstance(followed, NotFound):
                self._tell(viewer, replace(seen, missing=str(followed)))
            else:
                changes = self._compared(followed.run) if followed and question.changes else None
                self._tell(viewer, replace(seen, followed=followed, changes=changes))

    def _overview(self, at: datetime) -> Overview:
        store = self._store
        workers, closed = store.workers(since=at - LIVE), [limit for limit in store.limits() if limit.closed]
        return Overview(store.counts(most=MOST), store.depth(at), workers, store.deployment_names(), closed)

    def _page(self, view: View) -> list[Run]:
        """One more than a page holds, if there are more."""
        return self._store.runs(
            limit=PAGE + 1,
            before=self._run_before(view.before),
            deployment=view.deployment,
            states=view.states,
        )

    def _run_before(self, id: str | None) -> Run | None:
        """Only its place counts, which never changes. A run pruned meanwhile: the newest page."""
        if id is None:
            return None
        if id not in self._before:
            if len(self._before) > 1_000:
                self._before.clear()
            try:
                self._before[id] = self._store.run(id)
            except NotFound:
                return None
        return self._before[id]

    def _follow(self, ids: set[str], at: datetime) -> None:
        """*ids* as people give them: whole, or the beginning of one."""
        for gone in self._followed.keys() - ids:
            del self._followed[gone]
        for id in ids:
            known = self._followed.get(id)
            try:
                followed = known if isinstance(known, Followed) else Followed(self._store.run(id))
                self._followed[id] = followed.read(self._store, at)
            except NotFound as error:
                self._followed[id] = error

    def _compared(self, run: Run) -> Comparison | str | None:
        """Once for each run that has ended: neither it nor what came before it changes any more."""
        if not run.state.final:
            return "It has not ended yet."
        known = self._changes.get(run.id)
        if known is None or known[0] != run:
            if len(self._changes) > 100:
                self._changes.clear()
            try:
                found: Comparison | str = changed(self._store, self._artifacts, run)
            except (NotFound, UsageError) as error:
                found = str(error)
            except Unavailable as error:  # the next look may be luckier
                return str(error)
            known = self._changes[run.id] = run, found
        return known[1]

    def _tell(self, viewer: Viewer, seen: Seen) -> None:
        try:
            viewer.show(seen)
        except Exception:  # one browser's trouble is not the others'; its page notices the silence and loads again
            log.exception("a browser could not be told the news")
            self.remove(viewer)


def _tail(log: list[Output]) -> list[Output]:
    room = TAIL
    for kept, piece in enumerate(reversed(log)):
        room -= len(piece.text)
        if room < 0:
            return log[len(log) - kept :]
    return log
