"""Limits that nodes share, in the author's notebook: declared there, and kept within its process."""

from __future__ import annotations

import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import flowkit as fk
from flowkit.errors import GraphError, UsageError
from flowkit.model import new_id


def starts(rate: str, items: int, **options: Any) -> list[float]:
    """When the calls of a mapped node began."""
    name = fk.limit(f"api-{new_id()}", rate)
    flow, found, lock = fk.Flow("calls"), [], threading.Lock()

    @flow.node
    def numbers() -> list[int]:
        return list(range(items))

    @flow.node(map="numbers", limit=name)
    def call(numbers: int) -> int:
        with lock:
            found.append(time.monotonic())
        return numbers

    assert flow.run(**options)["call"] == list(range(items))
    return sorted(found)


@pytest.mark.parametrize("how", ["threads", "here", "executor"])
def test_no_more_calls_begin_than_the_limit_lets_pass(how: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        options = {"threads": {"threads": 8}, "here": {"threads": 1}, "executor": {"executor": pool}}[how]
        found = starts("5/second", 12, **options)

    for first, sixth in zip(found, found[5:], strict=False):
        assert sixth - first > 0.9  # a thread may begin a little after it was let pass


def test_calls_that_wait_keep_no_thread_from_others() -> None:
    name = fk.limit(f"api-{new_id()}", "1/minute")
    flow, done = fk.Flow("calls"), threading.Event()

    @flow.node
    def numbers() -> list[int]:
        return list(range(50))

    @flow.node(map="numbers", limit=name)
    def call(numbers: int) -> int:
        return numbers

    @flow.node
    def other(numbers: list[int]) -> None:
        done.set()

    threading.Thread(target=flow.run, kwargs={"threads": 2}, daemon=True).start()
    assert done.wait(20)


def test_every_retry_asks_again() -> None:
    name = fk.limit(f"api-{new_id()}", "1/second")
    flow, found = fk.Flow("calls"), []

    @flow.node(limit=name, retries=1, delay=0.0)
    def call() -> None:
        found.append(time.monotonic())
        if len(found) == 1:
            raise ValueError("once more")

    flow.run()
    assert found[1] - found[0] > 0.9


def test_a_limit_that_nobody_declared_is_told_once_and_does_not_hold() -> None:
    flow, name = fk.Flow("calls"), f"api-{new_id()}"

    @flow.node(limit=name)
    def call() -> int:
        return 1

    with pytest.warns(UserWarning, match=rf"nothing limits '{name}' in this notebook; fk.limit\('{name}'"):
        assert flow.run()["call"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow.run()


def test_a_wrong_limit_is_refused_where_it_is_written() -> None:
    with pytest.raises(UsageError, match="'often' is no rate"):
        fk.limit("api", "often")
    with pytest.raises(UsageError, match="'my api' cannot be a limit's name"):
        fk.limit("my api", "1/s")
    with pytest.raises(GraphError, match="node 'call' has limit=5; it must be a limit's name"):

        @fk.Flow("calls").node(limit=5)  # type: ignore[call-overload]
        def call() -> None: ...
