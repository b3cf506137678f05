"""The dashboard as a person has it: ``flowkit dashboard``, a real store, a real browser."""

from __future__ import annotations

import http.server
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Literal

import nbformat.v4 as v4
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from flowkit.artifacts import Artifacts
from flowkit.events import Event
from flowkit.model import Cause, Role, Run, State, now
from flowkit.server.dashboard import document
from flowkit.server.dashboard.runs import PAGE
from flowkit.shelf import Shelf, kept_path
from flowkit.store import Store
from tests.server.conftest import Dashboard
from tests.server.mix import SNAPSHOT, begin, code, deploy, end, fill, prints, raises, said, save, shows, steps, submit

HOSTILE = "<img src=x onerror=window.__x=1>"
#: ms until something that happened is on the screen: the second that is promised, and slack for a busy machine.
SOON = 8_000  # a second on a free machine


@dataclass
class Site:
    url: str
    store: Store
    artifacts: Artifacts
    named: dict[str, Run]
    dashboard: Dashboard
    cookie: str

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    dashboard = Dashboard(home)
    with dashboard.store() as store:
        artifacts = Artifacts(str(home / "artifacts"))
        named = fill(store, artifacts, runs=20)
        cookie = "=".join(dashboard.cookie())
        yield Site(dashboard.url, store, artifacts, named, dashboard, cookie)
        code, out, err = dashboard.stop()
    assert (code, out) == (0, "")
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    dashboard = Dashboard(tmp_path_factory.mktemp("empty"))
    yield dashboard
    if dashboard.process.poll() is None:
        dashboard.stop()


@pytest.fixture(scope="module")
def window(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    site.dashboard.enter(context)
    context.set_default_timeout(5_000)
    yield context
    context.close()


@pytest.fixture
def page(window: BrowserContext) -> Iterator[Page]:
    """At 1280 by 800; what is wrong on it fails the test."""
    page = window.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def opened(page: Page, site: Site, query: str = "") -> Page:
    page.goto(site.url + query)
    page.locator(".page.ready").wait_for()
    return page


def row(page: Page, run: Run) -> Locator:
    return page.locator(f"tr[data-run='{run.id}']")


# -- the process ------------------------------------------------------------------------------------------------------


def test_an_empty_store_teaches_the_next_command(page: Page, empty: Dashboard) -> None:
    assert empty.line == f"dashboard: {empty.link}\n"
    assert empty.link.startswith("http://127.0.0.1:")
    page.goto(empty.url)
    expect(page.get_by_role("status")).to_have_text("Open the link that the server printed when it started.")
    page.goto(empty.link)
    assert page.url == empty.url, "the token stays in the history, and in what is pasted in a chat"
    expect(page.locator(".empty")).to_contain_text('flowkit deploy NOTEBOOK.ipynb --cron "0 6 * * *"')
    expect(page.locator(".empty")).to_contain_text("flowkit run NOTEBOOK.ipynb")


def test_ctrl_c_ends_it_at_once_and_an_open_page_comes_back_with_the_next_one(page: Page, empty: Dashboard) -> None:
    page.goto(f"{empty.url}?page=runs")
    page.locator(".page.ready").wait_for()
    began = time.monotonic()
    assert empty.stop(signal.SIGINT) == (0, "", "")
    assert (
        time.monotonic() - began < 30
    )  # it waits for no page; what takes time is the end of Python, on a busy machine
    again = Dashboard(empty.home, port=int(empty.url.rstrip("/").rpartition(":")[2]))
    with again.store() as store:
        submit(store, deploy(store, "meanwhile"))
    expect(page.locator("td.deployment")).to_have_text("meanwhile", timeout=15_000)
    assert again.stop()[0] == 0


def test_a_taken_port_is_told_in_one_line(site: Site, tmp_path: Path) -> None:
    taken = Dashboard(tmp_path, port=site.port)
    code, out, err = taken.process.wait(10), taken.line, taken.process.communicate()[1]
    assert (code, out) == (2, "")
    assert err == (f"flowkit: port {site.port} on 127.0.0.1 is taken; choose another: --port 0 takes a free one\n")


def test_only_this_machine_can_connect(site: Site) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells which address we would be seen under
        address = probe.getsockname()[0]
    if address.startswith("127."):
        address = "127.0.0.2"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, site.port), timeout=2).close()


@pytest.mark.parametrize("path", ["/", "/ws", "/static/js/bokeh.min.js", "/notebook/x/1", "/autoload.js"])
def test_another_host_name_is_refused_everywhere(site: Site, path: str) -> None:
    assert answer(site, path, Host=f"evil.example:{site.port}")[0] == 403


def test_this_machine_by_name_is_served(site: Site) -> None:
    assert answer(site, "/", Host=f"localhost:{site.port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_another_sites_page_cannot_open_the_websocket(site: Site, origin: str) -> None:
    handshake = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                 "Sec-WebSocket-Version": "13"}  # fmt: skip
    assert answer(site, "/ws", Origin=origin, **handshake)[0] == 403


def answer(site: Site, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    with closing(HTTPConnection("127.0.0.1", site.port, timeout=5)) as connection:
        connection.request("GET", path, headers={"Cookie": site.cookie} | headers)
        response = connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}


# -- the frame --------------------------------------------------------------------------------------------------------


def test_pages_are_reached_by_links_keys_and_the_browsers_own_way_back(page: Page, site: Site) -> None:
    opened(page, site)
    expect(page.get_by_role("link", name="Now", exact=True)).to_have_attribute("aria-current", "page")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Audit").click()
    expect(page).to_have_title("Audit · flowkit")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page).to_have_url(f"{site.url}?page=runs")
    page.locator("tbody tr[data-run]").first.wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.locator("tbody tr[data-run]").nth(1)
    expect(second).to_be_focused()
    page.keyboard.press("Enter")
    expect(second).to_have_attribute("aria-selected", "true")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next row")
    page.keyboard.press("Escape")
    page.go_back()
    expect(page.locator(".detail")).to_be_hidden()
    page.go_back()
    expect(page).to_have_url(f"{site.url}?page=audit")
    page.go_forward()
    expect(second).to_be_visible()


def test_a_pasted_token_leads_where_the_link_did_and_a_viewer_sees_no_buttons(browser: Browser, site: Site) -> None:
    at = now()
    secret = site.store.create_token("pasted", Role.VIEWER, expires=at + timedelta(days=1), now=at)[1]
    with closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(f"{site.url}?run={site.named['failed'].id}")
        page.get_by_label("Or paste a token").fill(secret)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator(".detail h2")).to_have_text("flight_delays")
        expect(page.locator(".who")).to_have_text("pasted, viewer")
        page.goto(f"{site.url}?page=runs")
        page.locator("tbody tr[data-run]").first.wait_for()
        expect(page.locator(".runs input[type=checkbox]")).to_have_count(0)


# -- the table --------------------------------------------------------------------------------------------------------


def test_now_shows_the_counts_and_the_queues_and_leads_to_the_runs(page: Page, site: Site) -> None:
    opened(page, site)
    counts = site.store.counts()
    for state in ("pending", "running", "succeeded", "failed", "cancelled"):
        expect(page.locator(f".chip.{state} b")).to_have_text(str(counts[State(state)]))
    expect(page.get_by_role("table", name="Queues")).to_contain_text("gpu")
    page.locator(".chip.failed").click()
    expect(page.locator("tbody tr[data-run]")).to_have_count(counts[State.FAILED])


def test_the_runs_are_shown_newest_first(page: Page, site: Site) -> None:
    opened(page, site, "?page=runs")
    shown = page.locator("tbody tr[data-run]").evaluate_all("rows => rows.map(row => row.dataset.run)")
    assert shown == [run.id for run in site.store.runs(limit=PAGE)]
    failed = row(page, site.named["failed"])
    expect(failed.locator(".state")).to_have_text("failed")
    expect(failed.locator(".deployment")).to_have_text("flight_delays")
    expect(failed.locator(".attempt")).to_have_text("3")
    expect(failed.locator(".duration")).to_have_text("15.0 s")
    expect(failed.locator(".why")).to_have_text("by_carrier: KeyError: 'carier'")


def test_runs_are_filtered_by_state_and_deployment_and_the_address_says_so(page: Page, site: Site) -> None:
    opened(page, site, "?page=runs")
    page.locator(".chip.failed").click()
    rows = page.locator("tbody tr[data-run]")
    expect(rows).to_have_count(site.store.counts()[State.FAILED])
    page.get_by_label("Deployment", exact=True).select_option("invoices")
    expect(rows).to_have_count(len(site.store.runs(limit=999, deployment="invoices", states=[State.FAILED])))
    assert "state=failed&deployment=invoices" in page.url
    page.reload()
    page.locator(".page.ready").wait_for()
    expect(page.locator(".chip.failed")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Deployment", exact=True)).to_have_value("invoices")
    expect(row(page, site.named["timeout"])).to_be_visible()
    page.locator(".chip.cancelled").click()
    expect(page.locator(".empty")).to_contain_text("none fits")
    page.get_by_role("button", name="Show all runs").click()
    expect(row(page, site.named["failed"])).to_be_visible()


def test_runs_are_searched_by_a_parameter_and_a_text_in_the_error(page: Page, site: Site) -> None:
    opened(page, site, "?page=runs")
    rows = page.locator("tbody tr[data-run]")
    rows.first.wait_for()
    page.keyboard.press("/")
    page.keyboard.type("day = 2013-07-14")
    page.keyboard.press("Enter")
    page.keyboard.type("CARIER")
    page.keyboard.press("Enter")
    expect(rows).to_have_count(1)
    expect(row(page, site.named["failed"])).to_be_visible()
    assert page.url.endswith("?page=runs&parameter=day%3D2013-07-14&error=CARIER")
    page.get_by_label("Submitted").select_option("The last hour")
    expect(row(page, site.named["failed"])).to_be_visible()
    page.get_by_label("Without day=2013-07-14").click()
    page.get_by_label("Without CARIER").click()
    expect(row(page, site.named["running"])).to_be_visible()
    assert page.url.endswith("?page=runs&last=1h")
    opened(page, site, f"?page=runs&error={HOSTILE}&parameter={HOSTILE}=1&queue={HOSTILE}&deployment={HOSTILE}")
    expect(page.locator(".empty")).to_contain_text("none fits")
    expect(page.locator(".filters")).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 0


def test_runs_that_are_selected_are_cancelled_and_retried_after_a_question_that_says_how_many(
    page: Page, site: Site
) -> None:
    deployment = deploy(site.store, "together", queue="together")
    runs = [submit(site.store, deployment) for _ in range(3)]
    over = end(site.store, begin(site.store, runs[0]))
    opened(page, site, "?page=runs&deployment=together")
    page.get_by_label("Select all on this page").check()
    page.get_by_role("button", name="Cancel 2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel 2 runs?")
    dialog.get_by_role("button", name="Leave it").click()
    assert site.store.run(runs[1].id).state is State.PENDING
    page.get_by_role("button", name="Cancel 2").click()
    dialog.get_by_role("button", name="Cancel 2 runs").click()
    expect(page.locator(".said")).to_contain_text("2 runs cancelled")
    expect(row(page, runs[2]).locator(".state")).to_have_text("cancelled", timeout=SOON)
    row(page, runs[2]).focus()
    page.keyboard.press("x")
    page.get_by_role("button", name="Retry 1").click()
    dialog.get_by_role("button", name="Retry 1 run").click()
    expect(row(page, runs[2]).locator(".state")).to_have_text("pending", timeout=SOON)
    [cancelled] = [act for act in site.store.acts() if act.what.startswith("POST /act/cancel ")]
    assert {one.id[:8] for one in runs[1:]} == set(cancelled.what.removeprefix("POST /act/cancel ").split(", "))
    assert site.store.run(over.id).state is State.SUCCEEDED
    site.store.cancel(runs[2].id, now=now())


def test_a_new_run_and_its_end_appear_by_themselves_within_a_second(page: Page, site: Site) -> None:
    deployment = deploy(site.store, "live", queue="live")
    opened(page, site, "?page=runs&deployment=live")
    run = submit(site.store, deployment)
    expect(row(page, run).locator(".state")).to_have_text("pending", timeout=SOON)
    run = begin(site.store, run)
    expect(row(page, run).locator(".state")).to_have_text("running", timeout=SOON)
    expect(row(page, run).locator(".duration")).to_have_text(re.compile(r"^[2-9] s$"), timeout=8_000)
    end(site.store, run)
    expect(row(page, run).locator(".state")).to_have_text("succeeded", timeout=SOON)


def test_news_leave_the_selection_the_place_and_the_notebook_alone(page: Page, site: Site) -> None:
    deployment = deploy(site.store, "many", queue="many")
    runs = [submit(site.store, deployment) for _ in range(60)]
    opened_run = site.named["succeeded"]
    opened(page, site, f"?page=runs&deployment=many&run={opened_run.id}")
    page.get_by_role("tab", name="Notebook").click()
    frame = page.locator("iframe:not(.coming)")
    expect(frame).to_have_count(1)
    frame.evaluate("frame => frame.mark = 'the same'")
    scroller = page.locator(".scroller")
    scroller.evaluate("element => element.scrollTop = 700")
    top = row(page, runs[30]).bounding_box()
    newest = submit(site.store, deployment)
    expect(row(page, newest)).to_be_attached(timeout=SOON)
    assert row(page, runs[30]).bounding_box() == top
    assert frame.evaluate("frame => frame.mark") == "the same"
    expect(page.get_by_role("tab", name="Notebook")).to_have_attribute("aria-selected", "true")
    assert f"run={opened_run.id}" in page.url


def test_older_runs_are_a_page_away(page: Page, site: Site) -> None:
    deployment = deploy(site.store, "paged", queue="paged")
    runs = [submit(site.store, deployment) for _ in range(PAGE + 30)][::-1]
    opened(page, site, "?page=runs&deployment=paged")
    rows = page.locator("tbody tr[data-run]")
    expect(rows).to_have_count(PAGE)
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(30)
    expect(rows.first).to_have_attribute("data-run", runs[PAGE].id)
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_role("button", name="Newer").click()
    expect(rows).to_have_count(PAGE)
    expect(rows.first).to_have_attribute("data-run", runs[0].id)


def test_a_run_is_chosen_opened_and_closed_by_keyboard(page: Page, site: Site) -> None:
    opened(page, site, "?page=runs&deployment=flight_delays")
    runs = site.store.runs(deployment="flight_delays")
    row(page, runs[0]).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(row(page, runs[1])).to_have_attribute("aria-selected", "true")
    expect(page.locator(".detail dd").first).to_have_text(runs[1].id)
    page.keyboard.press("ArrowUp")
    expect(page.locator(".detail dd").first).to_have_text(runs[0].id)
    page.keyboard.press("Escape")
    expect(page.locator(".detail")).to_be_hidden()
    expect(row(page, runs[0])).to_be_focused()
    assert "run=" not in page.url


# -- one run ----------------------------------------------------------------------------------------------------------


def test_a_link_opens_a_failed_run_with_its_reason_its_nodes_and_its_notebook(page: Page, site: Site) -> None:
    run = site.named["failed"]
    opened(page, site, f"?page=runs&deployment=flight_delays&run={run.id}")
    detail = page.locator(".detail")
    expect(detail.locator(".failure")).to_contain_text("The notebook raised an error")
    expect(detail.locator(".failure")).to_contain_text("by_carrier: KeyError: 'carier'")
    expect(detail.locator(".parameters")).to_contain_text("['UA', 'B6', 'EV']")
    nodes = detail.locator(".nodes tbody tr")
    expect(nodes).to_have_count(8)
    expect(nodes.filter(has_text="by_carrier").first).to_contain_text("KeyError: 'carier'")
    expect(nodes.filter(has_text="plot")).to_contain_text("by_carrier failed")
    page.get_by_role("tab", name="Log").click()
    expect(detail.locator(".log")).to_contain_text("842 flights, 167 late")
    page.get_by_role("tab", name="Notebook").click()
    notebook = page.frame_locator("iframe:not(.coming)")
    expect(notebook.locator("#failed")).to_contain_text("KeyError: 'carier'")
    expect(notebook.locator("#failed")).to_be_in_viewport()
    expect(row(page, run)).to_have_attribute("aria-selected", "true")


def test_rows_that_do_not_fit_a_schema_are_a_table_below_the_nodes(page: Page, site: Site) -> None:
    run = begin(site.store, submit(site.store, deploy(site.store, "rows", queue="rows")))
    at = time.time() - 5
    names = ["row", "carrier", "tailnum", "dep_delay", "origin", "<b>dest</b>"]
    rows = [[4 * place + 1, "UA", f"N{place}14", -99 - place, None, "x" * 60] for place in range(10)]
    broken = "SchemaBroken: its result does not fit its schema: dep_delay: greater_than_or_equal_to(-60) fails"
    facts = {"rows": {"columns": names, "values": rows, "more": 132}}
    steps = [
        Event("flow", at, flow="delays", data={"nodes": {"flights": [], "late": ["flights"]}}),
        *(Event("node", at, "flights", "delays", state) for state in (State.RUNNING, State.SUCCEEDED)),
        Event("node", at, "late", "delays", State.RUNNING),
        Event("node", at + 2, "late", "delays", State.FAILED, broken, data=facts),
    ]
    site.store.record(run.id, 1, steps)
    end(site.store, run, cause=Cause.NOTEBOOK, error=f"node 'late' failed: {broken}")
    opened(page, site, f"?run={run.id}")
    table = page.locator(".misfits")
    expect(table.locator("figcaption")).to_have_text("Rows of late that do not fit its schema: 10 of 142")
    expect(table.locator("thead th")).to_have_text(names)
    expect(table.locator("tbody tr")).to_have_count(10)
    expect(table.locator("tbody tr").first.locator("td")).to_have_text(["UA", "N014", "-99", "none", "x" * 60])


def test_a_running_run_shows_its_nodes_and_its_log_as_they_come(page: Page, site: Site) -> None:
    run = begin(site.store, submit(site.store, deploy(site.store, "slow", queue="slow")))
    opened(page, site, f"?run={run.id[:8]}")
    expect(page.locator(".detail .nodes")).to_contain_text("No node has started.")
    site.store.record(run.id, 1, steps(time.time() - 20, until="planes"))
    expect(page.locator(".nodes tbody tr[data-state='running']")).to_contain_text("planes", timeout=SOON)
    page.get_by_role("tab", name="Log").click()
    site.store.record(run.id, 1, [said("reading\n"), said("10%\r"), said("50%\r")])
    log = page.locator(".log")
    expect(log).to_have_text("reading\n50%", timeout=SOON)
    site.store.record(run.id, 1, [said("100%\ndone\n"), said("\x1b[31mcareful\x1b[0m\n", stream="stderr")])
    expect(log).to_have_text("reading\n100%\ndone\ncareful\n", timeout=SOON)
    page.get_by_role("tab", name="Notebook").click()
    expect(page.frame_locator("iframe:not(.coming)").locator("body")).to_contain_text("has saved none")
    save(site.artifacts, run, [code("1", prints("so far"))])
    page.get_by_role("button", name="Reload").click()
    expect(page.frame_locator("iframe:not(.coming)").locator("body")).to_contain_text("so far")
    page.locator("iframe").evaluate("frame => frame.mark = 'the same'")
    site.store.record(run.id, 1, steps(time.time() - 15, until="joined"), output="/elsewhere/notebook.ipynb")
    expect(page.get_by_role("tab", name="Nodes")).to_have_text("Nodes 3/8", timeout=SOON)
    assert page.locator("iframe").evaluate("frame => frame.mark") == "the same"
    save(site.artifacts, run, [code("1", prints("all of it"))])
    end(site.store, run)
    expect(page.frame_locator("iframe:not(.coming)").locator("body")).to_contain_text("all of it")


def test_an_earlier_attempt_is_looked_at_and_the_address_says_so(page: Page, site: Site) -> None:
    deployment = deploy(site.store, "again", queue="again", retries=1, backoff=0.0)
    run = begin(site.store, submit(site.store, deployment))
    site.store.record(run.id, 1, [*steps(time.time() - 30, fails="weather", error=HOSTILE), said(f"first {HOSTILE}\n")])
    end(site.store, run, cause=Cause.NOTEBOOK, error=HOSTILE)
    run = begin(site.store, site.store.run(run.id))
    site.store.record(run.id, 2, [*steps(time.time() - 5, until="joined"), said("second\n")])
    opened(page, site, f"?run={run.id}&tab=log")
    expect(page.locator(".log")).to_have_text("second\n")
    page.get_by_role("button", name="Attempt 1").click()
    expect(page.locator(".log")).to_have_text(f"first {HOSTILE}\n", timeout=SOON)
    page.get_by_role("tab", name="Nodes").click()
    expect(page.locator(".nodes tbody tr[data-state='failed']")).to_contain_text(HOSTILE)
    page.get_by_role("tab", name="Log").click()
    assert page.url.endswith(f"?run={run.id}&tab=log&attempt=1")
    page.reload()
    expect(page.locator(".log")).to_have_text(f"first {HOSTILE}\n", timeout=SOON)
    site.store.record(run.id, 2, [said("third\n")])
    page.get_by_role("button", name="Attempt 2").click()
    expect(page.locator(".log")).to_have_text("second\nthird\n", timeout=SOON)
    page.get_by_label("Follow").uncheck()
    site.store.record(run.id, 2, [said("line\n" * 500)])
    expect(page.locator(".log")).to_contain_text("line\nline", timeout=SOON)
    assert page.locator(".log").evaluate("element => element.scrollTop") == 0
    page.get_by_label("Follow").check()
    assert page.locator(".log").evaluate("element => element.scrollTop") > 0
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all of it").click()
    assert download.value.path().read_text() == "second\nthird\n" + "line\n" * 500
    assert page.locator("img").count() == 0


def test_a_failed_run_shows_its_cell_and_is_run_again_from_a_node(page: Page, site: Site) -> None:
    run = begin(site.store, submit(site.store, deploy(site.store, "mended", queue="mended")))
    site.store.record(run.id, 1, steps(time.time() - 30, fails="weather", error="KeyError: 'x'"))
    trace = raises("KeyError", HOSTILE, [f"\x1b[31m{HOSTILE}\x1b[0m"])
    save(site.artifacts, run, [code("fine = 1"), code(f"broken = '{HOSTILE}'", trace, count=7)])
    end(site.store, run, cause=Cause.NOTEBOOK, error="weather: KeyError: 'x'")
    opened(page, site, f"?run={run.id}")
    cell = page.locator(".failure .cell")
    expect(cell).to_contain_text("Cell In [7]")
    expect(cell.locator("pre").first).to_have_text(f"broken = '{HOSTILE}'")
    cell.get_by_text("Traceback").click()
    expect(cell.locator("pre").last).to_have_text(HOSTILE)
    page.get_by_title("Retry from weather").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry from there").click()
    expect(page.locator(".said")).to_contain_text("to run again")
    assert site.store.run(run.id).state is State.PENDING
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator(".detail .badge").first).to_have_text("cancelled", timeout=SOON)
    assert f"POST /act/retry {run.id[:8]}, from node weather" in [act.what for act in site.store.acts()]
    assert page.locator("img").count() == 0


def test_what_a_run_left_is_listed_with_what_it_was_made_from_and_downloaded(page: Page, site: Site) -> None:
    run = begin(site.store, submit(site.store, deploy(site.store, "left", queue="left")))
    site.store.record(run.id, 1, steps(time.time() - 30))
    shelf = Shelf(site.artifacts, kept_path(run.id))
    for node, kind in (("flights", "table"), ("joined", HOSTILE)):
        about = {"node": node, "kind": kind, "suffix": ".x", "attempt": 1, "created": time.time()}
        shelf.keep(f"{node}.0", lambda file, about=about: file.write(b"rows") and about)
    site.artifacts.write(f"runs/{run.id}/1/<b>ü.csv", b"a,b")
    end(site.store, run)
    opened(page, site, f"?run={run.id}&tab=files")
    joined = page.locator(".files tr", has_text="joined").last
    expect(joined).to_contain_text(HOSTILE, timeout=SOON)
    expect(joined.locator(".from:not(.none)")).to_have_text("flights")
    with page.expect_download() as download:
        page.get_by_role("link", name="<b>ü.csv").click()
    assert (download.value.path().read_bytes(), download.value.suggested_filename[1:]) == (b"a,b", "b_ü.csv")
    assert page.locator("img").count() == 0
    status, _, headers = answer(site, f"/file/{run.id}/1/%3Cb%3E%C3%BC.csv")
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    for path in (
        f"{run.id}/2/x",
        f"{run.id}/1/..%2fkept",
        f"{run.id}/..%2f/1",
        f"{run.id[:8]}/1/x",
        f"{run.id}/1/nope",
    ):
        assert answer(site, f"/file/{path}")[0] == 404, path
    assert answer(site, f"/log/{run.id}/2.txt")[0] == 404


def test_a_runs_graph_is_drawn_as_in_the_notebook_and_follows_its_events(page: Page, site: Site) -> None:
    run = begin(site.store, submit(site.store, deploy(site.store, "drawn", queue="drawn")))
    opened(page, site, f"?run={run.id}")
    page.get_by_role("tab", name="Graph").click()
    expect(page.locator(".hint", has_text="No flow has run")).to_be_visible(timeout=SOON)

    site.store.record(run.id, 1, steps(time.time() - 15, until="joined", flow=HOSTILE))
    expect(page.get_by_role("button", name="weather, succeeded")).to_be_visible(timeout=SOON)
    expect(page.get_by_role("button", name="joined, running")).to_be_visible()
    expect(page.locator(".fk-top h1")).to_have_text(HOSTILE)
    expect(page.locator(".fk-button")).to_have_count(0)  # nobody there can be told to cancel

    site.store.record(
        run.id, 1, [Event("node", time.time(), "joined", HOSTILE, State.FAILED, error="KeyError: 'carier'")]
    )
    joined = page.get_by_role("button", name="joined, failed, KeyError: 'carier'")
    expect(joined).to_be_visible(timeout=SOON)
    joined.click()
    expect(page.get_by_role("complementary", name="Node joined")).to_contain_text("KeyError: 'carier'")
    assert page.evaluate("() => window.__x") is None
    page.get_by_role("tab", name="Nodes").click()


def test_a_failed_runs_page_says_what_changed_since_the_last_success(page: Page, site: Site) -> None:
    deployment = deploy(site.store, "changed", queue="changed")
    for day, cause in ((1, None), (HOSTILE, Cause.NOTEBOOK)):
        run = begin(site.store, submit(site.store, deployment, day=day))
        save(site.artifacts, run, [code("1", prints(f"{HOSTILE} {cause}"))])
        end(site.store, run, cause=cause, error=cause and "ValueError: no day")
    opened(page, site, f"?run={run.id}")
    expect(page.locator(".failure")).to_contain_text(f"flowkit open {run.id[:8]}")
    with page.expect_download() as coming:
        page.get_by_role("link", name="download the notebook").click()
    assert coming.value.suggested_filename == f"{run.id[:8]}.ipynb"

    page.get_by_role("button", name="What changed since the last success").click()

    changes = page.locator(".changes li")
    expect(changes.first).to_contain_text("1 → ", timeout=SOON)
    expect(changes.first).to_contain_text("the error names it")
    expect(changes.first).to_contain_text(HOSTILE)
    expect(page.locator(".changes")).to_contain_text("Not known")
    assert page.evaluate("() => window.__x") is None
    page.locator(".changes a").click()
    expect(page.locator(".changes")).to_contain_text("no run of changed succeeded before", timeout=SOON)


def test_a_run_of_ten_thousand_nodes_shows_first_what_failed(page: Page, site: Site) -> None:
    run = begin(site.store, submit(site.store, deploy(site.store, "wide", queue="wide")))
    names = [f"n{number}" for number in range(10_000)]
    at = time.time() - 60
    events = [Event("flow", at, flow="f", data={"nodes": {name: [] for name in names}})]
    for name in names:
        events += [Event("node", at, name, "f", State.RUNNING), Event("node", at + 1, name, "f", State.SUCCEEDED)]
    events += [Event("node", at + 1, "n9000", "f", State.FAILED, error="E: here")]
    site.store.record(run.id, 1, events)
    end(site.store, run, cause=Cause.NOTEBOOK, error="n9000: E: here")
    opened(page, site, f"?run={run.id}")
    expect(page.get_by_role("tab", name="Nodes")).to_have_text("Nodes 10000/10000")
    expect(page.locator(".nodes tbody tr")).to_have_count(300)
    expect(page.locator(".nodes tbody tr[data-state='failed']")).to_contain_text("n9000")


def test_a_link_to_a_run_that_is_gone_says_so(page: Page, site: Site) -> None:
    opened(page, site, "?run=deadbeef")
    expect(page.locator(".detail")).to_contain_text("deadbeef")
    page.get_by_role("link", name="All runs").click()
    page.locator("tbody tr[data-run]").first.wait_for()


# -- nothing from elsewhere, nothing that runs -------------------------------------------------------------------------


def test_everything_on_the_page_comes_from_this_machine(page: Page, site: Site) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("websocket", lambda socket: requests.append(socket.url))
    opened(page, site, f"?run={site.named['succeeded'].id}")
    page.get_by_role("tab", name="Notebook").click()
    expect(page.frame_locator("iframe:not(.coming)").locator("img")).to_be_visible()
    page.wait_for_timeout(500)
    elsewhere = [
        url for url in requests if not url.startswith((site.url, "blob:", "data:", site.url.replace("http", "ws")))
    ]
    assert elsewhere == []
    assert any("/notebook/" in url for url in requests)


def test_names_parameters_errors_and_logs_are_text_whatever_they_say(page: Page, site: Site) -> None:
    deployment = deploy(site.store, HOSTILE, queue=HOSTILE)
    run = begin(site.store, submit(site.store, deployment, **{HOSTILE: HOSTILE}), worker=HOSTILE)
    at = time.time()
    site.store.record(run.id, 1, [
        Event("flow", at, flow=HOSTILE, data={"nodes": {HOSTILE: []}}),
        Event("node", at, HOSTILE, HOSTILE, State.RUNNING),
        Event("node", at, HOSTILE, HOSTILE, State.FAILED, error=HOSTILE),
        said(HOSTILE), said(HOSTILE, stream=HOSTILE),
    ])  # fmt: skip
    save(site.artifacts, run, [code(HOSTILE, prints(HOSTILE), shows({"text/html": HOSTILE}))])
    end(site.store, run, cause=Cause.NOTEBOOK, error=HOSTILE)
    submit(site.store, deployment)  # waits on a queue of that name, without a worker
    opened(page, site, f"?run={run.id}")
    page.locator(".nodes tbody tr").wait_for()
    for name in ("Log", "Notebook", "Nodes"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(200)
    expect(page.locator(".failure")).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert [frame.url for frame in page.frames if frame.evaluate("window.__x") is not None] == []
    site.store.cancel(site.store.runs(deployment=HOSTILE, states=[State.PENDING])[0].id, now=now())


def test_a_notebook_runs_nothing_loads_nothing_and_leads_nowhere(page: Page, site: Site) -> None:
    with Elsewhere() as elsewhere:
        evil = elsewhere.url
        markup = (
            f"<script>window.__x=1; fetch('{evil}fetch')</script><img src='{evil}img' onerror='parent.__x=1'>"
            f"<meta http-equiv=refresh content='0;url={evil}refresh'><iframe src='{evil}frame'></iframe>"
            f"<link rel=stylesheet href='{evil}css'><style>@import '{evil}import'; body {{ background: url({evil}bg) }}"
            f"@font-face {{ font-family: q; src: url({evil}font) }} body {{ font-family: q }}</style>"
            f"<form action='{evil}form'><button>send</button></form><object data='{evil}object'></object>"
            f"<base href='{evil}base/'><video src='{evil}video' autoplay></video><a href=javascript:parent.__x=1>go</a>"
        )
        run = begin(site.store, submit(site.store, deploy(site.store, "evil", queue="evil")))
        save(site.artifacts, run, [
            code("1", shows({"text/html": markup}), shows({"image/svg+xml": f"<svg onload='parent.__x=1'>{markup}"})),
            code("2", shows({"application/javascript": "parent.__x=1"}), shows({"text/markdown": markup})),
            v4.new_markdown_cell(f"{markup} ![]({evil}markdown)"),
        ])  # fmt: skip
        end(site.store, run)
        opened(page, site, f"?run={run.id}")
        page.get_by_role("tab", name="Notebook").click()
        notebook = page.frame_locator("iframe:not(.coming)")
        notebook.get_by_text("go").first.click()
        notebook.get_by_text("send").first.click()
        page.wait_for_timeout(1_000)
        expect(notebook.locator("section")).to_have_count(3)
        assert page.evaluate("window.__x") is None
        assert elsewhere.asked == []
        # Opened on its own it may not do more.
        page.goto(f"{site.url}notebook/{run.id}/1")
        page.wait_for_timeout(500)
        assert page.url == f"{site.url}notebook/{run.id}/1"
        assert elsewhere.asked == []


class Elsewhere:
    """Another site, that would hear of it."""

    def __enter__(self) -> Elsewhere:
        asked = self.asked = list[str]()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            do_POST = do_GET

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_the_notebook_route_gives_what_the_store_knows_and_nothing_else(site: Site) -> None:
    run = site.named["failed"]
    status, body, headers = answer(site, f"/notebook/{run.id}/3")
    assert status == 200
    assert b"carier" in body
    assert headers["content-security-policy"] == document.POLICY
    assert headers["x-content-type-options"] == "nosniff"
    status, body, headers = answer(site, f"/notebook/{run.id}/3.ipynb")
    assert (status, body) == (200, site.artifacts.read(f"runs/{run.id}/3/notebook.ipynb"))
    assert headers["content-disposition"] == f'attachment; filename="{run.id[:8]}-3.ipynb"'
    status, body, headers = answer(site, f"/book/{run.id}.ipynb")
    assert status == 200
    assert f"fk.load_run('{run.id}')".encode() in body
    assert headers["content-disposition"] == f'attachment; filename="{run.id[:8]}.ipynb"'
    assert answer(site, f"/book/{run.id[:8]}.ipynb")[0] == 404

    unknown = "00000000-0000-0000-0000-000000000000"
    for there in (f"{unknown}/1", f"{run.id}/4", f"{run.id}/0"):
        site.artifacts.write(f"runs/{there}/notebook.ipynb", SNAPSHOT.encode())
    for path in (
        f"{run.id}/4", f"{run.id}/0", f"{run.id[:8]}/3", f"{unknown}/1", f"{run.id}/3/", "..%2f..%2fflowkit.db/1",
        f"{run.id}/..%2f..%2f{run.id}/3", f"{run.id.upper()}/3", "",
    ):  # fmt: skip
        assert answer(site, f"/notebook/{path}")[0] == 404, path


def test_a_broken_notebook_is_told_and_can_still_be_downloaded(site: Site) -> None:
    run = begin(site.store, submit(site.store, deploy(site.store, "torn", queue="torn")))
    site.artifacts.write(f"runs/{run.id}/1/notebook.ipynb", b'{"cells": [')
    status, body, _ = answer(site, f"/notebook/{run.id}/1")
    assert status == 502
    assert b"cannot be read as a notebook" in body
    assert answer(site, f"/notebook/{run.id}/1.ipynb")[1] == b'{"cells": ['


# -- looks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(page: Page, site: Site, scheme: Literal["light", "dark"]) -> None:
    """WCAG AA: 4.5 to 1, for every text on the page with a run selected."""
    page.emulate_media(color_scheme=scheme)
    opened(page, site, f"?run={site.named['failed'].id}")
    page.locator(".nodes tbody tr").first.wait_for()
    assert page.evaluate(f"({CONTRASTS})({FIND})") == []


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_is_wider_than_the_window(page: Page, site: Site, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    opened(page, site, "?page=runs&deployment=flight_delays")
    for selector in (".page", ".scroller"):
        assert page.locator(selector).evaluate("element => element.scrollWidth - element.clientWidth") == 0
    row(page, site.named["failed"]).click()
    page.locator(".nodes tbody tr").first.wait_for()
    for selector in (".page", ".detail", ".nodes"):
        assert page.locator(selector).evaluate("element => element.scrollWidth - element.clientWidth") == 0


#: The page's own element, within the shadow roots it is drawn in.
FIND = """(function find(node) {
  for (const element of node.querySelectorAll("*")) {
    if (element.matches(".page")) return element;
    const found = element.shadowRoot && find(element.shadowRoot);
    if (found) return found;
  }
})(document)"""

CONTRASTS = """page => {
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = rgba(getComputedStyle(element).backgroundColor);
      if (colour[3] === 255) return colour;
    }
  };
  const bad = new Set();
  for (const element of page.querySelectorAll("*")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.disabled || element.tagName === "OPTION") continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.add(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
  }
  return [...bad];
}"""
