"""What a tick costs, with a hundred schedules and with a hundred thousand, when none, ten or all of a hundred are due.

``python -m tests.bench.schedules``. It should grow with what is due, not with what exists.
"""

from __future__ import annotations

import os
import tempfile
import time
from datetime import datetime, timedelta

import sqlalchemy as sa

from flowkit.model import Overlap, Schedule, now
from flowkit.store import Store
from flowkit.store.schema import deployments, versions
from flowkit.worker.cron import plan
from tests.bench.history import settle
from tests.servers import PostgresServer
from tests.store.given import TEXT, deployment

COUNTS = 100, 100_000
DUE = 0, 10, 100
TIMES = 20


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        for name, url in (("SQLite", f"sqlite:///{folder}/flowkit.db"), ("PostgreSQL", server.url)):
            with Store.open(url) as store:
                found = {}
                for count in COUNTS:
                    fill(store, count)
                    found |= {(count, due): tick(store, due) for due in DUE}
            print(f"\n{name}, ms for a tick, median of {TIMES} (load {os.getloadavg()[0]:.1f})\n")
            print(f"{'due':>8}" + "".join(f"{f'of {count:,}':>14}" for count in COUNTS))
            for due in DUE:
                print(f"{due:>8}" + "".join(f"{found[count, due]:>14.1f}" for count in COUNTS), flush=True)


def fill(store: Store, count: int) -> None:
    """So many schedules in all, of which none is due for a year."""
    later = now() + timedelta(days=365)
    schedule = Schedule(every=3600.0, overlap=Overlap.ALLOW, next=later)
    first = deployment("s0", schedule=schedule)
    store.deploy(first, TEXT, now=now())
    with store._engine.begin() as connection:
        for table in (deployments, versions):
            [row] = connection.execute(sa.select(table).where(table.c.name == "s0")).mappings()
            have = connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for low in range(have, count, 1_000):
                rows = [{**row, "name": f"s{number}"} for number in range(low, min(count, low + 1_000))]
                connection.execute(sa.insert(table), rows)
        connection.execute(sa.update(deployments).values(next=later))
    settle(store)


def tick(store: Store, due: int) -> float:
    taken = []
    for _ in range(TIMES):
        at = now()
        make_due(store, due, at - timedelta(seconds=1))
        began = time.perf_counter()
        runs = 0
        while fired := store.fire(lambda one, at=at: plan(one, at), now=at, limit=100)[0]:  # type: ignore[misc]
            runs += len(fired)
        taken.append(1000 * (time.perf_counter() - began))
        assert runs == due, (runs, due)
    return sorted(taken)[TIMES // 2]


def make_due(store: Store, due: int, at: datetime) -> None:
    names = [f"s{number}" for number in range(due)]
    with store._engine.begin() as connection:
        connection.execute(sa.update(deployments).where(deployments.c.name.in_(names)).values(next=at, anchor=at))


if __name__ == "__main__":
    main()
