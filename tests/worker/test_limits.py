"""The worker's side of limits that nodes share: counted on Redis or in the store, asked through two pipes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import flowkit as fk
from flowkit.errors import NodeFailed, UsageError
from flowkit.flow import limits as in_kernel
from flowkit.model import CurrentRun, Limit, new_id
from flowkit.rates import Rate
from flowkit.store import Store
from flowkit.worker.limits import Desk, Limiter
from tests.store.given import together


@pytest.fixture(params=["store", "redis"])
def limiter(request: pytest.FixtureRequest, store: Store) -> Limiter:
    """Counts in both kinds of store, and on Redis."""
    if request.param == "store":
        return Limiter(store, None)
    return Limiter(store, redis.ConnectionPool.from_url(request.getfixturevalue("redis_url")))


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limiter: Limiter) -> Iterator[Path]:
    """As a kernel has it whose worker is this process."""
    current = CurrentRun(id="r", key="k", attempt=1, deployment=None, notebook="n.ipynb")
    (tmp_path / "run.json").write_text(current.to_json())
    monkeypatch.setenv("FLOWKIT_RUN_FOLDER", str(tmp_path))
    with Desk(tmp_path, limiter.answer):
        yield tmp_path


def test_two_workers_let_no_more_pass_than_the_rate(store: Store, limiter: Limiter) -> None:
    name = f"api-{new_id()}"
    store.set_limit(Limit(name=name, rate="9/minute"))

    answers = together(6, lambda _: [limiter.answer({"limit": name}) for _ in range(5)])

    every = [answer for some in answers for answer in some if answer is not None]
    assert sum("wait" not in answer for answer in every) == 9
    assert all(50 < answer["wait"] <= 60.1 for answer in every if "wait" in answer)
    assert all(answer["gap"] == pytest.approx(60 / 9) for answer in every)


def test_a_rate_holds_in_every_span(store: Store, limiter: Limiter) -> None:
    name = f"api-{new_id()}"
    store.set_limit(Limit(name=name, rate="4/s"))
    until, found = time.monotonic() + 2.5, []
    while time.monotonic() < until:
        asked = time.monotonic()
        answer = limiter.answer({"limit": name})
        assert answer is not None
        if "wait" in answer:
            assert answer["wait"] <= 1.0
            time.sleep(min(0.02, answer["wait"]))
        else:
            found.append((asked, time.monotonic()))

    assert len(found) >= 8
    for (first, _), (_, fifth) in zip(found, found[4:], strict=False):
        assert fifth - first >= 1.0


def test_redis_that_is_gone_leaves_counting_to_the_store(store: Store) -> None:
    limiter = Limiter(store, redis.ConnectionPool.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2))
    store.set_limit(Limit(name="api", rate="2/minute"))

    answers = [limiter.answer({"limit": "api"}) for _ in range(3)]

    assert ["wait" in (answer or {}) for answer in answers] == [False, False, True]


def test_nodes_of_a_run_ask_their_worker_and_say_that_they_wait(store: Store, run_folder: Path) -> None:
    name = f"api-{new_id()}"
    store.set_limit(Limit(name=name, rate="5/s"))
    flow, starts = fk.Flow("calls"), []

    @flow.node
    def numbers() -> list[int]:
        return list(range(8))

    @flow.node(map="numbers", limit=name)
    def call(numbers: int) -> None:
        starts.append(time.monotonic())

    flow.run()

    assert max(starts) - min(starts) > 0.9
    events = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines()]
    waits = [event["data"] for event in events if event["kind"] == "node" and event["state"] == "pending"]
    assert {wait["limit"] for wait in waits} == {name}
    assert all(0 < wait["until"] - time.time() + 5 < 10 for wait in waits)
    assert len(waits) < 20, "a call asks when it is its turn, and not over and over"


def test_a_limit_that_nobody_has_defined_fails_before_the_first_node(store: Store, run_folder: Path) -> None:
    flow, name = fk.Flow("calls"), f"api-{new_id()}"
    called = []
    flow.add(lambda: called.append(1), "first")
    flow.add(lambda: 1, "second", limit=name)

    with pytest.raises(
        UsageError, match=f"nobody has defined the limit '{name}'; `flowkit limit set {name} 30/minute`"
    ):
        flow.run()
    assert called == []

    fk.limit(name, "5/s")  # the notebook does
    flow.run()
    assert [limit.rate for limit in store.limits() if limit.declared] == ["5/second"]
    store.set_limit(Limit(name=name, rate="7/s"))
    flow.run()
    assert [limit.rate for limit in store.limits()] == ["7/second"]


def test_nodes_fail_fast_while_their_limit_is_closed(store: Store, run_folder: Path) -> None:
    name = f"api-{new_id()}"
    store.set_limit(Limit(name=name, rate="1000/s", failures=2, close_for=300))
    flow, called = fk.Flow("calls"), []

    @flow.node(limit=name, retries=5, delay=0.0)
    def call() -> None:
        called.append(1)
        raise ConnectionError("no answer")

    with pytest.raises(
        NodeFailed, match=rf"{name} is closed until \d\d:\d\d:\d\d after 2 failures; last: Conn.*no answer"
    ):
        flow.run()
    assert len(called) == 2


def test_a_question_is_answered_at_once(store: Store, run_folder: Path) -> None:
    store.set_limit(Limit(name="api", rate="100000/s"))
    gate = in_kernel.Gate(["api"])
    took = []
    for _ in range(30):
        asked = time.monotonic()
        assert gate.ask("api", again=False) is None
        took.append(time.monotonic() - asked)

    assert sorted(took)[15] < 0.05


def test_what_no_kernel_of_ours_has_written_is_passed_over(store: Store, run_folder: Path) -> None:
    store.set_limit(Limit(name="api", rate="100/s"))
    asks = os.open(run_folder / "limits.ask", os.O_WRONLY)
    for garbage in (b"\n", b"\xff\xfe\n", b"[]\n", b'{"limit": 5, "rate": {}}\n', b"[" * 5000 + b"\n", b"x" * 9000):
        os.write(asks, garbage)
    os.write(asks, b"\n")
    os.close(asks)

    assert in_kernel.Gate(["api"]).ask("api", again=False) is None


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("30/minute", Rate(30, 60)),
        ("5/s", Rate(5, 1)),
        ("100/10m", Rate(100, 600)),
        ("1 / 2 hours", Rate(1, 7200)),
        ("9/DAY", Rate(9, 86_400)),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "30", "30/fortnight", "-1/s", "1.5/s", "0/s", "1/0s", "9999999/s", "1/99d", None])
def test_what_is_no_rate_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match=r"is no rate|is out of range"):
        Rate.parse(text)
