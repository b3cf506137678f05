"""Two servers of one store behind a load balancer, each request answered by the other one: no state is in either."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import httpx2
import pytest
from playwright.sync_api import Browser, expect
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from flowkit.model import Role, now
from flowkit.store import Store
from tests.notebooks_made import notebook
from tests.proxy import Proxy, proxy
from tests.server.conftest import Dashboard
from tests.server.mix import begin, deploy, end, submit


@dataclass
class Balanced:
    between: Proxy
    store: Store
    secret: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def servers(self, what: str) -> int:
        """How many have been asked that."""
        return len({port for port, asked in self.between.taken if asked == what})


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    home = tmp_path_factory.mktemp("home")
    dashboards = [Dashboard(home), Dashboard(home)]
    ports = [int(one.url.rstrip("/").rpartition(":")[2]) for one in dashboards]
    with proxy(*ports) as between, dashboards[0].store() as store:
        at = now()
        _, secret = store.create_token("ops", Role.ADMIN, expires=at + timedelta(days=1), now=at)
        yield Balanced(between, store, secret)
    for one in dashboards:
        one.stop()


def test_a_login_at_one_server_is_one_at_the_other(balanced: Balanced) -> None:
    url = balanced.between.url.rstrip("/")
    with httpx2.Client(base_url=url, timeout=60) as web:
        ours = {"Origin": url, "X-Flowkit-Page": "1"}
        assert web.post("/login", data={"token": balanced.secret}, headers=ours).status_code == 303
        run = submit(balanced.store, deploy(balanced.store, "waits"))
        other = submit(balanced.store, deploy(balanced.store, "waits too"))
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in web.cookies.items())}
        for one in (run, other):
            body = {"runs": [one.id]}
            assert web.post("/act/cancel", json=body, headers=ours).status_code == 200
            assert web.post("/act/cancel", json=body, headers={"Origin": "http://evil.example"}).status_code == 403
        assert balanced.servers("POST /act/cancel") == 2
        for _ in range(2):  # the page is one server's, and its websocket the other's
            found = re.search(r'"token":"([^"]+)"', web.get("/").text)
            assert found is not None
            offered = [Subprotocol("bokeh"), Subprotocol(found[1])]
            at = url.replace("http", "ws") + "/ws"
            with connect(at, subprotocols=offered, origin=Origin(url), additional_headers=cookie) as socket:
                assert json.loads(socket.recv(timeout=30))["msgtype"] == "ACK"
            web.get("/healthz")  # so that the next time it is the other way round
        assert balanced.servers("GET /") == balanced.servers("GET /ws") == 2


def test_the_api_and_its_events_go_on_at_the_other_server(balanced: Balanced) -> None:
    with httpx2.Client(base_url=balanced.between.url, headers=balanced.bearer, timeout=60) as web:
        body = {"notebook": notebook("day", parameters="day: int = 1"), "path": "/home/anna/daily.ipynb"}
        assert [web.post("/api/v1/deployments", json=body).json()["new"] for _ in range(2)] == [True, False]
        key = {"Idempotency-Key": "today"}
        made = {web.post("/api/v1/runs", json={"deployment": "daily"}, headers=key).json()["id"] for _ in range(4)}
        assert len(made) == 1
        pages, cursor = 0, None
        while pages == 0 or cursor:
            page = web.get("/api/v1/runs", params={"limit": 1, **({"cursor": cursor} if cursor else {})}).json()
            pages, cursor = pages + 1, page["next"]
        assert pages == len(balanced.store.runs(limit=100))

        id, seen = None, []
        deployment = deploy(balanced.store, "busy", queue="busy")
        while len(seen) < 12:
            given = {"Last-Event-ID": id} if id else {}
            with web.stream("GET", "/api/v1/events", params={"deployment": "busy"}, headers=given) as answer:
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    id = value if name == "id" else id
                    if name == "event" and value == "here" and not seen:
                        for _ in range(4):
                            end(balanced.store, begin(balanced.store, submit(balanced.store, deployment)))
                    if name == "data" and "state" in value:
                        seen.append((json.loads(value)["run"], json.loads(value)["state"]))
                        if len(seen) % 3 == 0:
                            break  # cut off: what follows is asked of the other
        runs = [run.id for run in reversed(balanced.store.runs(limit=4, deployment="busy"))]
        assert seen == [(run, state) for run in runs for state in ("pending", "running", "succeeded")]
        assert balanced.servers("GET /api/v1/events") == 2


def test_a_browser_sees_what_happens(balanced: Balanced, browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(balanced.between.url)
        page.get_by_label("Or paste a token").fill(balanced.secret)
        page.get_by_role("button", name="Log in").click()
        page.goto(f"{balanced.between.url}?page=runs")
        for name in ("before", "meanwhile"):
            submit(balanced.store, deploy(balanced.store, name))
            expect(page.get_by_role("row", name=name)).to_be_visible(timeout=60_000)
