"""Runs that take turns. At most so many of a series wait for a worker or run at once; the others stand in line.

A run's turn comes in the transaction that ends another, so that a claim need not look at those that stand in line.
Whoever counts a series holds its row. Then it may wait for runs that stand in line, never for others: so nobody waits
in a circle.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from flowkit.model import State
from flowkit.store.database import Database
from flowkit.store.schema import runs, series

OPEN = runs.c.state.in_([State.PENDING.value, State.RUNNING.value])

#: Its turn has come, or it has no turn; also while it waits for its children.
BEGUN = sa.or_(runs.c.place.is_(None), runs.c.place < 0)


def begin_series(database: Database, connection: sa.Connection, id: str, deployment: str, *, now: datetime) -> None:
    """The series of a schedule, one at a time; it may be there."""
    row = {"id": id, "deployment": deployment, "width": 1, "created": now}
    connection.execute(database.insert(series).values(row).on_conflict_do_nothing())


def places(connection: sa.Connection, id: str, count: int) -> list[int | None]:
    """For that many new runs of the series: None for those whose turn it is, a place in line for the others."""
    free = _free(connection, id)
    last = last_place(connection, id)
    return [None if number < free else last + 1 + number for number in range(count)]


def last_place(connection: sa.Connection, id: str) -> int:
    """The end of the line; it stays that for whoever holds the series."""
    return connection.execute(sa.select(sa.func.max(runs.c.place)).where(_waiting(id))).scalar() or 0


def pass_on(connection: sa.Connection, id: str) -> None:
    """Let the next ones of the series have their turn, now that one has ended in the same transaction."""
    free = _free(connection, id)
    if free > 0:
        first = sa.select(runs.c.id).where(_waiting(id)).order_by(runs.c.place).limit(free)
        # Not as a subquery of the update: a plan that asks it again for each row skips those it has just updated,
        # and lets more have their turn than are free. PostgreSQL chose one when its statistics were old.
        chosen = connection.execute(first.with_for_update()).scalars().all()
        connection.execute(sa.update(runs).where(runs.c.id.in_(chosen)).values(place=None))


def hold(connection: sa.Connection, id: str) -> int:
    """Until this transaction ends nobody else counts, and nobody's turn comes. How many may have theirs at once."""
    held = sa.select(series.c.width).where(series.c.id == id).with_for_update(key_share=True)
    width: int = connection.execute(held).scalar_one()
    return width


def _free(connection: sa.Connection, id: str) -> int:
    """How many more may have their turn."""
    width = hold(connection, id)
    count = sa.select(sa.func.count()).where(runs.c.series == id, OPEN, BEGUN)
    begun: int = connection.execute(count).scalar_one()
    return max(0, width - begun)


def _waiting(id: str) -> sa.ColumnElement[bool]:
    return sa.and_(runs.c.series == id, runs.c.state == State.PENDING.value, runs.c.place > 0)
