"""What the tests of the store begin with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from flowkit.model import Deployment, Policy, Run, new_id
from flowkit.store import Store
from flowkit.store.schema import runs

T0 = datetime(2013, 7, 1, 6, 0, 0, 123456, tzinfo=UTC)
TEXT = '{"cells": []}'

Result = TypeVar("Result")


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def run(**changes: Any) -> Run:
    """A run that can be submitted with ``TEXT``."""
    policy = {name: changes.pop(name) for name in Policy.__slots__ if name in changes}
    given: dict[str, Any] = {
        "id": new_id(),
        "deployment": None,
        "version": None,
        "notebook": "/notebooks/flights.ipynb",
        "snapshot": "digest",
        "parameters": {},
        "policy": Policy(**policy),
        "created": T0,
    }
    given |= changes
    return Run(**{"key": given["id"]} | given)


def submitted(store: Store, **changes: Any) -> Run:
    return store.submit(run(**changes), TEXT)[0]


def claimed(store: Store, *, now: datetime = T0, **changes: Any) -> Run:
    """A run that worker ``w1`` has just claimed, the only one of its queue."""
    queue = changes.setdefault("queue", new_id())
    submitted(store, **changes)
    found = store.claim([queue], "w1", now=now)
    assert found is not None
    return found


def deployment(name: str = "flights", **changes: Any) -> Deployment:
    given = {"name": name, "notebook": "/notebooks/flights.ipynb", "snapshot": "digest"}
    return Deployment(**given | changes)


def copy(store: Store, first: Run, count: int, *, every: str, **made: str) -> None:
    """So many more rows like that of this run, each submitted so much after the one before."""
    with store._engine.begin() as connection:
        columns = [f'"{column.name}"' for column in runs.c]
        sqlite = connection.dialect.name == "sqlite"
        number, unit = every.split()
        if sqlite:
            numbers = "WITH RECURSIVE n(i) AS (SELECT :low UNION ALL SELECT i + 1 FROM n WHERE i < :high) "
            source, later = "n", f"strftime('%Y-%m-%d %H:%M:%f000', runs.created, '+' || (n.i * {number}) || ' {unit}')"
        else:
            numbers, source = "", "generate_series(CAST(:low AS int), CAST(:high AS int)) AS n(i)"
            later = f"runs.created + n.i * interval '{every}'"
        made = {"id": "runs.id || n.i", "key": "runs.id || n.i", "created": later} | made
        select = ", ".join(made.get(name.strip('"'), f"runs.{name}") for name in columns)
        many = sa.text(
            f"INSERT INTO runs ({', '.join(columns)}) {numbers}SELECT {select} FROM runs, {source} WHERE runs.id = :id"
        )
        for low in range(1, count, 10_000):  # a statement may take 5 s
            connection.execute(many, {"low": low, "high": min(count - 1, low + 10_000 - 1), "id": first.id})


def together(count: int, act: Callable[[int], Result]) -> list[Result]:
    """What ``act(0)`` … ``act(count - 1)`` return, all called at the same moment, each in a thread of its own."""
    start = threading.Barrier(count)
    results: dict[int, Result] = {}
    errors: list[BaseException] = []

    def body(number: int) -> None:
        start.wait()
        try:
            results[number] = act(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(count)]
