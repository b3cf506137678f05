"""Runs as they are read: one, the newest, a page in any order, and how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from flowkit.errors import NotFound
from flowkit.model import Cause, Policy, Run, State
from flowkit.store.database import Database
from flowkit.store.schema import is_in, runs

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


class Place(NamedTuple):
    """Where a run stands among all, by when it was submitted; whether it is there (any more) or not."""

    created: datetime
    id: str


class Runs(Database):
    def run(self, id: str) -> Run:
        """By its whole id, or by the beginning of one (at least four characters) that fits no other run."""
        with self.reading() as connection:
            row = connection.execute(sa.select(runs).where(runs.c.id == id)).first()
            if row is not None:
                return to_run(row)
            if len(id) < SHORTEST_PREFIX:
                raise NotFound(f"{id!r} names no run; give its id, or at least its first {SHORTEST_PREFIX} characters")
            # Not LIKE: it has wildcards, and no use of the index under most locales.
            prefixed = sa.select(runs).where(runs.c.id >= id.lower(), runs.c.id < id.lower() + "\U0010ffff")
            some = connection.execute(prefixed.order_by(runs.c.id).limit(3)).all()
        if not some:
            raise no_run(id)
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

    def children(self, run: str) -> list[Run]:
        """In the order in which they were asked for."""
        query = sa.select(runs).where(runs.c.parent == run).order_by(runs.c.created, runs.c.id)
        with self.reading() as connection:
            return [to_run(row) for row in connection.execute(query)]


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


def no_run(id: str) -> NotFound:
    return NotFound(f"no run {id!r}; `flowkit runs` lists them")
