"""The dashboard with a million runs in its store: what a page takes, how late an event is on the screen, and what fifty
open browsers cost.

``python -m tests.bench.pages [RUNS]``. A page is read and told as the dashboard's reader does it, for the first time
and then again; its answer also travels and is drawn, which the event's way to the screen has in it. The browsers are
websockets that speak Bokeh's protocol as a page does, and one real one that is looked at.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
from playwright.sync_api import sync_playwright
from websockets.sync.client import connect

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import Act, Ending, Run, State, new_id, now
from flowkit.server.dashboard.audit import Acts
from flowkit.server.dashboard.deployments import Shelf, Single
from flowkit.server.dashboard.now import Lanes, Now
from flowkit.server.dashboard.queue import Times
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.runs import QUESTIONS as RUNS
from flowkit.server.metrics import Metrics
from flowkit.store import Store
from tests.bench.history import DEPLOYMENTS, settle
from tests.server.conftest import QUIET, Dashboard, chromium
from tests.server.mix import SNAPSHOT, begin, deploy, end, submit
from tests.servers import PostgresServer
from tests.store.given import copy, deployment, submitted

BROWSERS = 50
EVENTS = 60
#: Seconds over which the server's CPU is measured.
SPELL = 15.0


def main(count: int = 1_000_000) -> None:
    with tempfile.TemporaryDirectory() as folder, PostgresServer(durable=True) as server:
        home = Path(folder)
        for name, settings in (("SQLite", {}), ("PostgreSQL", {"FLOWKIT_DATABASE_URL": server.url})):
            with Client(Config.from_env({"FLOWKIT_HOME": folder} | settings)) as client:
                fill(client.store, count)
                print(f"\n{name}, {count:,} runs, ms (load {os.getloadavg()[0]:.1f})\n")
                print(f"{'':34}{'first':>10}{'median':>10}{'95th':>10}")
                for what, (first, *again) in pages(client).items():
                    print(f"{what:34}{first:>10.1f}{median(again):>10.1f}{share(again, 0.95):>10.1f}", flush=True)
                live(home, client.store, settings)


def fill(store: Store, count: int) -> None:
    """Runs of 200 deployments that ended, a minute apart, the newest of them now; every tenth failed, in 50 ways."""
    for number in range(DEPLOYMENTS):
        store.deploy(deployment(f"d{number}", keep_succeeded=10**6, keep_failed=10**6), SNAPSHOT, now=now())
    sqlite = store.url.get_backend_name() == "sqlite"
    for state, many in {State.SUCCEEDED: 9 * count // 10, State.FAILED: count // 10}.items():
        first = submitted(store, queue="old", created=now() - timedelta(minutes=many))
        store.claim(["old"], "w", now=now())
        store.finish(first.id, 1, Ending(state, None), now=now())

        def later(seconds: int) -> str:
            if sqlite:
                return f"strftime('%Y-%m-%d %H:%M:%f000', runs.created, '+' || n.i || ' minutes', '+{seconds} seconds')"
            return f"runs.created + n.i * interval '1 minutes' + interval '{seconds} seconds'"

        failed = "'ValueError: column c' || (n.i % 50) || 'x is not there'" if state is State.FAILED else "NULL"
        made = {"started": later(1), "finished": later(21), "error": failed, "version": "1"}
        copy(store, first, many, every="1 minutes", deployment=f"'d' || (n.i % {DEPLOYMENTS})", **made)
    for number in range(500):
        store.note(Act(at=now(), who=f"who{number % 9}", role="admin", what="POST /x", status=200, address="::1"))
    settle(store)


def pages(client: Client) -> dict[str, list[float]]:
    """Milliseconds of each page: of the first look, and of those after it."""
    table = {"states": [], "deployment": None, "before": None}
    newest = client.store.runs(limit=200)
    asked: dict[str, list[Question]] = {
        "Now": [Now(), Lanes()],
        "Runs": [RUNS["runs"](table), RUNS["choice"]({})],
        "  the next page": [RUNS["runs"](table | {"before": newest[-1].id})],
        "  failed": [RUNS["runs"](table | {"states": ["failed"]})],
        "Deployments, 50 of 200": [Shelf()],
        "One deployment": [Single("d7")],
        "Queue": [Lanes(), Times()],
        "Audit": [Acts()],
    }
    found = {}
    for what, questions in asked.items():
        known: Any = {}
        kept: Any = {}
        times = []
        for _ in range(31):
            look = Look(client.store, client.artifacts, client, None, now(), known, kept)
            began = time.perf_counter()
            for question in questions:
                look.found(question)
            times.append(1000 * (time.perf_counter() - began))
            known = look.known
            time.sleep(0.01)
        found[what] = times
    metrics = Metrics(client.store, client)
    found["/metrics"] = [timed(metrics._of_the_store) for _ in range(31)]
    return found


def live(home: Path, store: Store, settings: dict[str, str]) -> None:
    dashboard = Dashboard(home, settings=settings)
    try:
        cookie = "=".join(dashboard.cookie())
        server = psutil.Process(dashboard.process.pid)
        bench = deploy(store, f"bench {new_id()[:8]}", queue=new_id())
        idle = spent(server)
        with browsers(dashboard.url, cookie, '[["now",{}],["lanes",{}]]', BROWSERS) as heard:
            quiet = spent(server)
            with running(store, bench):
                before = heard()
                busy = spent(server)
                each = (heard() - before) / BROWSERS / SPELL
            late = events(dashboard, store, bench)
        print(f"\n{'CPU of the server, % of a core':58}(load {os.getloadavg()[0]:.1f})")
        for what, used in (
            ("nobody looks", idle),
            (f"{BROWSERS} browsers on Now, nothing happens", quiet),
            (f"{BROWSERS} browsers on Now, four runs a second begin and end", busy),
        ):
            print(f"{what:58}{used:>6.0f}")
        print(f"{'messages a second to each of them':58}{each:>6.1f}")
        print(f"{'memory, MB':58}{server.memory_info().rss / 1e6:>6.0f}")
        said = f"median {median(late):.0f}, 95th {share(late, 0.95):.0f}"
        print(f"\nfrom an event to the screen, ms, beside those {BROWSERS}: {said}")
    finally:
        dashboard.stop()


def spent(server: psutil.Process) -> float:
    """Per cent of a core, over a spell."""
    time.sleep(2.0)
    before = server.cpu_times()
    time.sleep(SPELL)
    after = server.cpu_times()
    return 100 * (after.user + after.system - before.user - before.system) / SPELL


@contextmanager
def browsers(url: str, cookie: str, questions: str, count: int) -> Iterator[Callable[[], int]]:
    """So many open pages. What comes out tells how many messages have come to them."""
    heard = [0] * count
    with ExitStack() as stack:
        for place in range(count):
            page = httpx2.get(url, headers={"Cookie": cookie}, timeout=60).raise_for_status().text
            [token] = set(re.findall(r'"token":\s*"([^"]+)"', page))
            [model] = set(re.findall(r'"roots":\s*\{\s*"(\w+)"', page))
            ws = stack.enter_context(
                connect(
                    url.replace("http", "ws") + "ws",
                    subprotocols=["bokeh", token],  # type: ignore[list-item]
                    additional_headers={"Cookie": cookie},
                    origin=url.rstrip("/"),  # type: ignore[arg-type]
                    max_size=None,
                    compression=None,
                )
            )
            asked = [[name, {"type": "map", "entries": [["turn", 1]]}] for name, _ in json.loads(questions)]
            data = {"type": "map", "entries": asked}
            values = {"type": "map", "entries": [["model", {"id": model}], ["data", data]]}
            event = {"type": "event", "name": "data_event", "values": values}
            patch = {"events": [{"kind": "MessageSent", "msg_type": "bokeh_event", "msg_data": event}]}
            for header, content in (({"msgtype": "PULL-DOC-REQ"}, {}), ({"msgtype": "PATCH-DOC"}, patch)):
                for frame in (header | {"msgid": new_id()}, {}, content):
                    ws.send(json.dumps(frame))

            def listen(ws: Any = ws, place: int = place) -> None:
                for frame in ws:
                    heard[place] += '"told"' in str(frame) or '\\"told\\"' in str(frame)

            threading.Thread(target=listen, daemon=True).start()
        deadline = time.monotonic() + 30
        while not all(heard):
            assert time.monotonic() < deadline, f"{heard.count(0)} of {count} pages were told nothing"
            time.sleep(0.1)
        yield lambda: sum(heard)


@contextmanager
def running(store: Store, bench: Any) -> Iterator[None]:
    """Four runs a second, each half a second long."""
    stopped = threading.Event()

    def work() -> None:
        going: list[Run] = []
        while not stopped.wait(0.25):
            going.append(begin(store, submit(store, bench)))
            if len(going) > 2:
                end(store, going.pop(0))
        for run in going:
            end(store, run)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


WATCH = """body => {
  window.seen = {};
  new MutationObserver(changes => requestAnimationFrame(() => {
    for (const change of changes) for (const row of change.addedNodes)
      if (row.dataset?.run) window.seen[row.dataset.run] ??= Date.now() / 1000;
  })).observe(body, {childList: true});
}"""


def events(dashboard: Dashboard, store: Store, bench: Any) -> list[float]:
    """Milliseconds from the commit until the browser has drawn it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        context = browser.new_context()
        dashboard.enter(context)
        page = context.new_page()
        page.goto(f"{dashboard.url}?page=runs")
        page.locator(".page.ready").wait_for(timeout=30_000)
        page.locator(".runs tbody").evaluate(WATCH)
        done = {}
        for number in range(EVENTS):
            page.wait_for_timeout(150 + 37 * (number % 11))
            run = begin(store, submit(store, bench))
            done[run.id] = time.time()
            end(store, run)
        page.wait_for_timeout(3_000)
        seen = page.evaluate("seen")
        browser.close()
    assert len(seen) >= EVENTS, f"{EVENTS - len(seen)} runs did not come to the screen"
    return [1000 * (seen[run] - at) for run, at in done.items()]


def timed(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return 1000 * (time.perf_counter() - began)


def median(values: Sequence[float]) -> float:
    return share(values, 0.5)


def share(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
