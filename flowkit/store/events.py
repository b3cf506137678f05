"""What happened in each attempt of each run, as its worker told it: appended, and read from any position on."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import groupby

import sqlalchemy as sa

from flowkit.events import Event
from flowkit.model import State
from flowkit.store.database import Database
from flowkit.store.schema import events, installed, packages, runs


class Events(Database):
    def record(
        self,
        run: str,
        attempt: int,
        what: Sequence[Event],
        *,
        after: int | None = None,
        output: str | None = None,
        digest: str | None = None,
    ) -> bool:
        """Append events of the attempt, in order, and say where its executed notebook lies if *output* is given.

        False: the run is no longer ours and nothing was stored.

        Args:
            after: how many events of the attempt came before these. Those of *what* that are there already, because
                an answer was lost and they are said again, are not stored again. None: all are new.
            digest: SHA-256 of the notebook.
        """
        ours = runs.c.id == run, runs.c.attempt == attempt, runs.c.state == State.RUNNING.value
        # The row's lock keeps a second writer of the same attempt from taking the same number.
        held: sa.Executable = sa.select(runs.c.id).where(*ours).with_for_update(key_share=True)
        if output is not None:
            held = sa.update(runs).where(*ours).values(output=output, digest=digest).returning(runs.c.id)
        with self.writing() as connection:
            if connection.execute(held).first() is None:
                return False
            append_events(self, connection, run, attempt, what, after)
            return True

    def events(
        self,
        run: str,
        *,
        attempt: int | None = None,
        after: int = 0,
        output: bool | None = None,
        limit: int | None = None,
    ) -> tuple[int, list[Event]]:
        """What an attempt recorded after position *after*, in order, and the position to go on from.

        Args:
            attempt: None: the newest. Whoever follows a run names it: each attempt counts its own positions.
            output: True for what it printed alone, which may be much; False for all else; None for both.
            limit: so many pieces at most, each as large as its worker had it at once; ask again from the position on.
        """
        newest = sa.select(runs.c.attempt).where(runs.c.id == run).scalar_subquery()
        query = (
            sa.select(events.c.seq, events.c.chunk)
            .where(events.c.run == run, events.c.attempt == (newest if attempt is None else attempt))
            .where(events.c.seq > after)
            .order_by(events.c.seq)
        )
        if output is not None:
            query = query.where(events.c.output == output)
        with self.reading() as connection:
            rows = connection.execute(query.limit(limit)).all()
        position = rows[-1].seq if rows else after
        return position, [Event.from_json(pairs) for row in rows for pairs in json.loads(row.chunk)]

    def packages(self, digest: str) -> list[str]:
        """What a kernel's environment had installed, ``NAME==VERSION`` each; empty if nobody knows."""
        with self.reading() as connection:
            found = connection.execute(sa.select(packages.c.packages).where(packages.c.digest == digest)).scalar()
        return list(found or ())


def append_events(
    database: Database, connection: sa.Connection, run: str, attempt: int, what: Sequence[Event], after: int | None
) -> None:
    """While the run's row is held; as ``record`` does."""
    if not what:
        return
    last = sa.select(sa.func.max(events.c.seq)).where(events.c.run == run, events.c.attempt == attempt)
    seq = connection.execute(last).scalar() or 0
    rows = []
    for output, some in groupby(
        what[0 if after is None else max(0, seq - after) :], lambda event: event.kind == "output"
    ):
        chunk = [_with_packages_apart(database, connection, run, event) for event in some]
        seq += len(chunk)
        rows.append({"run": run, "attempt": attempt, "seq": seq, "output": output, "chunk": _written(chunk)})
    if rows:
        connection.execute(sa.insert(events), rows)


def _with_packages_apart(database: Database, connection: sa.Connection, run: str, event: Event) -> Event:
    """The list of packages is stored once, under its digest, and not with every attempt."""
    if event.kind != "packages":
        return event
    listed = sorted(map(str, event.data["packages"]))
    digest = sha256("\n".join(listed).encode("utf-8", "replace")).hexdigest()
    connection.execute(database.insert(packages).values(digest=digest, packages=listed).on_conflict_do_nothing())
    connection.execute(database.insert(installed).values(run=run, digest=digest).on_conflict_do_nothing())
    return replace(event, name=digest, data={"python": event.data.get("python")})


def _written(what: Sequence[Event]) -> str:
    return _LONE_SURROGATE.sub(_escaped, "[" + ",".join(event.to_json() for event in what) + "]")


#: Half a character, as a kernel's output may hold: legal in JSON when escaped, in UTF-8 never.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
