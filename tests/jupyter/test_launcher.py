"""The dashboard from JupyterLab's launcher, in a real browser, behind Jupyter's own token."""

from __future__ import annotations

import http.client
import stat
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, expect

from flowkit.model import State
from tests.jupyter.conftest import TOKEN, Lab
from tests.notebooks_made import write
from tests.processes import eventually

PATIENCE = 90_000  # ms; it is other work on the machine that takes long


@pytest.fixture(scope="module")
def context(lab: Lab, browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE)
    return context


@pytest.fixture(scope="module")
def dashboard(lab: Lab, context: BrowserContext) -> FrameLocator:
    """Opened by a click on its tile, with one run in it."""
    lab.client.submit(write(lab.root / "seen.ipynb", "print('in the frame')"))
    page = context.new_page()
    page.goto(f"{lab.url}/lab?reset&token={TOKEN}")
    tile = page.locator(".jp-LauncherCard", has_text="flowkit")
    tile.wait_for()
    picture = tile.locator("img")
    assert eventually(lambda: picture.evaluate("image => image.complete && image.naturalWidth")), "it has no icon"
    tile.click()
    return page.frame_locator("iframe[src*='/flowkit/']")


def test_the_tile_opens_the_dashboard_live_with_its_notebooks(lab: Lab, dashboard: FrameLocator) -> None:
    dashboard.get_by_role("link", name="Runs", exact=True).click()
    dashboard.locator("tr", has_text="seen.ipynb").first.click()
    dashboard.get_by_role("tab", name="Notebook").click()
    notebook = dashboard.frame_locator("iframe[title='Executed notebook']")
    expect(notebook.get_by_text("in the frame", exact=True)).to_be_visible(timeout=PATIENCE)

    new = lab.client.submit(write(lab.root / "later.ipynb", "1"))  # it comes by the websocket

    expect(dashboard.locator("tr", has_text=new.id[:8])).to_be_visible(timeout=PATIENCE)


def test_a_button_acts_through_jupyter_and_a_page_elsewhere_does_not(
    lab: Lab, context: BrowserContext, dashboard: FrameLocator
) -> None:
    run = lab.client.submit(write(lab.root / "stopped.ipynb", "1"), policy={"queue": "nobody"})
    dashboard.get_by_role("link", name="Runs", exact=True).click()
    dashboard.locator("tr", has_text=run.id[:8]).click()
    cookies = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in context.cookies(lab.url))
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=60)
    headers = {"Cookie": cookies, "Origin": "http://elsewhere.example", "Content-Type": "text/plain"}
    connection.request("POST", "/flowkit/act/cancel", f'{{"runs": ["{run.id}"]}}', headers)
    assert connection.getresponse().status == 403
    assert lab.client.store.run(run.id).state is State.PENDING

    dashboard.get_by_role("button", name="Cancel", exact=True).click()
    dashboard.get_by_role("button", name="Cancel the run").click()

    assert eventually(lambda: lab.client.store.run(run.id).state is State.CANCELLED)


def test_only_jupyter_reaches_it(lab: Lab, context: BrowserContext, dashboard: FrameLocator) -> None:
    dashboard.get_by_role("link", name="Runs", exact=True).wait_for()
    children = psutil.Process(lab.process.pid).children()
    alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    [process] = [child for child in alive if "dashboard" in child.cmdline()]
    place = Path(process.cmdline()[-1])
    assert not [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700

    cookies = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in context.cookies(lab.url))

    def opened(origin: str, cookie: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=60)
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers = upgrade | {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Origin": origin, "Cookie": cookie}
        connection.request("GET", "/flowkit/ws", headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    assert opened(lab.url, cookies) == 101
    assert opened("http://elsewhere.example", cookies) == 403
    assert opened(lab.url, "") == 403
