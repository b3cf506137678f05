"""The pages Now, Deployments, Queue and Audit: in a real browser, with names that would be markup if they were read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import nbformat.v4 as v4
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from flowkit.artifacts import Artifacts
from flowkit.client import Client
from flowkit.config import Config
from flowkit.events import Event
from flowkit.model import Act, Cause, Limit, Policy, Role, Schedule, State, Worker, now
from flowkit.server.dashboard.frame import Viewer
from flowkit.server.dashboard.now import normalised
from flowkit.server.dashboard.reading import Reader, Seen
from flowkit.server.pulse import Pulse
from flowkit.store import Store
from tests.server.conftest import Dashboard
from tests.server.mix import begin, code, deploy, end, fill, submit
from tests.servers import RedisServer

HOSTILE = "<img src=x onerror=window.__x=1>"
#: ms; the server looks twice a second, and at Redis and the doctor's findings each five.
SOON = 20_000


class Site:
    def __init__(self, home: Path) -> None:
        self.dashboard = Dashboard(home)
        self.url = self.dashboard.url
        self.client = Client(Config.from_env({"FLOWKIT_HOME": str(home)}))
        self.store = self.client.store
        self.home = home


def notebook(folder: Path, delay: int) -> Path:
    parameters = f'day: str = "2013-07-01"  # {HOSTILE}\nmin_delay: int = {delay}\ndry_run: bool = False'
    cells = [
        code(parameters, tags=["parameters"]) | {"id": "one"},
        code(f"keep = {delay}  # {HOSTILE}") | {"id": "two"},
    ]
    path = folder / "delays.ipynb"
    path.write_text(json.dumps(v4.new_notebook(cells=cells)))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("home"))
    with site.client as client:
        fill(client.store, client.artifacts, runs=20)
        for delay in (15, 30):
            schedule = Schedule(cron="0 6 * * *", zone="America/New_York")
            client.deploy(notebook(site.home, delay), name="delays", schedule=schedule, policy=Policy(queue="days"))
        client.backfill("delays", "day", [f"2013-07-{day:02}" for day in range(1, 11)], concurrency=2)
        hostile(client.store)
        yield site
        code, out, err = site.dashboard.stop()
    assert (code, out) == (0, "")
    assert "Traceback" not in err


def hostile(store: Store) -> None:
    """Names and texts that nobody should believe, wherever one can come from."""
    at = now()
    store.enrol(Worker(id=HOSTILE, host=HOSTILE, pid=1, queues=(HOSTILE,), concurrency=1, started=at, seen=at))
    one = deploy(store, HOSTILE, queue=HOSTILE, cron=HOSTILE, kernel=HOSTILE)
    for took in (1, 2, 3):
        then = at - timedelta(minutes=50)
        begun = begin(store, submit(store, one, at=then), at=then, worker=HOSTILE)
        end(store, begun, at=then + timedelta(seconds=took))
    failed = begin(store, submit(store, one), worker=HOSTILE)
    end(store, failed, cause=Cause.NOTEBOOK, error=f"{HOSTILE}: 7 of 9")
    going = begin(store, submit(store, one, **{HOSTILE: HOSTILE}), worker=HOSTILE)
    used = [[at.timestamp(), 1.0, 1.5, 250_000_000]]
    store.record(going.id, 1, [Event("usage", at.timestamp(), data=used)])
    submit(store, one)
    store.set_limit(Limit(name=HOSTILE, rate="1/minute", failures=1))
    store.note(Act(at=at, who=HOSTILE, role=HOSTILE, what=f"POST /{HOSTILE}", status=403, address=HOSTILE))


@pytest.fixture(scope="module")
def window(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    site.dashboard.enter(context)
    context.set_default_timeout(SOON)
    yield context
    context.close()


@pytest.fixture
def page(window: BrowserContext) -> Iterator[Page]:
    """What is wrong on it fails the test, and so does what was read as markup."""
    page = window.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert page.evaluate("window.__x") is None
    page.close()
    assert errors == []


def opened(page: Page, site: Site, query: str = "") -> Page:
    page.goto(site.url + query)
    page.locator(".page.ready").wait_for()
    return page


# -- Now --------------------------------------------------------------------------------------------------------------


def test_now_says_what_fails_since_when_and_what_to_do(page: Page, site: Site) -> None:
    opened(page, site)
    failures = page.get_by_label("Failures of the last 24 hours, by error")
    mine = failures.locator("tr", has_text=f"{HOSTILE}: 7 of 9")
    expect(mine).to_contain_text(HOSTILE)
    expect(mine.get_by_role("link", name="Why")).to_be_visible()
    expect(page.locator("h1")).to_contain_text(re.compile(r"things? fails? since \d\d:"))
    no_worker = page.locator(".line.bad", has_text="gpu")
    expect(no_worker).to_contain_text("No worker is alive on queue 'gpu', where 2 runs wait.", timeout=SOON)
    expect(no_worker.locator("code")).to_have_text("flowkit worker --queue gpu")
    failures.locator("tr", has_text="it ran longer than 600 s").click()
    expect(page).to_have_url(re.compile(r"\?run="))


def test_now_shows_a_run_under_way_beside_what_it_usually_takes(page: Page, site: Site) -> None:
    opened(page, site)
    going = page.get_by_label("Runs under way, the longest first").locator("tr", has_text=HOSTILE)
    expect(going).to_contain_text("usually 2 s")
    expect(going).to_contain_text("250 MB")
    expect(going.locator(".bar.late")).to_be_visible()  # a second has long gone by
    expect(page.get_by_label("Queues", exact=True).last).to_contain_text("no worker")
    expect(page.get_by_label("Workers", exact=True).last).to_contain_text(HOSTILE)
    expect(page.get_by_label("Next firings", exact=True).last).to_contain_text("weather hourly")


def test_a_failure_that_a_later_success_has_mended_is_no_longer_what_is_broken(page: Page, site: Site) -> None:
    one = deploy(site.store, "mended", queue="mended")
    end(site.store, begin(site.store, submit(site.store, one)), cause=Cause.NOTEBOOK, error="ValueError: 1 of 2")
    opened(page, site)
    mine = page.get_by_label("Failures of the last 24 hours, by error").locator("tr", has_text="mended")
    expect(mine.get_by_role("link", name="Why")).to_be_visible()
    end(site.store, begin(site.store, submit(site.store, one)))
    expect(mine).to_contain_text("well since", timeout=SOON)


def test_what_failed_is_run_again_by_one_press(page: Page, site: Site) -> None:
    one = deploy(site.store, "pressed", queue="pressed")
    run = end(site.store, begin(site.store, submit(site.store, one)), cause=Cause.NOTEBOOK, error="ValueError: x")
    opened(page, site)
    mine = page.get_by_label("Failures of the last 24 hours, by error").locator("tr", has_text="pressed")
    mine.get_by_role("button", name="Retry").click()
    expect(mine).to_have_count(0, timeout=SOON)
    assert site.store.run(run.id).state is State.PENDING


def test_errors_are_the_same_if_only_numbers_and_ids_tell_them_apart() -> None:
    first = normalised("KeyError: 4711 at 0x7f3a in 2f1c9d3e-9a51-4b7e-8a52-0d3f5b6a7c8d\n  second line")
    assert first == normalised("KeyError: 12 at 0xbeef in 00000000-9a51-4b7e-8a52-0d3f5b6a7c8d")
    assert first != normalised("KeyError: day")


# -- Deployments ------------------------------------------------------------------------------------------------------


def test_deployments_are_found_paused_resumed_and_led_to(page: Page, site: Site) -> None:
    opened(page, site, "?page=deployments")
    rows = page.locator("tbody tr[data-row]")
    expect(rows).to_have_count(len(site.store.deployment_names()))
    page.keyboard.press("/")
    page.keyboard.type("weather")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("5 * * * *")
    rows.get_by_role("button", name="Pause").click()
    expect(rows).to_contain_text("paused")
    assert site.store.deployment("weather hourly").paused
    rows.get_by_role("button", name="Resume").click()
    expect(rows.get_by_role("button", name="Pause")).to_be_visible()
    assert site.store.acts(limit=1)[0].what == "POST /act/resume weather hourly"
    expect(rows.locator(".dot").first).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("weather hourly")


def test_a_run_by_hand_takes_values_of_the_types_that_the_notebook_declares(page: Page, site: Site) -> None:
    opened(page, site, "?page=deployments&name=delays")
    page.get_by_role("button", name="Run now").click()
    form = page.get_by_role("dialog")
    expect(form.locator("label", has_text="day")).to_contain_text(HOSTILE)
    form.get_by_label("min_delay").fill("soon")
    form.get_by_role("button", name="Run", exact=True).click()
    expect(form.get_by_role("alert")).to_contain_text("min_delay")
    form.get_by_label("min_delay").fill("60")
    form.get_by_label("dry_run").select_option("True")
    form.get_by_label("day").fill(HOSTILE)
    form.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_url(re.compile(r"\?run="))
    [run] = [run for run in site.store.runs(deployment="delays") if run.series is None]
    assert run.parameters == {"min_delay": 60, "dry_run": True, "day": HOSTILE}


def test_one_deployment_shows_its_versions_its_year_and_its_backfills(page: Page, site: Site) -> None:
    opened(page, site, "?page=deployments&name=delays")
    expect(page.get_by_label("Next firings", exact=True)).to_contain_text(re.compile(r"in \d+ (h|min)"))
    page.get_by_role("link", name="What changed").click()
    expect(page.locator(".difference")).to_contain_text(f"-keep = 15  # {HOSTILE}")
    expect(page.locator(".difference")).to_contain_text(f"+keep = 30  # {HOSTILE}")
    assert "version=2" in page.url
    run = site.store.claim(["days"], "w", now=now())
    assert run is not None
    end(site.store, run)
    expect(page.get_by_label("1 day without a failure, 0 with one")).to_be_visible()
    backfill = page.get_by_label("Backfills, the newest first").locator("tbody tr")
    expect(backfill).to_contain_text("1 of 10")
    backfill.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel them").click()
    expect(backfill).to_contain_text("10 of 10")
    assert site.store.backfills("delays:day")[0].counts[State.CANCELLED] == 9


def test_a_viewer_has_no_buttons_and_is_not_told_who_did_what(browser: Browser, site: Site) -> None:
    at = now()
    secret = site.store.create_token("looks on", Role.VIEWER, expires=at + timedelta(days=1), now=at)[1]
    with closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(f"{site.url}?page=deployments&name=delays")
        page.get_by_label("Or paste a token").fill(secret)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("button", name="Run now")).to_be_disabled()
        page.get_by_role("link", name="Audit").click()
        expect(page.locator(".empty:visible")).to_contain_text("Who did what is shown to admins")


def test_a_viewers_browser_that_asks_for_the_audit_all_the_same_gets_no_answer(site: Site) -> None:
    told: dict[Role, list[Seen]] = {Role.VIEWER: [], Role.ADMIN: []}
    with closing(Reader(site.store, Artifacts(str(site.home)), site.client)) as reader:
        for role, seen in told.items():
            viewer = Viewer(reader, role, "a store")
            viewer.show = seen.append  # type: ignore[method-assign]
            viewer._ask({"acts": {"turn": 1}, "now": {"turn": 1}})
        until(lambda: all(told.values()))
    assert told[Role.VIEWER][-1].parts.keys() == {"now"}
    assert told[Role.ADMIN][-1].parts.keys() == {"now", "acts"}


# -- Queue and Audit --------------------------------------------------------------------------------------------------


def test_the_queues_are_shown_over_time_and_with_how_long_runs_waited(page: Page, site: Site) -> None:
    opened(page, site, "?page=queue")
    mine = page.get_by_label("Queues", exact=True).last.locator("tr", has_text=HOSTILE)
    expect(mine).to_contain_text("2 s · 3 s · 3 s")
    expect(page.get_by_text(re.compile(r"Lines since .*, when this server started"))).to_be_visible()
    expect(page.get_by_label("Waiting runs")).to_contain_text(HOSTILE, timeout=SOON)
    expect(page.locator("svg.lines").first).to_be_visible()
    expect(page.get_by_label("Redis", exact=True)).to_contain_text("FLOWKIT_REDIS_URL")


def test_what_was_done_is_listed_and_filtered_by_who_did_it(page: Page, site: Site) -> None:
    opened(page, site, "?page=audit")
    page.get_by_label("By whom").select_option(HOSTILE)
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text(f"POST /{HOSTILE}")
    expect(rows).to_contain_text("not allowed (403)")
    page.reload()
    expect(page.get_by_label("By whom")).to_have_value(HOSTILE)


def test_hostile_names_are_texts_on_each_page(page: Page, site: Site) -> None:
    name = {"page": "deployments", "name": HOSTILE}
    for query in (
        "",
        "?page=deployments",
        f"?{urlencode(name)}",
        "?page=queue",
        f"?{urlencode({'page': 'audit', 'who': HOSTILE})}",
    ):
        opened(page, site, query)
        expect(page.locator("main")).to_contain_text(HOSTILE)
    opened(page, site, f"?{urlencode({'page': 'deployments', 'name': HOSTILE + '2'})}")
    expect(page.locator(".empty:visible")).to_contain_text(f"No deployment '{HOSTILE}2'")


def test_empty_pages_teach_the_next_command(page: Page, tmp_path: Path) -> None:
    dashboard = Dashboard(tmp_path)
    page.goto(dashboard.link)
    expect(page.locator("h1")).to_have_text("Nothing is broken.")
    for query, command in (
        ("", "flowkit run NOTEBOOK.ipynb"),
        ("?page=deployments", "flowkit deploy NOTEBOOK.ipynb"),
        ("?page=deployments&name=x", "flowkit deploy NOTEBOOK.ipynb --name x"),
        ("?page=queue", "flowkit run NOTEBOOK.ipynb"),
        ("?page=audit&who=nobody", "flowkit token create NAME"),
    ):
        page.goto(dashboard.url + query)
        expect(page.locator("pre:visible").filter(has_text=command).first).to_be_visible()
    dashboard.stop()


def test_the_pulse_has_redis_figures_and_says_when_redis_is_gone(tmp_path: Path) -> None:
    with RedisServer() as server:
        config = Config.from_env({"FLOWKIT_HOME": str(tmp_path), "FLOWKIT_REDIS_URL": server.url})
        with Client(config) as client, closing(Pulse(client.store, client, every=0.05)) as pulse:
            until(lambda: pulse.samples)
            first = pulse.samples[0]
            assert first.latency is not None
            assert first.redis is not None
            assert first.redis["used_memory"] > 0
            assert first.redis["latency"] < 5
            server.kill()
            until(lambda: pulse.silent)
            until(lambda: any(one.subject == "broker" for one in pulse.remarks))
            assert pulse.samples[-1].redis is None


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not found():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
