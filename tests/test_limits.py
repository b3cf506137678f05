"""Limits as their user has them: commands, workers and kernels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import UsageError
from flowkit.model import Policy, State, now
from tests.notebooks_made import write
from tests.processes import answer, eventually, flowkit, worker


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    with Client(Config.from_env()) as client:
        yield client


def test_two_workers_keep_within_the_limit_of_a_deployment_and_say_what_the_others_wait_for(
    client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)"
    notebook = write(tmp_path / "load.ipynb", waits)
    assert answer("deploy", notebook, "--max-concurrent", "2")["max_concurrent"] == 2
    runs = [client.submit("load") for _ in range(6)]

    with worker(), worker():
        eventually(lambda: client.store.counts()[State.RUNNING] == 2, seconds=90)
        waiting = client.store.runs(states=[State.PENDING])
        assert len(waiting) == 4
        assert "2 of 2 of deployment load are under way" in flowkit("show", waiting[0].id).stdout
        [queue] = answer("queues")
        assert (queue["id"], queue["waiting"], queue["running"], queue["max_concurrent"]) == ("default", 4, 2, None)
        gate.touch()
        most = 0
        while (counts := client.store.counts())[State.SUCCEEDED] < len(runs):
            most = max(most, counts[State.RUNNING])
            assert not counts[State.FAILED]
        assert most <= 2


def test_a_limit_of_a_queue_is_set_shown_and_taken_away(home: Path) -> None:
    assert flowkit("queue", "limit", "big", "4").stdout == "queue big: 4 at once, from now on\n"
    assert "big" in flowkit("queues").stdout
    flowkit("queue", "limit", "big", "none")
    assert answer("queues") == []
    assert "0 is not in the range" in flowkit("queue", "limit", "big", "0").stderr


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"rate": "often"}, "'often' is no rate; write it as 30/minute, 5/second or 100/10m"),
        ({"rate": "0/minute"}, "'0/minute' is out of range"),
        ({"max_concurrent": 0}, "max_concurrent cannot be 0"),
    ],
)
def test_a_wrong_limit_is_refused(client: Client, tmp_path: Path, policy: dict[str, object], message: str) -> None:
    notebook = write(tmp_path / "load.ipynb", "1")

    with pytest.raises(UsageError, match=message):
        client.deploy(notebook, policy=Policy(**policy))  # type: ignore[arg-type]


def test_a_limit_of_all_runs_is_not_given_to_one(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="max_concurrent holds for all runs of a deployment; deploy it with that"):
        client.submit(write(tmp_path / "load.ipynb", "1"), policy={"max_concurrent": 1})


def test_a_node_that_waits_for_its_limit_says_until_when(client: Client, tmp_path: Path) -> None:
    flow = """import flowkit as fk
flow = fk.Flow("crm")
@flow.node
def customers() -> list:
    return [1, 2, 3]
@flow.node(map="customers", limit="crm-api")
def push(customers: int) -> None:
    pass
"""
    assert "crm-api: 1/hour\n" in flowkit("limit", "set", "crm-api", "1/h").stdout
    run = client.submit(write(tmp_path / "crm.ipynb", flow, "flow.run()"))

    with worker():
        eventually(
            lambda: sum(node.limit is not None for node in client.nodes(client.store.run(run.id))) == 2, seconds=90
        )
        shown = flowkit("show", run.id).stdout
        assert len(re.findall(r"push\[\d\] +· pending .* waits for crm-api until \d\d:\d\d:\d\d", shown)) == 2
        client.cancel(run.id)
        eventually(lambda: client.store.run(run.id).state is State.CANCELLED)
    assert not any(node.limit for node in client.nodes(client.store.run(run.id)))


def test_limits_are_set_listed_and_removed(client: Client) -> None:
    assert flowkit("limits").stdout == "no limits yet; set one: flowkit limit set NAME 30/minute\n"
    set = flowkit("limit", "set", "crm-api", "30/minute", "--failures", "2", "--close-for", "5m").stdout
    assert set == "crm-api: 30/minute, closed for 300 s after 2 failures in 60 s\n"
    for _ in range(2):
        client.store.tell("crm-api", "ConnectTimeout: no answer", now=now())
    listed = flowkit("limits").stdout
    assert re.search(
        r"crm-api  30/minute  300 s after 2 failures in 60 s  closed until [\d:]{8}  ConnectTimeout: no", listed
    )
    [limit] = answer("limits")
    assert (limit["id"], limit["failures"], limit["error"]) == ("crm-api", 2, "ConnectTimeout: no answer")
    assert flowkit("limit", "remove", "crm-api").stdout == "crm-api is removed\n"
    assert "no limit 'crm-api'" in flowkit("limit", "remove", "crm-api").stderr
