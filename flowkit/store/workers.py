"""Who is there to do the work. For people: no lease and no claim depends on it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from flowkit.model import Worker
from flowkit.store.database import Database
from flowkit.store.schema import workers

#: How long a worker that left without a word is still known.
REMEMBERED = timedelta(days=1)


class Workers(Database):
    def enrol(self, worker: Worker) -> None:
        """Make the worker known; again, if it was. Those not seen for a day before that are forgotten."""
        row = asdict(worker)
        statement = self.insert(workers).values(row)
        known = statement.on_conflict_do_update(index_elements=["id"], set_=row)
        with self.writing() as connection:
            connection.execute(known)
            connection.execute(sa.delete(workers).where(workers.c.seen < worker.seen - REMEMBERED))

    def seen(self, worker_id: str, *, now: datetime, dropped: int = 0) -> bool:
        """Note that the worker lives. False: it is not known (any more) and has to enrol again."""
        with self.writing() as connection:
            statement = sa.update(workers).where(workers.c.id == worker_id).values(seen=now, dropped=dropped)
            return connection.execute(statement).rowcount == 1

    def leave(self, worker_id: str) -> None:
        with self.writing() as connection:
            connection.execute(sa.delete(workers).where(workers.c.id == worker_id))

    def workers(self, *, since: datetime) -> list[Worker]:
        """Those seen since then, the longest running first."""
        query = sa.select(workers).where(workers.c.seen >= since).order_by(workers.c.started, workers.c.id)
        with self.reading() as connection:
            return [_to_worker(row) for row in connection.execute(query)]


def _to_worker(row: sa.Row[Any]) -> Worker:
    return Worker(**dict(row._mapping) | {"queues": tuple(row.queues)})
