"""Runs by what no index knows: a parameter's value, a text in the error. Only so many are looked at in one go."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from flowkit.model import Run, State
from flowkit.store.database import Database
from flowkit.store.runs import RUN_STATES, Place, newest_places, to_run
from flowkit.store.schema import is_in, runs

#: So many runs one search looks at: a tenth of a second's work.
SCANNED = 10_000


@dataclass(frozen=True, slots=True)
class Found:
    runs: list[Run]  #: newest first
    scanned: Place | None = None  #: so far back it has looked, and found no more; None: to the end, or there are enough


class Search(Database):
    def search(
        self,
        *,
        limit: int,
        before: Run | Place | None = None,
        deployment: str | None = None,
        states: Iterable[State] = (),
        queue: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        parameters: Iterable[tuple[str, str]] = (),
        error: str | None = None,
        scanned: int = SCANNED,
    ) -> Found:
        """As ``Runs.runs``, of those alone that also have these parameters, and this text in their error.

        Args:
            parameters: names and values, as a person writes them: ``30`` is the number, and the text.
            error: a part of it, in small letters or capitals.
            scanned: so many runs at most are looked at. Go on with *before* = ``Found.scanned``.
        """
        values = list(parameters)
        wanted = sorted(set(states))
        if error is not None and not wanted:
            wanted = [state for state in RUN_STATES if state is not State.SUCCEEDED]  # which has none
        which = [runs.c.created >= since] if since is not None else []
        if until is not None:
            which.append(runs.c.created < until)
        if before is not None:
            created = sa.bindparam(None, before.created, runs.c.created.type)
            which.append(sa.tuple_(runs.c.created, runs.c.id) < sa.tuple_(created, before.id))
        # By the index of the deployment, else of the queue, else of the state; each run is looked at for the rest.
        by_state = wanted
        if deployment is not None:
            which.append(runs.c.deployment == deployment)
            by_state = wanted or list(RUN_STATES)
        elif queue is not None:
            which.append(runs.c.queue == queue)
            by_state = []
        look = bool(values) or error is not None or (queue is not None and bool(deployment or wanted))

        places = newest_places(*which, states=by_state, limit=scanned if look else limit, whole=True)
        found = places.subquery()
        looked: list[sa.ColumnElement[bool]] = []
        if deployment is not None and queue is not None:
            looked.append(found.c.queue == queue)
        elif queue is not None and wanted:
            looked.append(sa.or_(*(is_in(state, found) for state in wanted)))
        if error is not None:
            looked.append(self._holds(sa.func.lower(found.c.error), error.lower()))
        looked += [self._given(found.c.parameters, name, value) for name, value in values]
        query = sa.select(found).where(*looked).order_by(found.c.created.desc(), found.c.id.desc()).limit(limit)
        with self.reading() as connection:
            some = [to_run(row) for row in connection.execute(query)]
            last = None
            if look and len(some) < limit:
                end = newest_places(*which, states=by_state, limit=1, offset=scanned - 1)
                last = connection.execute(end).first()
        # What is within another value has been found too.
        some = [run for run in some if all(_is(run.parameters.get(name), value) for name, value in values)]
        return Found(some, None if last is None else Place(last.created, last.id))

    def _given(self, column: sa.ColumnElement[Any], name: str, value: str) -> sa.ColumnElement[bool]:
        """That the parameters' column, which is compact JSON, has that; not LIKE, which has wildcards."""
        begin = f"{json.dumps(name)}:"
        written = dict.fromkeys(f"{begin}{one}{end}" for one in (value, json.dumps(value)) for end in ",}")
        text = sa.type_coerce(column, sa.Text)
        return sa.or_(*(self._holds(text, one) for one in written))

    def _holds(self, column: sa.ColumnElement[Any], part: str) -> sa.ColumnElement[bool]:
        place = sa.func.instr if self._engine.dialect.name == "sqlite" else sa.func.strpos
        return place(column, sa.literal(part, sa.Text)) > 0


def _is(given: Any, value: str) -> bool:
    return given == value or json.dumps(given, separators=(",", ":")) == value
