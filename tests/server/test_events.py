"""Who follows what happens, is cut off and comes back, misses nothing; and the figures count it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from flowkit.model import Role, State, now
from flowkit.store import Store
from flowkit.store.changes import Position
from tests.server.conftest import Dashboard
from tests.server.mix import begin, deploy, end, said, steps, submit

GRAFANA = Path(__file__).parent.parent.parent / "docs" / "grafana.json"


@dataclass
class Served:
    url: str
    store: Store
    headers: dict[str, str]

    def stream(self, after: str | None) -> Any:
        given = self.headers | ({"Last-Event-ID": after} if after else {})
        return httpx2.stream("GET", f"{self.url}api/v1/events", headers=given, timeout=60)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    dashboard = Dashboard(tmp_path_factory.mktemp("home"))
    with dashboard.store() as store:
        at = now()
        _, secret = store.create_token("program", Role.VIEWER, expires=at + timedelta(days=1), now=at)
        yield Served(dashboard.url, store, {"Authorization": f"Bearer {secret}"})
    assert dashboard.stop()[0] == 0


def messages(lines: Iterator[str]) -> Iterator[tuple[str, str, Any]]:
    told: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            told[name] = value
        elif "event" in told:
            yield told["id"], told["event"], json.loads(told["data"])
            told = {}


def test_nothing_is_missed_or_told_twice_however_often_the_connection_is_cut(served: Served) -> None:
    start = served.store.here()
    with served.stream(None) as answer:
        id, event, _ = next(messages(answer.iter_lines()))
    assert event == "here"
    deployment = deploy(served.store, "busy")

    def work() -> None:
        for number in range(30):
            run = begin(served.store, submit(served.store, deployment))
            served.store.record(run.id, run.attempt, [*steps(float(number)), said("left out")])
            end(served.store, run)

    worker = threading.Thread(target=work)
    worker.start()
    seen: list[tuple[str, str]] = []
    cut = 0
    while len(seen) < 120:
        with served.stream(id) as answer:
            for id, event, data in messages(answer.iter_lines()):
                if event == "here":
                    continue
                seen.append((id, data.get("state") or "nodes"))
                if len(seen) % 7 == 0 or len(seen) == 120:
                    cut += 1
                    break
    worker.join()
    expected = [(str(one.position), one.state or "nodes") for one in served.store.changes(after=start, limit=500)]
    assert seen == expected
    assert cut > 10


def test_a_websocket_tells_the_same_of_one_deployment_alone(served: Served) -> None:
    url = served.url.replace("http", "ws") + "api/v1/events?deployment=mine"
    with connect(url, additional_headers=served.headers) as socket:
        assert json.loads(socket.recv(timeout=30))["event"] == "here"
        submit(served.store, deploy(served.store, "others", queue="others"))
        run = begin(served.store, submit(served.store, deploy(served.store, "mine", queue="mine")))
        told = [json.loads(socket.recv(timeout=30)) for _ in range(2)]
        assert [(one["event"], one["data"]["run"], one["data"]["state"]) for one in told] == [
            ("run", run.id, "pending"),
            ("run", run.id, "running"),
        ]
    end(served.store, run)
    with connect(f"{url}&after={told[0]['id']}", additional_headers=served.headers) as socket:
        again = [json.loads(socket.recv(timeout=30))["data"].get("state") for _ in range(3)]
    assert again == [None, State.RUNNING, State.SUCCEEDED]


def test_what_is_open_ends_with_its_token(served: Served) -> None:
    at = now()

    def secret(name: str, lasts: timedelta = timedelta(days=1)) -> str:
        return served.store.create_token(name, Role.VIEWER, expires=at + lasts, now=at)[1]

    def following(secret: str) -> ClientConnection:
        url = served.url.replace("http", "ws") + "api/v1/events"
        socket = sockets.enter_context(connect(url, additional_headers={"Authorization": f"Bearer {secret}"}))
        assert json.loads(socket.recv(timeout=30))["event"] == "here"
        return socket

    with ExitStack() as sockets:
        revoked, expired = following(secret("revoked")), following(secret("expired", timedelta(seconds=10)))
        login = secret("login")
        page = sockets.enter_context(dashboard_socket(served, login))
        headers = {"Authorization": f"Bearer {login}"}
        with httpx2.stream("GET", f"{served.url}api/v1/events", headers=headers, timeout=60) as answer:
            served.store.revoke_token("revoked")
            served.store.revoke_token("login")
            for _ in answer.iter_lines():
                pass
        for socket in (revoked, expired, page):
            with suppress(ConnectionClosed):
                while True:
                    socket.recv(timeout=30)
            assert socket.close_code == 4401


def dashboard_socket(served: Served, secret: str) -> connect:
    """As the page opens it in a browser."""
    with httpx2.Client(base_url=served.url) as web:
        web.get("/", params={"token": secret})
        found = re.search(r'"token":"([^"]+)"', web.get("/").text)
        assert found is not None
        [(name, value)] = web.cookies.items()
    url, origin = served.url.replace("http", "ws") + "ws", Origin(served.url.rstrip("/"))
    cookie = {"Cookie": f"{name}={value}"}
    return connect(
        url, subprotocols=[Subprotocol("bokeh"), Subprotocol(found[1])], origin=origin, additional_headers=cookie
    )


def test_an_id_that_is_none_is_refused(served: Served) -> None:
    with served.stream("yesterday") as answer:
        assert answer.status_code == 422


def test_who_was_away_too_long_is_told(served: Served) -> None:
    before = served.store.here()
    submit(served.store, deploy(served.store, "long ago", queue="long ago"))
    served.store.forget_changes(before=now() + timedelta(minutes=1))
    with served.stream(str(before)) as answer:
        assert next(messages(answer.iter_lines()))[1] == "forgotten"
    with served.stream(str(Position(*served.store.here()))) as answer:
        assert next(messages(answer.iter_lines()))[1] == "here"


def figures(served: Served) -> str:
    return httpx2.get(f"{served.url}metrics", headers=served.headers, timeout=60).text


def test_the_figures_count_what_is_and_what_happened(served: Served) -> None:
    with served.stream(None) as answer:
        told = messages(answer.iter_lines())
        next(told)
        run = begin(served.store, submit(served.store, deploy(served.store, "counted", queue="counted")))
        end(served.store, run)
        while next(told)[2].get("state") != "succeeded":
            pass
    text = figures(served)
    for line in (
        'flowkit_runs_finished_total{deployment="counted",state="succeeded"} 1.0',
        'flowkit_run_duration_seconds_count{deployment="counted"} 1.0',
        'flowkit_run_wait_seconds_count{queue="counted"} 1.0',
        'flowkit_queue_depth{queue="others"} 1.0',
        'flowkit_runs{deployment="counted",state="succeeded"} 1.0',
        "flowkit_store_up 1.0",
    ):
        assert line in text
    assert run.id not in text


def test_the_dashboard_of_grafana_asks_for_figures_that_there_are(served: Served) -> None:
    there = set(re.findall(r"^# TYPE (flowkit_\w+?)(?:_created)? ", figures(served), re.M)) | {
        "flowkit_redis_memory_used_bytes", "flowkit_redis_memory_limit_bytes", "flowkit_redis_up",
        "flowkit_redis_evicted_keys", "flowkit_redis_keyspace_hits", "flowkit_redis_keyspace_misses",
    }  # fmt: skip
    board = json.loads(GRAFANA.read_text())
    asked = {name for panel in board["panels"] for one in panel.get("targets", ()) for name in _names(one["expr"])}
    assert asked
    assert asked <= there
    assert not any("http" in str(panel) for panel in board["panels"])


def _names(expression: str) -> list[str]:
    return [re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"flowkit_\w+", expression)]


def test_it_lives_and_is_ready_until_the_store_is_gone(served: Served, tmp_path: Path) -> None:
    assert httpx2.get(f"{served.url}healthz").text == "ok\n"
    assert httpx2.get(f"{served.url}readyz", timeout=30).text == "ok\n"
    database = Path(str(served.store.url.database))
    database.rename(tmp_path / "away")
    try:
        assert httpx2.get(f"{served.url}readyz", timeout=30).status_code == 503
        assert httpx2.get(f"{served.url}healthz").status_code == 200
    finally:
        (tmp_path / "away").rename(database)
