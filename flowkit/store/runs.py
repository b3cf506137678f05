"""Runs: submitted, claimed, kept alive, ended; and read.

A worker's every write names the attempt it claimed, the fencing token: once the run has ended, was rescued or handed
back, the answer is False or None, and nothing has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from flowkit.errors import Conflict, NotFound, UsageError
from flowkit.events import Event
from flowkit.family import Family
from flowkit.model import Cause, Ending, Policy, Run, State, sources
from flowkit.store.database import Database
from flowkit.store.events import append_events
from flowkit.store.limits import Closed, find_shut, hold_limits, take
from flowkit.store.schema import is_in, runs
from flowkit.store.series import pass_on, places
from flowkit.store.snapshots import keep_family, keep_snapshot
from flowkit.store.tree import OPEN, PARKED, WAITS, below, wake, wake_all

#: A run that was lost with its worker so many times is the likely killer, and fails.
MAX_CRASHES = 3

#: Seconds before a run that was lost with its worker is tried again; doubles each time.
CRASH_BACKOFF = 1.0

#: The longest wait between two attempts, in seconds: doubling soon leaves the calendar.
LONGEST_BACKOFF = 86_400.0

#: Fewer characters of an id name no run.
SHORTEST_PREFIX = 4


#: The states a run can have; a node can also be skipped.
RUN_STATES = tuple(state for state in State if state is not State.SKIPPED)


#: By what runs can be ordered.
ORDERED: Mapping[str, sa.ColumnElement[Any]] = {
    "name": sa.func.coalesce(runs.c.name, runs.c.deployment, runs.c.notebook),
    "notebook": runs.c.notebook,
    "state": runs.c.state,
    "created": runs.c.created,
    "started": runs.c.started,
    "finished": runs.c.finished,
}

Statement = TypeVar("Statement", sa.Update, sa.Select[Any])


class Place(NamedTuple):
    """Where a run stands among all, by when it was submitted; whether it is there (any more) or not."""

    created: datetime
    id: str


class Beat(NamedTuple):
    """What a running run's row says of it."""

    run: str
    attempt: int
    number: int  #: how often the attempt has said that it lives
    cancelling: bool


class Runs(Database):
    # A run's life, in order.

    def submit(self, run: Run, snapshot: str | None = None, family: Family | None = None) -> tuple[Run, bool]:
        """Store a new run, pending, with as many attempts as its policy allows. True if it is new.

        A run whose key (or whose firing: deployment and ``scheduled_for``) is known already is not stored again; the
        answer is the known one and False.

        Args:
            snapshot: the notebook's text. None: the store has it already, as a deployment's.
            family: the run's, if the store does not have it already.

        Raises:
            Conflict: the key was given to a run of something else.
        """
        try:
            with self.writing() as connection:
                if snapshot is not None:
                    keep_snapshot(self, connection, run.snapshot, snapshot)
                if family is not None:
                    keep_family(self, connection, family)
                new = insert_run(self, connection, run)
                stored = _submitted(connection, run)
                if stored.key == run.key and (other := _difference(stored, run)):
                    raise Conflict(f"key {run.key!r} belongs to run {stored.id[:8]}, of {other}; take another key")
                return stored, new
        except sa.exc.IntegrityError as error:
            if "foreign key" not in str(error.orig).lower():
                raise
            hint = "submit the run with its text"
            raise UsageError(f"the store does not have the notebook {run.snapshot!r}; {hint}") from error

    def claim(self, queues: Sequence[str], worker: str, *, now: datetime) -> Run | None:
        """Take the best runnable run of these queues: highest priority, then oldest. Nobody else gets it.

        The run comes back running, with its attempt counted up. None: there is nothing to do now.
        """
        while True:
            # Another may have taken the last free place of a limit since we looked: then there is less to be had.
            with suppress(Overtaken), self.writing() as connection:
                return self._claim(connection, queues, worker, now)

    def _claim(self, connection: sa.Connection, queues: Sequence[str], worker: str, now: datetime) -> Run | None:
        limited, shut = find_shut(connection, now)
        closed = shut.names
        heads = _heads(tuple(queues), closed)
        if heads is None:
            return None
        for queue, lane in connection.execute(heads, {"at": now}).all():
            given = {"at": now, "by": worker, "from_queue": queue, "from_lane": lane}
            if not limited:
                row = connection.execute(_claim_best(closed), given).first()
            else:
                best = connection.execute(_best(closed, runs.c.id, runs.c.deployment), given).first()
                row = self._claim_within(connection, queue, best, given, now)
            if row is not None:
                return to_run(row)
        return None

    def _claim_within(
        self, connection: sa.Connection, queue: str, best: sa.Row[Any] | None, given: Mapping[str, Any], now: datetime
    ) -> sa.Row[Any] | None:
        """Claim it if that is within the limits of its queue and its deployment."""
        if best is None:
            return None
        limits = hold_limits(connection, queue, best.deployment, now)
        if limits is None:
            raise Overtaken
        held, room = limits
        row = connection.execute(_CLAIMED.where(runs.c.id == best.id, *room), given).first()
        if row is None:
            raise Overtaken
        take(self, connection, held, now)
        return row

    def beat(self, run: str, attempt: int) -> bool:
        """Say that the attempt lives. False: the run is no longer ours, stop it."""
        ours = _mine(sa.update(runs), run, attempt).values(beat=runs.c.beat + 1)
        with self.writing() as connection:
            return connection.execute(ours).rowcount == 1

    def finish(
        self,
        run: str,
        attempt: int,
        ending: Ending,
        *,
        now: datetime,
        what: Sequence[Event] = (),
        after: int | None = None,
        output: str | None = None,
        digest: str | None = None,
    ) -> Run | None:
        """End the attempt, when nothing of its kernel lives any more. None: it is no longer ours.

        One that has children which have not ended does not succeed: it waits for them, as one does that ends
        ``pending``. That uses up none of its retries. One that fails for good cancels them.

        Its last words, as those of ``record``, are stored with its ending or not at all.

        A failed attempt is retried unless it was the last one or could not begin (cause ``setup``); the first retry
        waits the policy's backoff, each further one twice as long. A run that somebody has cancelled meanwhile is
        cancelled, however the attempt ended; one whose cancel was taken back waits again.
        """
        if ending.state is State.RUNNING:
            raise ValueError(f"an attempt does not end {ending.state}")
        last = {} if output is None else {"output": output, "digest": digest}
        with self.writing() as connection:
            if ending.state is State.SUCCEEDED:  # nearly always: one statement
                moved = _move(State.SUCCEEDED).where(~runs.c.cancelling, ~WAITS)
                moved = moved.values(cause=None, error=None, finished=now, **last)
                row = connection.execute(_mine(moved, run, attempt).returning(runs)).first()
                if row is not None:
                    append_events(self, connection, run, attempt, what, after)
                    return _ended(connection, row, now)
            found = _run(connection.execute(_mine(sa.select(runs), run, attempt).with_for_update()).first())
            if found is None:
                return None
            append_events(self, connection, run, attempt, what, after)
            waits = bool(connection.execute(sa.select(WAITS).where(runs.c.id == run)).scalar())
            values: dict[str, Any] = {"cause": ending.cause, "error": ending.error}
            if found.cancelling:
                moved = _move(State.CANCELLED).values(finished=now)
            elif ending.state is State.CANCELLED:  # which somebody has taken back meanwhile
                moved = _move(State.PENDING).values(last_attempt=runs.c.last_attempt + 1)
            elif ending.state is State.PENDING or (ending.state is State.SUCCEEDED and waits):
                place = PARKED if waits else None  # the last of them may have ended meanwhile
                moved = _move(State.PENDING).values(last_attempt=runs.c.last_attempt + 1, place=place)
            elif ending.state is State.SUCCEEDED:  # that too, between these two statements
                moved = _move(State.SUCCEEDED).values(cause=None, error=None, finished=now)
            elif found.attempt < found.last_attempt and ending.cause is not Cause.SETUP:
                available = now + _retry_wait(found)
                retry_below(connection, run, available=available)
                waiting = sa.case((WAITS, PARKED), else_=None)
                moved = _move(State.PENDING).values(**values, available=available, place=waiting)
            else:
                moved = _move(State.FAILED).values(**values, finished=now)
            ended = _mine(moved.values(**last), run, attempt).returning(runs)
            return _ended(connection, connection.execute(ended).first(), now)

    def release(self, run: str, attempt: int, *, now: datetime) -> Run | None:
        """Hand the run back, to be claimed at once: its worker stops. The attempt uses up none of its retries.

        One that somebody has cancelled is cancelled. None: it is no longer ours.
        """
        with self.writing() as connection:
            found = _run(connection.execute(_mine(sa.select(runs), run, attempt).with_for_update()).first())
            if found is None:
                return None
            if found.cancelling:
                moved = _move(State.CANCELLED).values(finished=now)
            else:
                moved = _move(State.PENDING).values(last_attempt=runs.c.last_attempt + 1)
            return _ended(connection, connection.execute(_mine(moved, run, attempt).returning(runs)).first(), now)

    def beats(self) -> list[Beat]:
        """Of every running run."""
        columns = runs.c.id, runs.c.attempt, runs.c.beat, runs.c.cancelling
        with self.reading() as connection:
            rows = connection.execute(sa.select(*columns).where(is_in(State.RUNNING)))
            return [Beat(*row) for row in rows]

    def rescue(self, run: str, attempt: int, beat: int, *, now: datetime) -> Run | None:
        """Take the run from a worker that has not said a word since *beat*. None: it did, or somebody was faster.

        It is tried again a little later; that was not the notebook's fault and uses up no retry. But a run that is
        lost ``MAX_CRASHES`` times fails: it may be what kills the workers. One that somebody has cancelled is
        cancelled: a silent worker has stopped its kernels itself.
        """
        with self.writing() as connection:
            silent = _mine(sa.select(runs), run, attempt).where(runs.c.beat == beat).with_for_update()
            found = _run(connection.execute(silent).first())
            if found is None:
                return None
            crashes = found.crashes + 1
            error = f"attempt {attempt} was lost with its worker {found.worker}"
            values = {"crashes": crashes, "cause": Cause.CRASHED.value, "error": error}
            if found.cancelling:
                moved = _move(State.CANCELLED).values(crashes=crashes, finished=now)
            elif crashes >= MAX_CRASHES:
                values["error"] = f"{error}; {crashes} attempts were lost so, and it is not tried again"
                moved = _move(State.FAILED).values(**values, finished=now)
            else:
                wait = timedelta(seconds=CRASH_BACKOFF * 2**found.crashes)
                moved = _move(State.PENDING).values(
                    **values, available=now + wait, last_attempt=runs.c.last_attempt + 1
                )
            return _ended(connection, connection.execute(_mine(moved, run, attempt).returning(runs)).first(), now)

    def cancel(self, run: str, *, now: datetime) -> Run:
        """Cancel a run that has not ended, and all below it: at once if it waits. One that runs is ``cancelling``,
        again if it was already, until its worker, which looks each second, has ended its kernel."""
        return self._by_hand(run, _cancelled(now), "cancelled", now)

    def retry(self, run: str, *, now: datetime) -> Run:
        """Run a failed or cancelled run again, at once, with all its retries; attempts go on counting.

        Of its children those that failed or were cancelled are run again, and it waits for them.
        """
        with self.reading() as connection:
            found = _run(connection.execute(sa.select(runs).where(runs.c.id == run)).first())
        if found is None:
            raise _no_run(run)
        return self._by_hand(run, retry_run(found), "retried", now, series=found.series)

    def _by_hand(self, run: str, moved: sa.Update, verb: str, now: datetime, *, series: str | None = None) -> Run:
        """Raises: NotFound; Conflict if the run's state does not allow it."""
        with self.writing() as connection:
            if series is not None:
                [place] = places(connection, series, 1)
                moved = moved.values(place=place)
            row = connection.execute(moved.where(runs.c.id == run).returning(runs)).first()
            if row is not None and row.cancelling:
                cancel_below(connection, run, now=now)
            elif row is not None and State(row.state) is State.PENDING:
                retry_below(connection, run)
                row = connection.execute(park([run]).returning(runs)).first() or row
            after = _ended(connection, row, now)
            if after is not None:
                return after
            found = _run(connection.execute(sa.select(runs).where(runs.c.id == run)).first())
        if found is None:
            raise _no_run(run)
        allowed = "only a pending or running" if verb == "cancelled" else "only a failed or cancelled"
        state = "being cancelled" if found.cancelling else found.state
        raise Conflict(f"run {run[:8]} is {state}; {allowed} run can be {verb}")

    # Its children.

    def ask(
        self,
        run: str,
        attempt: int,
        children: Sequence[Run],
        *,
        texts: Mapping[str, str],
        families: Sequence[Family] = (),
    ) -> list[Run] | None:
        """Have these runs made, children of this one, unless they are there already; which are new.

        None: the run is no longer ours, or somebody has cancelled it, and nothing was made.

        Args:
            texts: of their notebooks, by digest.
            families: of those that have one, without texts.
        """
        with self.writing() as connection:
            ours = _mine(sa.select(runs.c.id), run, attempt).where(~runs.c.cancelling).with_for_update()
            if connection.execute(ours).first() is None:
                return None
            for digest in sorted(texts):
                keep_snapshot(self, connection, digest, texts[digest])
            for family in families:
                keep_family(self, connection, family)
            new = insert_runs(self, connection, [(child, None) for child in children])
            return [child for child in children if child.id in new]

    def children(self, run: str) -> list[Run]:
        """In the order in which they were asked for."""
        query = sa.select(runs).where(runs.c.parent == run).order_by(runs.c.created, runs.c.id)
        with self.reading() as connection:
            return [to_run(row) for row in connection.execute(query)]

    def wake(self) -> None:
        """Let go on whoever waits for children that have all ended. Nearly always their last child has done so."""
        parked = sa.select(runs.c.id).where(runs.c.place < 0).limit(1)
        with self.reading() as connection:
            if connection.execute(parked).first() is None:
                return
        with self.writing() as connection:
            wake_all(connection)

    # Reading.

    def run(self, id: str) -> Run:
        """By its whole id, or by the beginning of one (at least four characters) that fits no other run."""
        with self.reading() as connection:
            found = _run(connection.execute(sa.select(runs).where(runs.c.id == id)).first())
            if found is not None:
                return found
            if len(id) < SHORTEST_PREFIX:
                raise NotFound(f"{id!r} names no run; give its id, or at least its first {SHORTEST_PREFIX} characters")
            # Not LIKE: it has wildcards, and no use of the index under most locales.
            prefixed = sa.select(runs).where(runs.c.id >= id.lower(), runs.c.id < id.lower() + "\U0010ffff")
            some = connection.execute(prefixed.order_by(runs.c.id).limit(3)).all()
        if not some:
            raise _no_run(id)
        if len(some) > 1:
            names = ", ".join(row.id for row in some[:2])
            raise NotFound(f"more than one run begins with {id!r} ({names}{', …' * (len(some) > 2)}); give more of it")
        return to_run(some[0])

    def runs(
        self,
        *,
        limit: int = 50,
        before: Run | Place | None = None,
        deployment: str | None = None,
        states: Iterable[State] = (),
        queue: str | None = None,
        notebook: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Run]:
        """Newest first, by when they were submitted.

        Args:
            before: go on after this one, the last of the page before.
            deployment: only its runs.
            states: only runs in one of these; empty for all.
            notebook: only runs of the notebook with this path.
            since: only those submitted then or later; *until*: before.
        """
        which = []
        if queue is not None:
            which.append(runs.c.queue == queue)
        if notebook is not None:
            which.append(runs.c.notebook == notebook)
        if since is not None:
            which.append(runs.c.created >= since)
        if until is not None:
            which.append(runs.c.created < until)
        if before is not None:
            created = sa.bindparam(None, before.created, runs.c.created.type)
            which.append(sa.tuple_(runs.c.created, runs.c.id) < sa.tuple_(created, before.id))
        if deployment is not None:
            which.append(runs.c.deployment == deployment)
        wanted = set(states)
        if deployment is not None:
            wanted = wanted or set(RUN_STATES)
        query = newest(*which, states=sorted(wanted), limit=limit)
        with self.reading() as connection:
            return [to_run(row) for row in connection.execute(query)]

    def page(
        self,
        *,
        offset: int,
        limit: int,
        order: Sequence[tuple[str, bool]] = (),
        deployment: str | None = None,
        notebook: str | None = None,
        states: Iterable[State] = (),
        named: str | None = None,
        started: datetime | None = None,
    ) -> tuple[list[Run], int]:
        """Some of the runs in any order, and how many there are of them in all. ``runs`` is faster where it will do.

        Args:
            order: columns of ``ORDERED``, and whether the greatest comes first; among equals the newest.
            notebook: only runs of the notebook with this path.
            named: only those whose name begins so.
            started: only those that started then or later.
        """
        conditions = []
        if deployment is not None:
            conditions.append(runs.c.deployment == deployment)
        if notebook is not None:
            conditions.append(runs.c.notebook == notebook)
        if wanted := [state.value for state in states]:
            conditions.append(runs.c.state.in_(wanted))
        if named is not None:
            conditions.append(sa.func.substr(ORDERED["name"], 1, len(named)) == named)
        if started is not None:
            conditions.append(runs.c.started >= started)
        by = [ORDERED[name].desc() if descending else ORDERED[name].asc() for name, descending in order]
        query = sa.select(runs).where(*conditions).order_by(*by, runs.c.created.desc(), runs.c.id.desc())
        with self.reading() as connection:
            total = connection.execute(sa.select(sa.func.count()).select_from(runs).where(*conditions)).scalar_one()
            rows = connection.execute(query.offset(offset).limit(limit)).all()
        return [to_run(row) for row in rows], total

    def counts(self, *, most: int | None = None) -> dict[State, int]:
        """How many runs there are in every state a run can have, zeros included.

        Args:
            most: no more than that are counted of each state. None: all, which of a million takes a tenth of a second.
        """
        some = {state: sa.select(runs.c.id).where(is_in(state)).limit(most).subquery() for state in RUN_STATES}
        counts = [sa.select(sa.func.count()).select_from(found).scalar_subquery() for found in some.values()]
        with self.reading() as connection:
            return dict(zip(some, connection.execute(sa.select(*counts)).one(), strict=True))

    def tally(self, *, under_way: bool = False) -> dict[tuple[str | None, State], int]:
        """How many runs there are of each deployment, None for those of none, and in each state.

        Args:
            under_way: only those that wait or run, which are few. All of a million take a tenth of a second.
        """
        columns = runs.c.deployment, runs.c.state, sa.func.count()
        query = sa.select(*columns).group_by(runs.c.deployment, runs.c.state)
        queries = [query.where(is_in(state)) for state in (State.PENDING, State.RUNNING)] if under_way else [query]
        with self.reading() as connection:
            rows = [row for query in queries for row in connection.execute(query)]
        return {(name, State(state)): many for name, state, many in rows}

    def depth(self, now: datetime) -> dict[str, int]:
        """How many runs wait in each queue that has any: runnable ones and those not available yet."""
        waiting = is_in(State.PENDING)
        query = sa.select(runs.c.queue, sa.func.count()).where(waiting).group_by(runs.c.queue).order_by(runs.c.queue)
        with self.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def ready(self, queues: Sequence[str], *, now: datetime, limit: int) -> int:
        """How many runs of these queues could be claimed now; no more than *limit* are counted."""
        with self.reading() as connection:
            count = _count_ready(tuple(queues), find_shut(connection, now)[1].names, limit)
            return 0 if count is None else min(limit, int(connection.execute(count, {"at": now}).scalar() or 0))


def newest(*which: sa.ColumnElement[bool], states: Sequence[State], limit: int, offset: int = 0) -> sa.Select[Any]:
    """Rows of the newest of these runs, newest first. *states*: only of runs in one of these; empty for all."""
    found = newest_places(*which, states=states, limit=limit, offset=offset).subquery()
    first = runs.c.created.desc(), runs.c.id.desc()
    return sa.select(runs).join(found, runs.c.id == found.c.id).order_by(*first)


def newest_places(
    *which: sa.ColumnElement[bool], states: Sequence[State], limit: int, offset: int = 0, whole: bool = False
) -> sa.Select[Any]:
    """The same, of which an index knows all: ``id`` and ``created``; or *whole* rows, each read as its turn comes."""
    first = runs.c.created.desc(), runs.c.id.desc()
    columns = list(runs.c) if whole else [runs.c.id, runs.c.created]
    some = sa.select(*columns).where(*which).order_by(*first)
    if states:
        # The index keeps the runs of one state in order, not those of several: the newest of each, and then of all.
        each = [some.where(is_in(state)).limit(offset + limit).subquery() for state in states]
        of_any = sa.union_all(*(sa.select(one) for one in each)).subquery()
        some = sa.select(of_any).order_by(of_any.c.created.desc(), of_any.c.id.desc())
    return some.limit(limit).offset(offset)


def insert_run(database: Database, connection: sa.Connection, run: Run) -> bool:
    """A new pending row; False if its key or its firing is there already."""
    return bool(insert_runs(database, connection, [(run, None)]))


def insert_runs(database: Database, connection: sa.Connection, new: Sequence[tuple[Run, int | None]]) -> set[str]:
    """Pending rows, each with its place in the line of its series; the ids of those that were not there already."""
    rows = [_row(run) | {"place": place} for run, place in new]
    if not rows:
        return set()
    statement = database.insert(runs).on_conflict_do_nothing().returning(runs.c.id)
    return set(connection.execute(statement, rows).scalars())


def _row(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in _SUBMITTED} | {
        "policy": asdict(run.policy),
        "parameters": dict(run.parameters),
        "queue": run.policy.queue,
        "lane": lane_of(run.deployment, run.policy),
        "priority": run.policy.priority,
        "state": State.PENDING,
        "attempt": 0,
        "last_attempt": 1 + run.policy.retries,
        "crashes": 0,
        "beat": 0,
        "cancelling": False,
    }


def lane_of(deployment: str | None, policy: Policy) -> str:
    """In which lane of its queue a run waits: those of a limited deployment in one of their own.

    So a claim passes over all of them at once when the limit is reached. It holds back nobody and lets nobody pass;
    that the limits do.
    """
    limited = policy.max_concurrent is not None or policy.rate is not None
    return deployment if limited and deployment is not None else ""


def cancel_runs(connection: sa.Connection, which: sa.ColumnElement[bool], *, now: datetime) -> int:
    """Cancel them all as ``Runs.cancel`` does, and let those have their turn that wait for them. How many there were,
    without those that somebody had cancelled already."""
    rows = connection.execute(_cancelled(now).where(which, ~runs.c.cancelling).returning(runs)).all()
    for row in rows:
        if row.cancelling:
            cancel_below(connection, row.id, now=now)
        _ended(connection, row, now)
    return len(rows)


def cancel_below(connection: sa.Connection, run: str, *, now: datetime) -> None:
    """Cancel all below it that has not ended."""
    theirs = sa.select(below(run, OPEN).c.id)
    connection.execute(_cancelled(now).where(runs.c.id.in_(theirs), ~runs.c.cancelling))


def retry_below(connection: sa.Connection, run: str, *, available: datetime | None = None) -> None:
    """Run again what failed or was cancelled of its children, and of theirs.

    Args:
        available: not before then; None: at once.
    """
    ended = sa.or_(is_in(State.FAILED), is_in(State.CANCELLED))
    theirs = sa.select(below(run, sa.or_(ended, runs.c.cancelling)).c.id)
    connection.execute(keep_on(runs.c.id.in_(theirs)))
    again = [to_run(row) for row in connection.execute(sa.select(runs).where(ended, runs.c.id.in_(theirs))).all()]
    for child in again:
        connection.execute(retry_run(child).values(available=available))
    for start in range(0, len(again), 500):  # no database takes any number of values
        connection.execute(park([child.id for child in again[start : start + 500]]))


def park(ids: Sequence[str]) -> sa.Update:
    """Have those of these pending runs wait that have children which have not ended."""
    this = runs.c.id.in_(ids), is_in(State.PENDING), runs.c.place.is_(None)
    return sa.update(runs).where(*this, WAITS).values(place=PARKED)


def retry_run(run: Run) -> sa.Update:
    """Run it again, if it failed or was cancelled."""
    again = _move(State.PENDING, but_from=State.RUNNING).where(runs.c.id == run.id)
    attempts = runs.c.attempt + 1 + run.policy.retries
    return again.values(last_attempt=attempts, crashes=0, finished=None, available=None, place=None)


def keep_on(which: sa.ColumnElement[bool]) -> sa.Update:
    """Take back the cancel of runs under way. One whose kernel was told to end already is run again."""
    cancelling = runs.c.state == State.RUNNING.value, runs.c.cancelling
    return sa.update(runs).where(which, *cancelling).values(cancelling=False)


def to_run(row: sa.Row[Any] | Mapping[str, Any]) -> Run:
    pairs = dict(row if isinstance(row, Mapping) else row._mapping)
    del pairs["queue"], pairs["lane"], pairs["priority"], pairs["beat"]
    place = pairs.pop("place")
    return Run(
        **pairs
        | {
            "waits": place is not None and place < 0 and pairs["state"] == State.PENDING.value,
            "policy": to_policy(pairs["policy"]),
            "state": State(pairs["state"]),
            "cause": None if pairs["cause"] is None else Cause(pairs["cause"]),
        }
    )


def to_policy(pairs: dict[str, Any]) -> Policy:
    """Unknown keys are ignored: a newer flowkit may have written them."""
    return Policy(**{name: pairs[name] for name in Policy.__slots__ if name in pairs})


#: What a run brings along; the rest is its life, which begins here.
_SUBMITTED = (
    "id",
    "key",
    "deployment",
    "version",
    "notebook",
    "snapshot",
    "commit",
    "created",
    "scheduled_for",
    "zone",
    "available",
    "series",
    "name",
    "family",
    "parent",
)


def _submitted(connection: sa.Connection, run: Run) -> Run:
    """The row of the run's key, or of its firing: the one just inserted, or the one that stood in its way."""
    row = connection.execute(sa.select(runs).where(runs.c.key == run.key)).first()
    if row is None and run.deployment is not None and run.scheduled_for is not None:
        firing = runs.c.deployment == run.deployment, runs.c.scheduled_for == run.scheduled_for
        row = connection.execute(sa.select(runs).where(*firing)).first()
    if row is None:
        raise Conflict(f"there is another run with the id {run.id!r}; give each run an id of its own")
    return to_run(row)


def _difference(stored: Run, wanted: Run) -> str | None:
    """What makes these two requests not the same one: a key repeated is for the same work, whatever its queue now."""
    told = {"deployment": "another deployment", "snapshot": "another notebook", "parameters": "other parameters"}
    for name, difference in told.items():
        before, after = (json.dumps(getattr(run, name), sort_keys=True, default=dict) for run in (stored, wanted))
        if before != after:  # as text: NaN equals itself there, and 1 is not True
            return difference
    return None


def _run(row: sa.Row[Any] | None) -> Run | None:
    return None if row is None else to_run(row)


def _ended(connection: sa.Connection, row: sa.Row[Any] | None, now: datetime) -> Run | None:
    """The run that may just have ended. Then the next of its series takes its turn, unless this one stood in line
    itself; what is left of its children is cancelled, and its parent goes on if it was the last child."""
    found = _run(row)
    if row is None or found is None or not found.state.final:
        return found
    if found.series and (row.place is None or row.place < 0):
        pass_on(connection, found.series)
    if found.state is not State.SUCCEEDED and found.attempt:
        cancel_below(connection, found.id, now=now)
    if found.parent is not None:
        wake(connection, found.parent)
    return found


def _move(target: State, *, but_from: State | None = None) -> sa.Update:
    """An update to *target* of runs that may become it. Every change of a run's state is one of these."""
    allowed = sorted(state.value for state in sources(target) if state is not but_from)
    return sa.update(runs).where(runs.c.state.in_(allowed)).values(state=target.value, cancelling=False)


def _cancelled(now: datetime) -> sa.Update:
    """Pending runs are cancelled, running ones are to be. One statement: between two, a run could go from one to the
    other and escape."""
    waits = runs.c.state == State.PENDING.value
    return (
        sa.update(runs)
        .where(runs.c.state.in_([state.value for state in sources(State.CANCELLED)]))
        .values(
            state=sa.case((waits, State.CANCELLED.value), else_=runs.c.state),
            cancelling=~waits,
            finished=sa.case((waits, sa.literal(now, runs.c.finished.type)), else_=runs.c.finished),
            available=None,
        )
    )


def _mine(statement: Statement, run: str, attempt: int) -> Statement:
    """Only if the run is running, in this attempt: the fence."""
    return statement.where(runs.c.id == run, runs.c.attempt == attempt, runs.c.state == State.RUNNING.value)


class Overtaken(Exception):
    """Another claim was faster."""


#: A worker asks these all the time. To put such a statement together takes Python longer than to have it answered, so
#: they are kept: for the same queues, and the same that is shut.
_kept = lru_cache(256)

_AT = sa.bindparam("at", type_=runs.c.available.type)

#: As the claim's index has it.
_WAITS = sa.and_(is_in(State.PENDING), runs.c.place.is_(None))

_CLAIMED = (
    _move(State.RUNNING)
    .values(attempt=runs.c.attempt + 1, beat=0, worker=sa.bindparam("by", type_=runs.c.worker.type), started=_AT)
    .values(available=None, output=None, digest=None)
    .returning(runs)
)


@_kept
def _heads(queues: tuple[str, ...], closed: Closed) -> sa.Select[Any] | None:
    """The lanes of the queues, each with its queue, in the order of their best runnable runs; None: all are shut.

    One statement over several lanes would sort all that waits in them: the index keeps each lane sorted, not all.
    """
    lanes = _lanes(queues, closed)
    if lanes is None:
        return None
    best = _queued(lanes.c.queue, lanes.c.lane, runs.c.id, closed=closed).correlate(lanes).scalar_subquery()
    columns = lanes.c.queue, lanes.c.lane, best.label("id")
    heads = sa.select(*columns).where(*_open_lanes(lanes, closed)).offset(0).subquery()
    # Each by its id. Of a join PostgreSQL makes a look at all runs, if it takes them for few.
    priority, created = (
        sa.select(column).where(runs.c.id == heads.c.id).scalar_subquery()
        for column in (runs.c.priority, runs.c.created)
    )
    found = sa.select(heads.c.queue, heads.c.lane).where(heads.c.id.is_not(None))
    return found.order_by(priority.desc(), created, heads.c.id)


@_kept
def _best(closed: Closed, *columns: sa.Column[Any]) -> sa.Select[Any]:
    """The best runnable run of a lane. Others that claim at this moment do not wait for us, nor we for them."""
    queue = sa.bindparam("from_queue", type_=runs.c.queue.type)
    lane = sa.bindparam("from_lane", type_=runs.c.lane.type)
    return _queued(queue, lane, *columns, closed=closed).with_for_update(skip_locked=True)


@_kept
def _claim_best(closed: Closed) -> sa.Executable:
    return _CLAIMED.where(runs.c.id == _best(closed, runs.c.id).scalar_subquery())


@_kept
def _count_ready(queues: tuple[str, ...], closed: Closed, limit: int) -> sa.Select[Any] | None:
    """How many could be claimed now, of each lane no more than *limit*; None: all these queues are shut."""
    lanes = _lanes(queues, closed)
    if lanes is None:
        return None
    of_each = _queued(lanes.c.queue, lanes.c.lane, runs.c.id, closed=closed).limit(limit)
    count = sa.select(sa.func.count()).select_from(of_each.correlate(lanes).subquery()).scalar_subquery()
    return sa.select(sa.func.sum(count)).where(*_open_lanes(lanes, closed))


def _lanes(queues: tuple[str, ...], closed: Closed) -> sa.CTE | None:
    """Those in which runs wait for a worker, one jump in the index each; None: all these queues are shut."""
    open = [
        sa.select(sa.literal(queue, runs.c.queue.type).label("queue"))
        for queue in dict.fromkeys(queues)
        if queue not in closed.queues
    ]
    if not open:
        return None
    wanted = sa.union_all(*open).subquery("wanted")
    lanes = sa.select(wanted.c.queue, _next_lane(wanted.c.queue).label("lane")).cte("lanes", recursive=True)
    more = sa.select(lanes.c.queue, _next_lane(lanes.c.queue, runs.c.lane > lanes.c.lane))
    return lanes.union_all(more.where(lanes.c.lane.is_not(None)))


def _next_lane(queue: sa.ColumnElement[str], *after: sa.ColumnElement[bool]) -> sa.ScalarSelect[Any]:
    lane = sa.select(runs.c.lane).where(_WAITS, runs.c.queue == queue, *after).order_by(runs.c.lane).limit(1)
    return lane.correlate(queue.table).scalar_subquery()


def _open_lanes(lanes: sa.CTE, closed: Closed) -> list[sa.ColumnElement[bool]]:
    return [lanes.c.lane.is_not(None), *([lanes.c.lane.not_in(closed.deployments)] if closed.deployments else [])]


def _queued(
    queue: sa.ColumnElement[str], lane: sa.ColumnElement[str], *columns: sa.ColumnElement[Any], closed: Closed
) -> sa.Select[Any]:
    """The best run of a lane that is runnable at ``at``."""
    order = runs.c.priority.desc(), runs.c.created, runs.c.id
    available = sa.or_(runs.c.available.is_(None), runs.c.available <= _AT)
    runnable = _WAITS, available, runs.c.queue == queue, runs.c.lane == lane, *closed.free(runs.c.deployment)
    return sa.select(*columns).where(*runnable).order_by(*order).limit(1)


def _retry_wait(run: Run) -> timedelta:
    used = max(0, run.policy.retries - (run.last_attempt - run.attempt))
    return timedelta(seconds=min(run.policy.backoff * 2.0 ** min(used, 64), LONGEST_BACKOFF))


def _no_run(id: str) -> NotFound:
    return NotFound(f"no run {id!r}; `flowkit runs` lists them")
