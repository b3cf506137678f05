"""What people may have to be told of: what moved, what ought to have started, what runs, where nobody claims.

All of it is read from what has happened since the last look, and from what waits and runs now, one jump in an index for
each deployment or queue: never from all runs, deployments or alerts.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from flowkit.model import Run, Skip, State
from flowkit.store.changes import Changes, Position
from flowkit.store.runs import to_run
from flowkit.store.schedules import to_skip
from flowkit.store.schema import UNSTARTED, changes, is_in, runs, skips

#: Of runs that began or ended, so many at once; and of skips, or of what runs.
MOST = 10_000


class Move(NamedTuple):
    """A run that has begun or ended."""

    run: str
    state: State  #: what it became
    deployment: str | None
    queue: str
    attempt: int  #: these as they are meanwhile
    created: datetime
    scheduled_for: datetime | None
    available: datetime | None
    started: datetime | None


class Troubles(Changes):
    def moves(self, *, after: Position) -> tuple[list[Move], Position]:
        """Which runs began or ended after that, in order; and where to ask again from."""
        here = self.here()
        became = changes.c.state.in_([State.RUNNING.value, State.SUCCEEDED.value, State.FAILED.value])
        query = (
            sa.select(changes.c.xid, changes.c.id.label("place"), changes.c.state.label("became"), *_MOVED)
            .join(runs, runs.c.id == changes.c.run)
            .where(self._after(after), became, changes.c.xid <= here.xid)
            .order_by(changes.c.xid, changes.c.id)
            .limit(MOST)
        )
        if self.url.get_backend_name() == "sqlite":
            query = query.where(changes.c.id <= here.id)
        with self.reading() as connection:
            rows = connection.execute(query).all()
        last = Position(rows[-1].xid, rows[-1].place) if len(rows) == MOST else here
        return [_to_move(row, State(row.became)) for row in rows], last

    def ended_since(self, since: datetime) -> list[Move]:
        """Which have succeeded or failed since then by their workers' clocks; the newest of many."""
        found = []
        with self.reading() as connection:
            for state in (State.SUCCEEDED, State.FAILED):
                ended = is_in(state), runs.c.finished.is_not(None), runs.c.finished >= since
                query = sa.select(*_MOVED).where(*ended).order_by(runs.c.finished.desc()).limit(MOST)
                found += [_to_move(row, state) for row in connection.execute(query)]
        return found

    def unstarted(self, *, before: datetime) -> list[Run]:
        """Of each deployment the run that waits longest to begin for the first time, if since before then."""
        started = runs.alias()  # of it the index is asked for, the names in whose condition have no table
        first = sa.select(runs.c.deployment).where(UNSTARTED).order_by(runs.c.deployment).limit(1)
        names = sa.select(first.scalar_subquery().label("name")).cte("names", recursive=True)
        after = sa.select(runs.c.deployment).where(UNSTARTED, runs.c.deployment > names.c.name)
        after = after.order_by(runs.c.deployment).limit(1).correlate(names)
        names = names.union_all(sa.select(after.scalar_subquery()).where(names.c.name.is_not(None)))
        oldest = sa.select(runs.c.id).where(UNSTARTED, runs.c.deployment == names.c.name).order_by(runs.c.created)
        head = oldest.limit(1).correlate(names).scalar_subquery()
        heads = sa.select(head.label("id")).where(names.c.name.is_not(None)).offset(0).subquery()
        query = sa.select(started).join(heads, heads.c.id == started.c.id).where(started.c.created < before)
        with self.reading() as connection:
            return [to_run(row) for row in connection.execute(query)]

    def going(self, *, before: datetime) -> list[Run]:
        """Those of deployments that have run since before then."""
        query = sa.select(runs).where(is_in(State.RUNNING), runs.c.started < before, runs.c.deployment.is_not(None))
        with self.reading() as connection:
            return [to_run(row) for row in connection.execute(query.limit(MOST))]

    def queues_in_use(self) -> list[str]:
        """Where runs wait."""
        first = sa.select(runs.c.queue).where(is_in(State.PENDING)).order_by(runs.c.queue).limit(1)
        names = sa.select(first.scalar_subquery().label("name")).cte("names", recursive=True)
        after = sa.select(runs.c.queue).where(is_in(State.PENDING), runs.c.queue > names.c.name)
        after = after.order_by(runs.c.queue).limit(1).correlate(names)
        names = names.union_all(sa.select(after.scalar_subquery()).where(names.c.name.is_not(None)))
        with self.reading() as connection:
            return list(connection.execute(sa.select(names.c.name).where(names.c.name.is_not(None))).scalars())

    def skipped(self, *, since: datetime) -> list[Skip]:
        """What was decided since then that it does not run, in order."""
        query = sa.select(skips).where(skips.c.at >= since).order_by(skips.c.at, skips.c.first).limit(MOST)
        with self.reading() as connection:
            return [to_skip(row) for row in connection.execute(query)]

    def fired_after(self, deployment: str, firing: datetime) -> bool:
        """A later firing has become a run."""
        later = runs.c.deployment == deployment, runs.c.scheduled_for > firing
        with self.reading() as connection:
            return connection.execute(sa.select(runs.c.id).where(*later).limit(1)).first() is not None

    def under_way_of(self, ids: Iterable[str]) -> set[str]:
        """Which of these runs are running."""
        found = sa.select(runs.c.id).where(runs.c.id.in_(sorted(set(ids))), is_in(State.RUNNING))
        with self.reading() as connection:
            return set(connection.execute(found).scalars())


_MOVED = tuple(runs.c[name] for name in ("id", *Move._fields[2:]))


def _to_move(row: sa.Row[tuple[object, ...]], state: State) -> Move:
    pairs = row._mapping
    return Move(pairs["id"], state, *(pairs[name] for name in Move._fields[2:]))
