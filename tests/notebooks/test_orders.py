"""The seed's flow, A to D, by a real worker against servers that fail, throttle and hang: each item arrives once."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import State
from tests.processes import answer, eventually, worker
from tests.test_alerts import Hook, hook
from tests.worker.execution import Execution

__all__ = ["hook"]  # the fixture

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "orders.ipynb"

spec = importlib.util.spec_from_file_location("shop", NOTEBOOK.with_name("shop.py"))
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["shop"] = module
spec.loader.exec_module(module)

#: What is to arrive, worked out from the shop's own list.
EXPECTED = {
    order["order_id"]: {
        "id": order["order_id"],
        "euros": order["total"],
        "customer": order["customer"]["email"].strip().lower(),
    }
    for order in module.ORDERS
    if order["status"] == "paid" and order["total"] >= 20
}


@pytest.fixture
def shop() -> Iterator[Any]:
    with module.Shop() as shop:
        yield shop


@pytest.fixture
def client(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("FLOWKIT_LEASE", "6")
    with Client(Config.from_env()) as client:
        yield client


def arrived(shop: Any) -> dict[str, Any]:
    """By id, after no id has come twice."""
    ids = [order["id"] for order in shop.taken]
    assert sorted(ids) == sorted(set(ids)), "an order was taken twice"
    return {order["id"]: order for order in shop.taken}


def test_each_order_arrives_once_though_both_servers_misbehave_and_the_worker_is_killed(
    shop: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_HTTP_ALLOW", f"127.0.0.1:{shop.url.split(':')[2].split('/')[0]}")
    given = {"source": shop.url, "target": shop.url, "patience": 2.0}
    run = client.submit(NOTEBOOK, parameters=given)

    with worker() as first:
        eventually(lambda: len(shop.taken) >= 10)
        shop.ready.clear()  # some more are on their way, and will be taken after whoever sent them is gone
        before = shop.requests["POST"]
        eventually(lambda: shop.requests["POST"] >= before + 3)
        fetched = shop.requests["GET"]
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert len(shop.taken) < len(EXPECTED)
    shop.ready.set()
    with worker():
        ended = eventually(lambda: (found := client.store.run(run.id)).state.final and found, seconds=90)

    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2), ended.error
    assert arrived(shop) == EXPECTED
    assert shop.requests["POST"] >= len(EXPECTED) + 10, "the servers misbehaved"
    assert shop.requests["GET"] == fetched, "what was fetched before is not fetched again"
    assert f"{len(EXPECTED)} of {len(module.ORDERS)} orders delivered" in Path(ended.output or "").read_text()


def test_a_night_that_fails_is_told_with_the_node_and_why(
    shop: Any, client: Client, hook: tuple[Hook, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = hook
    monkeypatch.setenv("FLOWKIT_SECRET_OPS", url)
    client.deploy(NOTEBOOK, parameters={"source": shop.url, "target": shop.url})
    answer("alert", "add", "orders", "secret:ops")
    client.submit("orders")

    with worker():
        eventually(lambda: server.received, seconds=60)

    (said,) = server.received
    assert "orders" in said["title"]
    assert "node 'orders' failed: AddressRefused: 127.0.0.1 is this machine itself" in said["message"]


def test_a_workers_kernel_that_may_not_connect_there_says_so(shop: Any, home: Path, tmp_path: Path) -> None:
    given = {"source": shop.url, "target": shop.url}
    ended = Execution(tmp_path).run(text=NOTEBOOK.read_text(), parameters=given)

    assert (
        "node 'orders' failed: AddressRefused: 127.0.0.1 is this machine itself, which an HTTP node of a worker does "
        "not connect to; if it is meant, add it to the worker's FLOWKIT_HTTP_ALLOW" in (ended.error or "")
    )
    assert shop.requests == {"GET": 0, "POST": 0}


def test_its_reader_can_run_it_as_it_stands() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    place = next(i for i, cell in enumerate(notebook.cells) if cell.get("id") == "parameters")
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("patience = 2.0", id="injected"))

    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    done = nbclient.NotebookClient(notebook, timeout=90, kernel_name="python3", resources=resources).execute()

    (run,) = (cell for cell in done.cells if cell.get("id") == "run")
    assert f"{len(EXPECTED)} of {len(module.ORDERS)} orders delivered" in "".join(
        o.get("text", "") for o in run.outputs
    )
