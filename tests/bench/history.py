"""What a worker asks of its store each second, and a claim, with a million finished runs in it, beside an empty one.

``python -m tests.bench.history [RUNS]``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa

from flowkit.model import Ending, State, now
from flowkit.store import Store
from flowkit.store.schema import runs
from tests.servers import PostgresServer
from tests.store.given import run, submitted

TIMES = 100
CHUNK = 10_000


def main(count: int = 1_000_000) -> None:
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        for name, url in (("SQLite", f"sqlite:///{folder}/flowkit.db"), ("PostgreSQL", server.url)):
            with Store.open(url) as store:
                print(f"\n{name}, ms, median and 99th percentile (load {os.getloadavg()[0]:.1f})\n", flush=True)
                empty = measure(store)
                fill(store, count)
                full = measure(store)
                print(f"{'':24}{'empty':>16}{f'{count:,} finished':>24}")
                for what in full:
                    print(
                        f"{what:24}{empty[what][0]:>8.1f}{empty[what][1]:>8.1f}{full[what][0]:>16.1f}{full[what][1]:>8.1f}"
                    )


def fill(store: Store, count: int) -> None:
    """Copies of one finished run, each of a minute of its own."""
    first = submitted(store, queue="old", created=now() - timedelta(days=900))
    store.claim(["old"], "w", now=now())
    store.finish(first.id, 1, Ending(State.SUCCEEDED), now=now())
    with store._engine.begin() as connection:
        columns = [column.name for column in runs.c]
        sqlite = connection.dialect.name == "sqlite"
        numbers = (
            "WITH RECURSIVE n(i) AS (SELECT :low UNION ALL SELECT i + 1 FROM n WHERE i < :high) " if sqlite else ""
        )
        source = "n" if sqlite else "generate_series(CAST(:low AS int), CAST(:high AS int)) AS n(i)"
        made = {"id": "'x' || n.i", "key": "'x' || n.i"}
        made["created"] = (
            "datetime(created, '+' || n.i || ' minutes')" if sqlite else "created + n.i * interval '1 minute'"
        )
        select = ", ".join(made.get(name, name) for name in columns)
        many = sa.text(
            f"INSERT INTO runs ({', '.join(columns)}) {numbers}SELECT {select} FROM runs, {source} WHERE runs.id = :id"
        )
        for low in range(1, count, CHUNK):  # a statement may take 5 s
            connection.execute(many, {"low": low, "high": min(count, low + CHUNK - 1), "id": first.id})
    with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


def measure(store: Store) -> dict[str, tuple[float, float]]:
    for _ in range(TIMES + 5):
        store.submit(run(queue="bench"), '{"cells": []}')
    ways: dict[str, Callable[[], object]] = {
        "claim": lambda: store.claim(["bench"], "w", now=now()),
        "first page of runs": lambda: store.runs(limit=20),
        "ready": lambda: store.ready(["bench"], now=now(), limit=4),
        "beats": store.beats,
        "due": lambda: store.due(now=now(), limit=1),
    }
    found = {name: _times(way, TIMES) for name, way in ways.items()}
    found["prunable, each minute"] = _times(store.prunable, 3)
    return found


def _times(way: Callable[[], object], times: int) -> tuple[float, float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        way()
        taken.append(1000 * (time.perf_counter() - began))
    taken.sort()
    return taken[len(taken) // 2], taken[min(len(taken) - 1, int(len(taken) * 0.99))]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
