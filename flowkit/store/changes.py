"""What has happened to all runs, in one order: for whoever follows it, and comes back to where it was.

A change is written by a trigger, in the transaction that makes it. In SQLite, where one transaction writes at a time,
its id is its place. PostgreSQL gives ids before it commits, so that a later one may be seen earlier: there a reader
goes by transactions, and takes those alone that are older than any still under way. A transaction that writes to any
database of that server for long holds the followers up for so long; it loses them nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from flowkit.events import Event
from flowkit.model import Run, State
from flowkit.store.database import Database
from flowkit.store.runs import to_run
from flowkit.store.schema import changes, events, runs

#: In place of a state: what was before this is not known any more.
FORGOTTEN = "forgotten"

_LAST = 2**62


class Position(NamedTuple):
    """Of a change among all."""

    xid: int
    id: int

    def __str__(self) -> str:
        return f"{self.xid}.{self.id}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        xid, dot, id = text.partition(".")
        sound = dot and xid.isascii() and xid.isdigit() and id.isascii() and id.isdigit() and len(text) < 40
        return cls(min(int(xid), _LAST), min(int(id), _LAST)) if sound else None


@dataclass(frozen=True, slots=True)
class Change:
    position: Position
    run: str  #: its id
    attempt: int
    state: State | None  #: what it became, then; None: events were recorded
    seq: int | None  #: the position of these among the events of the attempt
    events: tuple[Event, ...] = ()
    now: Run | None = None  #: the run as it is meanwhile; None: it is gone


class Changes(Database):
    def here(self) -> Position:
        """After all that has happened."""
        with self.reading() as connection:
            if self.url.get_backend_name() == "sqlite":
                return Position(0, connection.execute(sa.select(sa.func.max(changes.c.id))).scalar() or 0)
            return Position(connection.execute(sa.select(_HORIZON)).scalar_one() - 1, _LAST)

    def changes(self, *, after: Position, limit: int) -> list[Change]:
        """What happened after that, in order. Whoever asks again from the last one on misses nothing."""
        query = (
            sa.select(changes.c.xid, changes.c.id.label("place"), changes.c.run, changes.c.attempt.label("of"))
            .add_columns(changes.c.state.label("became"), changes.c.seq, events.c.chunk, *_RUN.values())
            .join_from(changes, runs, runs.c.id == changes.c.run, isouter=True)
            .join(
                events,
                sa.and_(
                    events.c.run == changes.c.run,
                    events.c.attempt == changes.c.attempt,
                    events.c.seq == changes.c.seq,
                ),
                isouter=True,
            )
            .where(self._after(after), sa.func.coalesce(changes.c.state, "") != FORGOTTEN)
            .order_by(changes.c.xid, changes.c.id)
            .limit(limit)
        )
        if self.url.get_backend_name() != "sqlite":
            query = query.where(changes.c.xid < _HORIZON)
        with self.reading() as connection:
            return [_to_change(row) for row in connection.execute(query)]

    def changes_forgotten(self, *, after: Position) -> bool:
        """Some that happened after that are not known any more."""
        query = sa.select(changes.c.id).where(changes.c.state == FORGOTTEN, self._after(after)).limit(1)
        with self.reading() as connection:
            return connection.execute(query).first() is not None

    def _after(self, place: Position) -> sa.ColumnElement[bool]:
        if self.url.get_backend_name() == "sqlite":
            # There all are of transaction 0. Of a comparison of pairs SQLite's index serves the first column alone, and
            # each look would go through all changes that are known.
            return sa.and_(changes.c.xid == place.xid, changes.c.id > place.id)
        return sa.tuple_(changes.c.xid, changes.c.id) > sa.tuple_(*place)

    def forget_changes(self, *, before: datetime) -> None:
        """Those from before then; the last of them stays, as the mark of where they end."""
        old = changes.c.at < int(before.timestamp())
        newest = sa.select(changes.c.xid, changes.c.id).where(old).order_by(changes.c.xid.desc(), changes.c.id.desc())
        with self.writing() as connection:
            last = connection.execute(newest.limit(1)).first()
            if last is None:
                return
            earlier = sa.tuple_(changes.c.xid, changes.c.id) < sa.tuple_(last.xid, last.id)
            connection.execute(sa.delete(changes).where(earlier))
            connection.execute(sa.update(changes).where(changes.c.id == last.id).values(state=FORGOTTEN))


_HORIZON = sa.cast(sa.cast(sa.func.pg_snapshot_xmin(sa.func.pg_current_snapshot()), sa.Text), sa.BigInteger)

_RUN = {column.name: column.label(f"run_{column.name}") for column in runs.c}


def _to_change(row: sa.Row[tuple[object, ...]]) -> Change:
    pairs = row._mapping
    run = None if pairs["run_id"] is None else to_run({name: pairs[f"run_{name}"] for name in _RUN})
    told = tuple(Event.from_json(one) for one in json.loads(pairs["chunk"])) if pairs["chunk"] else ()
    state = None if pairs["became"] is None else State(pairs["became"])
    return Change(Position(pairs["xid"], pairs["place"]), pairs["run"], pairs["of"], state, pairs["seq"], told, run)
