"""Backfills: runs of a deployment that differ in one parameter, a series of their own; made once each, seen as one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from flowkit.errors import NotFound, did_you_mean
from flowkit.model import Backfill, Run, State
from flowkit.store.database import Database
from flowkit.store.moves import cancel_runs, keep_on, retry_below, retry_run
from flowkit.store.runs import to_run
from flowkit.store.schema import runs, series
from flowkit.store.series import hold, last_place, pass_on
from flowkit.store.submissions import insert_runs


class Backfills(Database):
    def backfill(
        self, wanted: Backfill, new: Sequence[Run], *, again: Collection[State], only_again: bool, now: datetime
    ) -> Backfill:
        """Have these runs in the backfill, in this order; those whose keys are known are not stored again.

        Args:
            wanted: its concurrency holds from now on, also for the runs that wait.
            again: in which states known ones of these runs are run again. With the cancelled ones come those that
                are being cancelled, and go on.
            only_again: none of the others.
        """
        row = {"id": wanted.id, "deployment": wanted.deployment, "parameter": wanted.parameter, "created": now}
        begun = self.insert(series).values(row | {"width": wanted.concurrency})
        changed = begun.on_conflict_do_update(index_elements=["id"], set_={"width": wanted.concurrency})
        with self.writing() as connection:
            keys = [run.key for run in new]
            if State.CANCELLED in again:  # before the series is held, for whose turn those that end may wait
                for some in _in_statements(keys):
                    connection.execute(keep_on(runs.c.key.in_(some)))
            connection.execute(changed)
            hold(connection, wanted.id)
            known = {row.key: row for row in _known(connection, keys)}
            added = []
            for place, run in enumerate(new, last_place(connection, wanted.id) + 1):
                found = known.get(run.key)
                if found is None and not only_again:
                    added.append((run, place))
                elif found is not None and State(found.state) in again:
                    connection.execute(retry_run(to_run(found)).values(series=wanted.id, place=place))
                    retry_below(connection, found.id)
            insert_runs(self, connection, added)
            pass_on(connection, wanted.id)
        return self.backfills(wanted.id)[0]

    def backfills(self, id: str | None = None, *, deployment: str | None = None) -> list[Backfill]:
        """All, that one, or those of a deployment; newest first. Raises: NotFound."""
        query = sa.select(series).where(series.c.parameter.is_not(None))
        counts = sa.select(runs.c.series, runs.c.state, sa.func.count().label("many")).where(
            runs.c.series.is_not(None), runs.c.scheduled_for.is_(None)
        )
        if id is not None:
            query, counts = query.where(series.c.id == id), counts.where(runs.c.series == id)
        if deployment is not None:
            query = query.where(series.c.deployment == deployment)
            theirs = sa.select(series.c.id).where(series.c.deployment == deployment)
            counts = counts.where(runs.c.series.in_(theirs))
        with self.reading() as connection:
            rows = connection.execute(query.order_by(series.c.created.desc(), series.c.id)).all()
            found: dict[str, dict[State, int]] = {row.id: {} for row in rows}
            for row in connection.execute(counts.group_by(runs.c.series, runs.c.state)):
                found.setdefault(row.series, {})[State(row.state)] = row.many
            if id is not None and not rows:
                every = sa.select(series.c.id).where(series.c.parameter.is_not(None))
                hint = did_you_mean(id, connection.execute(every).scalars().all())
                raise NotFound(f"no backfill {id!r}{hint or '; `flowkit backfills` lists them'}")
        return [_to_backfill(row, found[row.id]) for row in rows]

    def backfill_runs(self, id: str) -> list[Run]:
        """In the order in which they were made."""
        query = sa.select(runs).where(runs.c.series == id).order_by(runs.c.created, runs.c.id)
        with self.reading() as connection:
            return [to_run(row) for row in connection.execute(query)]

    def cancel_backfill(self, id: str, *, now: datetime) -> int:
        """Cancel those of its runs that have not ended, as ``cancel`` does. How many those were."""
        with self.writing() as connection:
            hold(connection, id)  # nobody's turn comes before all that wait are cancelled
            cancelled = cancel_runs(connection, sa.and_(runs.c.series == id, runs.c.place.is_not(None)), now=now)
        with self.writing() as connection:
            return cancelled + cancel_runs(connection, runs.c.series == id, now=now)


#: Keys in one statement: no database takes any number of values.
KEYS = 500


def _known(connection: sa.Connection, keys: Sequence[str]) -> Iterator[sa.Row[Any]]:
    for some in _in_statements(keys):
        yield from connection.execute(sa.select(runs).where(runs.c.key.in_(some)))


def _in_statements(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + KEYS] for start in range(0, len(keys), KEYS))


def _to_backfill(row: sa.Row[Any], counts: dict[State, int]) -> Backfill:
    pairs = dict(row._mapping)
    return Backfill(concurrency=pairs.pop("width"), counts=counts, **pairs)
