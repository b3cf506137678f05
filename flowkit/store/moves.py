"""Moves: a run's state from its claim to its end, and what its series, its parent and its children learn of that.

A worker's every write names the attempt it claimed, the fencing token: once the run has ended, was rescued or handed
back, the answer is False or None, and nothing has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from flowkit.errors import Conflict
from flowkit.events import Event
from flowkit.model import Cause, Ending, Run, State, sources
from flowkit.store.database import Database
from flowkit.store.events import append_events
from flowkit.store.runs import no_run, to_run
from flowkit.store.schema import is_in, runs
from flowkit.store.series import pass_on, places
from flowkit.store.tree import OPEN, PARKED, WAITS, below, wake, wake_all

#: A run that was lost with its worker so many times is the likely killer, and fails.
MAX_CRASHES = 3

#: Seconds before a run that was lost with its worker is tried again; doubles each time.
CRASH_BACKOFF = 1.0

#: The longest wait between two attempts, in seconds: doubling soon leaves the calendar.
LONGEST_BACKOFF = 86_400.0

Statement = TypeVar("Statement", sa.Update, sa.Select[Any])


class Beat(NamedTuple):
    """What a running run's row says of it."""

    run: str
    attempt: int
    number: int  #: how often the attempt has said that it lives
    cancelling: bool


class Moves(Database):
    def beat(self, run: str, attempt: int) -> bool:
        """Say that the attempt lives. False: the run is no longer ours, stop it."""
        ours = mine(sa.update(runs), run, attempt).values(beat=runs.c.beat + 1)
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
                moved = move(State.SUCCEEDED).where(~runs.c.cancelling, ~WAITS)
                moved = moved.values(cause=None, error=None, finished=now, **last)
                row = connection.execute(mine(moved, run, attempt).returning(runs)).first()
                if row is not None:
                    append_events(self, connection, run, attempt, what, after)
                    return _ended(connection, row, now)
            found = _run(connection.execute(mine(sa.select(runs), run, attempt).with_for_update()).first())
            if found is None:
                return None
            append_events(self, connection, run, attempt, what, after)
            waits = bool(connection.execute(sa.select(WAITS).where(runs.c.id == run)).scalar())
            values: dict[str, Any] = {"cause": ending.cause, "error": ending.error}
            if found.cancelling:
                moved = move(State.CANCELLED).values(finished=now)
            elif ending.state is State.CANCELLED:  # which somebody has taken back meanwhile
                moved = move(State.PENDING).values(last_attempt=runs.c.last_attempt + 1)
            elif ending.state is State.PENDING or (ending.state is State.SUCCEEDED and waits):
                place = PARKED if waits else None  # the last of them may have ended meanwhile
                moved = move(State.PENDING).values(last_attempt=runs.c.last_attempt + 1, place=place)
            elif ending.state is State.SUCCEEDED:  # that too, between these two statements
                moved = move(State.SUCCEEDED).values(cause=None, error=None, finished=now)
            elif found.attempt < found.last_attempt and ending.cause is not Cause.SETUP:
                available = now + _retry_wait(found)
                retry_below(connection, run, available=available)
                waiting = sa.case((WAITS, PARKED), else_=None)
                moved = move(State.PENDING).values(**values, available=available, place=waiting)
            else:
                moved = move(State.FAILED).values(**values, finished=now)
            ended = mine(moved.values(**last), run, attempt).returning(runs)
            return _ended(connection, connection.execute(ended).first(), now)

    def release(self, run: str, attempt: int, *, now: datetime) -> Run | None:
        """Hand the run back, to be claimed at once: its worker stops. The attempt uses up none of its retries.

        One that somebody has cancelled is cancelled. None: it is no longer ours.
        """
        with self.writing() as connection:
            found = _run(connection.execute(mine(sa.select(runs), run, attempt).with_for_update()).first())
            if found is None:
                return None
            if found.cancelling:
                moved = move(State.CANCELLED).values(finished=now)
            else:
                moved = move(State.PENDING).values(last_attempt=runs.c.last_attempt + 1)
            return _ended(connection, connection.execute(mine(moved, run, attempt).returning(runs)).first(), now)

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
            silent = mine(sa.select(runs), run, attempt).where(runs.c.beat == beat).with_for_update()
            found = _run(connection.execute(silent).first())
            if found is None:
                return None
            crashes = found.crashes + 1
            error = f"attempt {attempt} was lost with its worker {found.worker}"
            values = {"crashes": crashes, "cause": Cause.CRASHED.value, "error": error}
            if found.cancelling:
                moved = move(State.CANCELLED).values(crashes=crashes, finished=now)
            elif crashes >= MAX_CRASHES:
                values["error"] = f"{error}; {crashes} attempts were lost so, and it is not tried again"
                moved = move(State.FAILED).values(**values, finished=now)
            else:
                wait = timedelta(seconds=CRASH_BACKOFF * 2**found.crashes)
                moved = move(State.PENDING).values(**values, available=now + wait, last_attempt=runs.c.last_attempt + 1)
            return _ended(connection, connection.execute(mine(moved, run, attempt).returning(runs)).first(), now)

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
            raise no_run(run)
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
            raise no_run(run)
        allowed = "only a pending or running" if verb == "cancelled" else "only a failed or cancelled"
        state = "being cancelled" if found.cancelling else found.state
        raise Conflict(f"run {run[:8]} is {state}; {allowed} run can be {verb}")

    def wake(self) -> None:
        """Let go on whoever waits for children that have all ended. Nearly always their last child has done so."""
        parked = sa.select(runs.c.id).where(runs.c.place < 0).limit(1)
        with self.reading() as connection:
            if connection.execute(parked).first() is None:
                return
        with self.writing() as connection:
            wake_all(connection)


def cancel_runs(connection: sa.Connection, which: sa.ColumnElement[bool], *, now: datetime) -> int:
    """Cancel them all as ``Moves.cancel`` does, and let those have their turn that wait for them. How many there were,
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
    again = move(State.PENDING, but_from=State.RUNNING).where(runs.c.id == run.id)
    attempts = runs.c.attempt + 1 + run.policy.retries
    return again.values(last_attempt=attempts, crashes=0, finished=None, available=None, place=None)


def keep_on(which: sa.ColumnElement[bool]) -> sa.Update:
    """Take back the cancel of runs under way. One whose kernel was told to end already is run again."""
    cancelling = runs.c.state == State.RUNNING.value, runs.c.cancelling
    return sa.update(runs).where(which, *cancelling).values(cancelling=False)


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


def move(target: State, *, but_from: State | None = None) -> sa.Update:
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


def mine(statement: Statement, run: str, attempt: int) -> Statement:
    """Only if the run is running, in this attempt: the fence."""
    return statement.where(runs.c.id == run, runs.c.attempt == attempt, runs.c.state == State.RUNNING.value)


def _retry_wait(run: Run) -> timedelta:
    used = max(0, run.policy.retries - (run.last_attempt - run.attempt))
    return timedelta(seconds=min(run.policy.backoff * 2.0 ** min(used, 64), LONGEST_BACKOFF))
