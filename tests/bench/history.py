"""What a worker and a dashboard ask of their store, with a million finished runs in it, beside an empty one.

``python -m tests.bench.history [RUNS]``. The runs are of 200 deployments; every tenth failed. In front of the claims
stand once none, once 10,000 runs of a deployment that has no place free, once 10,000 whose time has not come.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from flowkit.model import Ending, State, now
from flowkit.store import Store
from flowkit.store.schema import runs
from tests.servers import PostgresServer
from tests.store.given import TEXT, copy, deployment, run, submitted

TIMES = 100
DEPLOYMENTS = 200
AHEAD = 10_000

#: Milliseconds: median, and 99th percentile.
Times = tuple[float, float]


def main(count: int = 1_000_000) -> None:
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        for name, url in (("SQLite", f"sqlite:///{folder}/flowkit.db"), ("PostgreSQL", server.url)):
            with Store.open(url) as store:
                for number in range(DEPLOYMENTS):
                    store.deploy(deployment(f"d{number}", keep_succeeded=10**6, keep_failed=10**6), TEXT, now=now())
                empty = measure(store)
                fill(store, count)
                full = measure(store)
                print(f"\n{name}, ms, median and 99th percentile (load {os.getloadavg()[0]:.1f})\n")
                print(f"{'':40}{'empty':>16}{f'{count:,} finished':>24}")
                for what in full:
                    shown = f"{empty[what][0]:>8.1f}{empty[what][1]:>8.1f}{full[what][0]:>16.1f}{full[what][1]:>8.1f}"
                    print(f"{what:40}{shown}", flush=True)


def fill(store: Store, count: int) -> None:
    """Finished runs, each of a minute of its own, the newest of them now; every tenth failed."""
    ended = {State.SUCCEEDED: 9 * count // 10, State.FAILED: count // 10}
    for state, many in ended.items():
        first = submitted(store, queue="old", created=now() - timedelta(minutes=many))
        store.claim(["old"], "w", now=now())
        store.finish(first.id, 1, Ending(state, None), now=now())
        copy(store, first, many, every="1 minutes", deployment=f"'d' || (n.i % {DEPLOYMENTS})", version="1")
    settle(store)


def settle(store: Store) -> None:
    with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("SET statement_timeout = 0" if connection.dialect.name != "sqlite" else "SELECT 1"))
        connection.execute(sa.text("ANALYZE" if connection.dialect.name == "sqlite" else "VACUUM ANALYZE"))


def measure(store: Store) -> dict[str, Times]:
    found = {"claim": claims(store, now())}
    rows = submit_many(store, "full", max_concurrent=1)
    found["  behind 10,000 of a full deployment"] = claims(store, now())
    remove(store, rows)
    rows = submit_many(store, None, available=now() + timedelta(days=1))
    found["  behind 10,000 whose time will come"] = claims(store, now())
    old = store.runs(limit=1, deployment="d7", states=[State.SUCCEEDED])
    looks: dict[str, Callable[[], object]] = {
        "ready": lambda: store.ready(["bench"], now=now(), limit=4),
        "beats": store.beats,
        "due": lambda: store.due(now=now(), limit=1),
        "counts": store.counts,
        "depth": lambda: store.depth(now()),
        "queues": store.queues,
        "workers": lambda: store.workers(since=now()),
        "deployments": store.deployments,
        "runs, 200 newest": lambda: store.runs(limit=200),
        "  the next 200": lambda: store.runs(limit=200, before=old[0] if old else None),
        "  of a deployment": lambda: store.runs(limit=200, deployment="d7"),
        "  failed": lambda: store.runs(limit=200, states=[State.FAILED]),
        "  failed, of a deployment": lambda: store.runs(limit=200, deployment="d7", states=[State.FAILED]),
        "  failed, of one where none did": lambda: store.runs(limit=200, deployment="d3", states=[State.CANCELLED]),
        "  running": lambda: store.runs(limit=200, states=[State.RUNNING]),
        "search, 200 of a queue": lambda: store.search(limit=200, queue="old"),
        "  of a queue, failed": lambda: store.search(limit=200, queue="old", states=[State.FAILED]),
        "  of a queue that has none": lambda: store.search(limit=200, queue="none"),
        "  by a parameter none has": lambda: store.search(limit=200, parameters=[("day", "2013-07-01")]),
        "  by a parameter, of a deployment": lambda: store.search(
            limit=200, deployment="d7", parameters=[("day", "2013-07-01")]
        ),
        "  by a text in no error": lambda: store.search(limit=200, error="no such text"),
        "  of a day a year ago": lambda: store.search(
            limit=200, since=now() - timedelta(days=365), until=now() - timedelta(days=364)
        ),
    }
    found |= {name: _times(way, 30) for name, way in looks.items()}
    remove(store, rows)
    found["prunable, each minute"] = _times(store.prunable, 5)
    return found


def submit_many(store: Store, name: str | None, *, available: datetime | None = None, **policy: int) -> list[str]:
    """10,000 runs that wait in the queue before all others, and cannot be claimed now: the ids of their kind."""
    more = {} if name is None else {"deployment": name, "version": 1}
    early = now() - timedelta(days=1000)
    if name is not None:
        kept = {"keep_succeeded": 10**6, "policy": run(queue="bench", **policy).policy}
        store.deploy(deployment(name, **kept), TEXT, now=now())
        going = submitted(store, queue="bench", priority=9, created=early, **more, **policy)
        assert store.claim(["bench"], "w", now=now()).id == going.id  # type: ignore[union-attr]
    else:
        going = None
    first = submitted(store, queue="bench", created=early, available=available, **more, **policy)
    copy(store, first, AHEAD, every="1 seconds")
    settle(store)
    return [first.id, *([going.id] if going else [])]


def remove(store: Store, ids: Sequence[str]) -> None:
    with store._engine.begin() as connection:
        for id in ids:
            connection.execute(sa.delete(runs).where(runs.c.id >= id, runs.c.id <= f"{id}~"))


def claims(store: Store, at: datetime) -> Times:
    for _ in range(TIMES + 5):
        store.submit(run(queue="bench", created=at), TEXT)

    def claim() -> None:
        found = store.claim(["bench"], "w", now=at)
        assert found is not None
        assert found.deployment is None

    times = _times(claim, TIMES)
    for beat in store.beats():
        if store.run(beat.run).deployment is None:
            store.release(beat.run, beat.attempt, now=at)
    with store._engine.begin() as connection:
        waiting = runs.c.queue == "bench", runs.c.deployment.is_(None), runs.c.state == "pending"
        connection.execute(sa.delete(runs).where(*waiting, runs.c.available.is_(None)))
    return times


def _times(way: Callable[[], object], times: int) -> Times:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        way()
        taken.append(1000 * (time.perf_counter() - began))
    taken.sort()
    return taken[len(taken) // 2], taken[min(len(taken) - 1, int(len(taken) * 0.99))]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
