"""What people look at: how fast runs come and go, how long they usually take, how a year went.

All of it is read by an index from what is new, never from all runs; what a whole year is asked for was counted when
its runs were pruned.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from flowkit.events import Point
from flowkit.model import State
from flowkit.store.database import Database
from flowkit.store.schema import days, deployments, events, is_in, runs

#: Characters of an error that are told.
ERROR = 300

#: Newest chunks of events in which is looked for what a run uses: it is recorded every second or two.
CHUNKS = 10

#: How a run can have ended.
ENDINGS = (State.SUCCEEDED, State.FAILED, State.CANCELLED)

#: Zones differ from UTC by whole quarters of an hour, so a quarter is of one day in every zone.
QUARTER = 900


@dataclass(frozen=True, slots=True)
class Brief:
    """A run in brief."""

    id: str
    label: str
    deployment: str | None
    queue: str
    state: State
    cancelling: bool
    attempt: int
    worker: str | None
    created: datetime
    started: datetime | None
    finished: datetime | None
    error: str | None  #: its beginning

    @property
    def took(self) -> float | None:
        """Seconds of the newest attempt, if it has ended."""
        return _between(self.started, self.finished)

    @property
    def waited(self) -> float | None:
        """Seconds until a worker had it; None also after a retry, when nobody knows for how long it waited."""
        return _between(self.created, self.started) if self.attempt == 1 else None


def _between(first: datetime | None, last: datetime | None) -> float | None:
    """Never less than nothing: two machines' clocks may have told."""
    return max(0.0, (last - first).total_seconds()) if first and last else None


class Rate(NamedTuple):
    """Runs a second."""

    come: float
    ended: float


class Figures(Database):
    def ended(self, *, since: datetime, states: Iterable[State] = ENDINGS, limit: int) -> list[Brief]:
        """Runs that have ended since then, the newest of each state up to *limit*; the last to end first."""
        each = [
            sa.select(*_BRIEF)
            .where(is_in(state), runs.c.finished.is_not(None), runs.c.finished >= since)
            .order_by(runs.c.finished.desc())
            .limit(limit)
            for state in states
        ]
        found = self._briefs(each)
        return sorted(found, key=lambda run: run.finished or run.created, reverse=True)

    def under_way(self, *, limit: int) -> list[Brief]:
        """Runs that are running, the longest first."""
        query = sa.select(*_BRIEF).where(is_in(State.RUNNING)).order_by(runs.c.started, runs.c.id).limit(limit)
        return self._briefs([query])

    def rates(self, *, since: datetime, now: datetime, limit: int) -> dict[str, Rate]:
        """How many runs a second come to each queue and end in it; no more than *limit* are counted, the newest."""
        found: dict[str, list[float]] = {}
        with self.reading() as connection:
            for place, when, which in (
                (0, runs.c.created, sa.true()),
                *((1, runs.c.finished, sa.and_(is_in(state), runs.c.finished.is_not(None))) for state in ENDINGS),
            ):
                some = sa.select(runs.c.queue, when.label("at")).where(which, when >= since)
                new = some.order_by(when.desc()).limit(limit).subquery()
                counted = sa.select(new.c.queue, sa.func.count().label("many"), sa.func.min(new.c.at).label("first"))
                rows = connection.execute(counted.group_by(new.c.queue)).all()
                whole = sum(row.many for row in rows) < limit
                span = max(1.0, (now - (since if whole else min(row.first for row in rows))).total_seconds())
                for row in rows:
                    found.setdefault(row.queue, [0.0, 0.0])[place] += row.many / span
        return {queue: Rate(*pair) for queue, pair in found.items()}

    def lately(self, names: Iterable[str], *, limits: dict[State, int]) -> dict[str, list[Brief]]:
        """Of each of these deployments the newest runs, up to so many in each state; newest first."""
        found = {}
        for name in names:
            of_each = [
                sa.select(*_BRIEF)
                .where(runs.c.deployment == name, is_in(state))
                .order_by(runs.c.created.desc(), runs.c.id.desc())
                .limit(limit)
                for state, limit in limits.items()
            ]
            found[name] = sorted(self._briefs(of_each), key=lambda run: (run.created, run.id), reverse=True)
        return found

    def last_successes(self, names: Iterable[str]) -> dict[str, Brief]:
        """The newest run that succeeded of each of these deployments that has one; by one jump in the index each."""
        newest = sa.select(runs.c.id).where(runs.c.deployment == deployments.c.name, is_in(State.SUCCEEDED))
        newest = newest.order_by(runs.c.created.desc(), runs.c.id.desc()).limit(1).correlate(deployments)
        found = sa.select(newest.scalar_subquery()).where(deployments.c.name.in_(sorted(set(names))))
        with self.reading() as connection:
            ids = [id for id in connection.execute(found).scalars() if id is not None]
        return {run.deployment or "": run for run in self._briefs([sa.select(*_BRIEF).where(runs.c.id.in_(ids))])}

    def _briefs(self, parts: Sequence[sa.Select[Any]]) -> list[Brief]:
        query = sa.union_all(*(sa.select(part.subquery()) for part in parts))
        with self.reading() as connection:
            return [_to_brief(row) for row in connection.execute(query)]

    def uses(self, run: str, attempt: int) -> Point | None:
        """What the attempt's processes used when that was last recorded; None: not yet, or long ago."""
        this = events.c.run == run, events.c.attempt == attempt, ~events.c.output
        query = sa.select(events.c.chunk).where(*this).order_by(events.c.seq.desc()).limit(CHUNKS)
        with self.reading() as connection:
            for chunk in connection.execute(query).scalars():
                for event in reversed(json.loads(chunk)):
                    if event["kind"] == "usage" and event["data"]:
                        return Point(*event["data"][-1])
        return None

    def year(self, deployment: str, zone: str, *, since: datetime) -> dict[date, dict[State, int]]:
        """How its runs ended (or stand), by the day they were due or submitted on, in that zone; pruned ones too."""
        at = sa.func.coalesce(runs.c.scheduled_for, runs.c.created)
        sqlite = self.url.get_backend_name() == "sqlite"
        epoch = sa.func.strftime("%s", at) if sqlite else sa.func.floor(sa.extract("epoch", at))
        quarter = sa.cast(epoch, sa.BigInteger) // sa.literal_column(str(QUARTER), sa.BigInteger)
        kept = (
            sa.select(quarter, runs.c.state, sa.func.count())
            .where(runs.c.deployment == deployment, runs.c.created >= since)
            .group_by(quarter, runs.c.state)
        )
        here = ZoneInfo(zone)
        first = since.astimezone(here).date()
        gone = sa.select(days.c.day, days.c.state, days.c.count).where(
            days.c.deployment == deployment, days.c.day >= first.isoformat()
        )
        found: dict[date, Counter[State]] = {}
        with self.reading() as connection:
            for number, state, many in connection.execute(kept):
                day = datetime.fromtimestamp(int(number) * QUARTER, UTC).astimezone(here).date()
                found.setdefault(day, Counter())[State(state)] += many
            for text, state, many in connection.execute(gone):
                found.setdefault(date.fromisoformat(text), Counter())[State(state)] += many
        return {day: dict(counts) for day, counts in sorted(found.items()) if day >= first}

    def forget_days(self, *, before: date) -> None:
        with self.writing() as connection:
            connection.execute(sa.delete(days).where(days.c.day < before.isoformat()))


def count_days(database: Database, connection: sa.Connection, pruned: Iterable[sa.Row[Any]]) -> None:
    """Keep of runs that are being forgotten how many there were, a day and a state, if their deployment is there.

    Args:
        pruned: their ``deployment``, ``state``, ``created``, ``scheduled_for`` and ``zone``.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for row in pruned:
        if row.deployment is not None:
            day = (row.scheduled_for or row.created).astimezone(ZoneInfo(row.zone)).date()
            counts[row.deployment, day.isoformat(), row.state] += 1
    names = {name for name, _, _ in counts}
    known = set(connection.execute(sa.select(deployments.c.name).where(deployments.c.name.in_(names))).scalars())
    # In order: two that prune at once must not wait for each other in a circle.
    rows = [
        {"deployment": name, "day": day, "state": state, "count": many}
        for (name, day, state), many in sorted(counts.items())
        if name in known
    ]
    if rows:
        new = database.insert(days)
        more = {"count": days.c.count + new.excluded.count}
        connection.execute(new.on_conflict_do_update(index_elements=["deployment", "day", "state"], set_=more), rows)


def percentiles(values: Iterable[float], *shares: float) -> list[float]:
    """The nearest values at or above which these shares of them lie: 0.5 is the median. Empty if there are none."""
    ordered = sorted(values)
    return [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares] if ordered else []


_BRIEF: tuple[sa.ColumnElement[Any], ...] = (
    *(runs.c[name] for name in ("id", "deployment", "notebook", "name", "queue", "state", "cancelling", "attempt")),
    *(runs.c[name] for name in ("created", "started", "finished", "worker")),
    sa.func.substr(runs.c.error, 1, ERROR).label("error"),
)


def _to_brief(row: sa.Row[Any]) -> Brief:
    return Brief(
        id=row.id,
        label=row.name or row.deployment or Path(row.notebook).name,
        deployment=row.deployment,
        queue=row.queue,
        state=State(row.state),
        cancelling=row.cancelling,
        attempt=row.attempt,
        worker=row.worker,
        created=row.created,
        started=row.started,
        finished=row.finished,
        error=row.error,
    )
