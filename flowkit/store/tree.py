"""Runs that are nodes of other runs: what happens to one, its parent and its children learn in the same transaction.

Who changes several of a tree begins at the top. Only an ending looks upwards, and it passes over a parent that another
transaction holds: so nobody waits in a circle, and the sweep finds the parent a second later.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from flowkit.model import State
from flowkit.store.schema import is_in, runs

#: The place of a run that waits for its children: no claim sees it, as if it stood in a line.
PARKED = -1

OPEN = sa.or_(is_in(State.PENDING), is_in(State.RUNNING))

_children = runs.alias("children")

#: That not all children of a run have ended.
WAITS = sa.exists().where(
    _children.c.parent == runs.c.id, sa.or_(is_in(State.PENDING, _children), is_in(State.RUNNING, _children))
)


def wake(connection: sa.Connection, parent: str) -> None:
    """Let the parent go on, if no child of it is left that has not ended."""
    this = runs.c.id == parent, runs.c.place < 0, is_in(State.PENDING)
    held = sa.select(runs.c.id).where(*this).with_for_update(skip_locked=True)
    if connection.execute(held).first() is not None:
        connection.execute(sa.update(runs).where(*this, ~WAITS).values(place=None))


def wake_all(connection: sa.Connection) -> None:
    """All whose children have ended, of whose ending nobody has told them."""
    held = sa.select(runs.c.id).where(runs.c.place < 0, is_in(State.PENDING), ~WAITS)
    for parent in connection.execute(held.with_for_update(of=runs, skip_locked=True)).scalars().all():
        wake(connection, parent)


def below(run: str, *which: sa.ColumnElement[bool]) -> sa.CTE:
    """The ids of its children, of theirs, and so on; only of such, and only through such."""
    found = sa.select(runs.c.id).where(runs.c.parent == run, *which).cte("below", recursive=True)
    return found.union_all(sa.select(runs.c.id).where(runs.c.parent == found.c.id, *which))


def ended_below(connection: sa.Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """Those of these runs below which all has ended, each with what is below it."""
    found = {}
    for one in ids:
        theirs = below(one)
        rows = connection.execute(sa.select(runs.c.id, runs.c.state).join(theirs, runs.c.id == theirs.c.id)).all()
        if all(State(row.state).final for row in rows):
            found[one] = [row.id for row in rows]
    return found
