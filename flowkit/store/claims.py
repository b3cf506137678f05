"""Claims: the best runnable run of some queues, taken by one worker, and how many there are to be taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from flowkit.model import Run, State
from flowkit.store.database import Database
from flowkit.store.limits import Closed, find_shut, hold_limits, take
from flowkit.store.moves import move
from flowkit.store.runs import to_run
from flowkit.store.schema import is_in, runs


class Claims(Database):
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

    def ready(self, queues: Sequence[str], *, now: datetime, limit: int) -> int:
        """How many runs of these queues could be claimed now; no more than *limit* are counted."""
        with self.reading() as connection:
            count = _count_ready(tuple(queues), find_shut(connection, now)[1].names, limit)
            return 0 if count is None else min(limit, int(connection.execute(count, {"at": now}).scalar() or 0))


class Overtaken(Exception):
    """Another claim was faster."""


#: A worker asks these all the time. To put such a statement together takes Python longer than to have it answered, so
#: they are kept: for the same queues, and the same that is shut.
_kept = lru_cache(256)

_AT = sa.bindparam("at", type_=runs.c.available.type)

#: As the claim's index has it.
_WAITS = sa.and_(is_in(State.PENDING), runs.c.place.is_(None))

_CLAIMED = (
    move(State.RUNNING)
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
