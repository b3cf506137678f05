"""What the graph costs: its browser to mount, pan and update it and to edit it, and the run to be followed.

``python -m tests.bench.graph``. Browser figures are processor time of the page's main thread, in headless Chromium
without a GPU; a busy machine stretches the wall's clock, and these much less.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

import flowkit as fk
from flowkit.flow import editor, sheet
from flowkit.scene import BUNDLE
from tests.bench.nodes import layered
from tests.lab.conftest import Lab, Notebook
from tests.server.conftest import QUIET, chromium

COUNTS = (50, 1_000, 10_000)
EDITED = (50, 300, 1_000, 3_000)
STEPS = 20

START = """async ([source, graph]) => {
    const { render } = await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    const hearers = {};
    const values = { graph, status: new Uint8Array(graph.nodes.length).fill(1), times: {}, run: { state: "idle" } };
    window.model = {
        get: name => values[name], set() {}, save_changes() {}, off() {},
        on(event, hear) { (hearers[event] ??= []).push(hear); },
        tell(name, value) { values[name] = value; for (const hear of hearers[`change:${name}`] || []) hear(); },
    };
    const el = document.body.appendChild(document.createElement("div"));
    window.mount = () => { render({ model: window.model, el }); };
}"""
BUILD = """offer => {
    window.model.tell("mode", "build");
    window.model.tell("run", { state: "idle", live: true });
    window.model.tell("offered", offer);
}"""
GROUND = """() => {
    const { left, top, width, height } = document.querySelector(".fk-board").getBoundingClientRect();
    for (let x = left + width / 2; x < left + width; x += 4)
        for (let y = top + 60; y < top + height - 60; y += 4)
            if (document.elementFromPoint(x, y).matches(".react-flow__pane")) return [x, y];
}"""
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0))))"
UPDATE = """step => {
    const status = window.model.get("status").slice();
    for (let node = step; node < status.length; node += Math.ceil(status.length / 100)) status[node] = 2 + step % 2;
    window.model.tell("status", status);
}"""


def main() -> None:
    print(f"\nthe graph, {BUNDLE.stat().st_size / 1000:.0f} kB; load average {os.getloadavg()[0]:.2f}")
    print(f"  {'nodes':<24}{'mount':>9}{'pan':>9}{'states':>12}   ms of the main thread: once, a step, 100 changed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        for count in COUNTS:
            for unfolded in (False, True) if count > 1_500 else (False,):
                mount, pan, states = measure(browser, count, unfolded=unfolded)
                name = f"{count:,}{' unfolded' if unfolded else ' folded' if count > 1_500 else ''}"
                print(f"  {name:<24}{mount:9.0f}{pan:9.1f}{states:12.1f}")
        print(
            f"  {'edited':<24}{'open':>9}{'pan':>9}{'drag':>9}{'change':>9}   ms of the main thread: once, a step, once"
        )
        for count in EDITED:
            opened, pan, dragged, changed = edited(browser, count)
            print(f"  {count:<24,}{opened:9.0f}{pan:9.1f}{dragged:9.1f}{changed:9.0f}")
        print("  a run of 10,000 instant nodes in JupyterLab, without its graph / with it, in ms")
        for name, alone, shown in in_jupyterlab(browser):
            pairs = zip(("by the clock", "of the kernel's processor time"), alone, shown, strict=True)
            told = ", ".join(f"{one:.0f} / {other:.0f} {what} ({other / one - 1:+.1%})" for what, one, other in pairs)
            print(f"  {name:<24}{told}")
        browser.close()
    bare, followed = following()
    print(f"  the same without a browser: {bare:.0f} ms, followed {followed:.0f} ms ({followed / bare - 1:+.1%})")
    print(f"load average {os.getloadavg()[0]:.2f}")


def measure(browser: Browser, count: int, *, unfolded: bool) -> tuple[float, float, float]:
    page = browser.new_page(viewport={"width": 1200, "height": 700})
    page.goto("about:blank")
    page.evaluate(START, [BUNDLE.read_text(), drawn(count)])
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def mount() -> None:
        page.evaluate("() => window.mount()")
        settle(page)

    def unfold() -> None:
        page.get_by_role("button", name="Show every node").click()
        settle(page)

    mounted = spent(session, mount)
    if unfolded:
        mounted = spent(session, unfold)
    bounds = page.locator(".fk-sheet").bounding_box()
    assert bounds is not None
    x, y = bounds["x"] + 15, bounds["y"] + 15
    page.mouse.move(x, y)
    page.mouse.down()

    def pan() -> None:
        for step in range(STEPS):
            page.mouse.move(x + 6 * (step % 10), y + 4 * (step % 7))
            page.evaluate(DRAWN)

    panned = spent(session, pan) / STEPS
    page.mouse.up()
    settle(page)

    def update() -> None:
        for step in range(STEPS):
            page.evaluate(UPDATE, step)
            page.evaluate(DRAWN)

    updated = spent(session, update) / STEPS
    page.close()
    return mounted, panned, updated


def edited(browser: Browser, count: int) -> tuple[float, float, float, float]:
    """To open the editor, pan it with cards in view, drag a card by its head, and duplicate a node."""
    page = browser.new_page(viewport={"width": 1200, "height": 700})
    page.goto("about:blank")
    page.evaluate(START, [BUNDLE.read_text(), drawn(count)])
    page.evaluate(BUILD, editor.offered(flow(count)))
    page.evaluate("() => window.mount()")
    settle(page)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def start() -> None:
        page.get_by_role("button", name="Edit").click()
        page.wait_for_selector(".fk-board")
        settle(page)

    opened = spent(session, start)
    sheet = page.locator(".fk-board").bounding_box()
    assert sheet is not None
    x, y = sheet["x"] + sheet["width"] / 2, sheet["y"] + sheet["height"] / 2
    page.mouse.click(x, y)  # on a card, which brings it near
    settle(page)
    page.keyboard.press("Escape")
    settle(page)

    def moves() -> None:
        for step in range(STEPS):
            page.mouse.move(x + 6 * (step % 10), y + 4 * (step % 7))
            page.evaluate(DRAWN)

    x, y = page.evaluate(GROUND)
    page.mouse.move(x, y)
    page.mouse.down()
    panned = spent(session, moves) / STEPS
    page.mouse.up()
    settle(page)
    head = max(
        (one.bounding_box() for one in page.locator(".fk-board .fk-head").all()), key=lambda box: inside(box, sheet)
    )
    x, y = head["x"] + 60, head["y"] + 10
    page.mouse.move(x, y)
    page.mouse.down()
    dragged = spent(session, moves) / STEPS
    page.mouse.up()
    settle(page)

    page.locator(".fk-board .react-flow__node").first.press("Enter")
    settle(page)

    def change() -> None:
        page.get_by_role("button", name="Duplicate").click()
        settle(page)

    changed = spent(session, change)
    page.close()
    return opened, panned, dragged, changed


def inside(box: Any, sheet: Any) -> float:
    """How far from the sheet's edges."""
    across = min(box["x"] - sheet["x"], sheet["x"] + sheet["width"] - box["x"] - box["width"])
    return float(min(across, box["y"] - sheet["y"], sheet["y"] + sheet["height"] - box["y"] - box["height"]))


IN_A_NOTEBOOK = (
    """
import json, statistics, threading, time
import flowkit as fk
from tests.bench.nodes import layered

def flow(name):
    made = fk.Flow(name)
    def work(a: int = 0, b: int = 0) -> int:
        return 1
    for one, reads in layered(10_000).items():
        made.add(work, one, inputs=dict(zip("ab", reads)))
    return made

def rounds(count=15):
    times = {alone: [], shown: []}
    for flow in [*times] * count:
        began = time.perf_counter(), time.process_time()
        flow.run(threads=4)
        times[flow].append([(time.perf_counter() - began[0]) * 1000, (time.process_time() - began[1]) * 1000])
        while any(one.name.startswith("graph of") for one in threading.enumerate()):
            time.sleep(0.05)
        time.sleep(0.5)  # what the browser does after the end is not part of the next run
    print(json.dumps([[statistics.median(of) for of in zip(*one)] for one in times.values()]))

alone, shown = flow("alone"), flow("shown")
""",
    "shown",
    "rounds()",
    "rounds()",
)


def in_jupyterlab(browser: Browser) -> list[tuple[str, list[float], list[float]]]:
    """Medians of runs without and with a graph, folded and not, in turn in a kernel of a real JupyterLab."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            lab.write("bench.ipynb", *IN_A_NOTEBOOK)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(120_000)
            notebook = Notebook(page, lab.url("bench.ipynb"))
            notebook.connect()
            notebook.run(0)
            notebook.run(1)
            page.wait_for_selector(".fk-card")
            notebook.run(2)
            page.get_by_role("button", name="Show every node").click()
            notebook.run(3)
            found = [(name, *json.loads(printed(notebook, cell))) for name, cell in (("folded", 2), ("unfolded", 3))]
            page.close()
            return found
        finally:
            lab.stop()


def printed(notebook: Notebook, cell: int) -> str:
    script = "cell => window.jupyterapp.shell.currentWidget.content.widgets[cell].model.outputs.toJSON()"
    return "".join(one["text"] for one in notebook.page.evaluate(script, cell) if one["output_type"] == "stream")


def settle(page: Page) -> None:
    page.wait_for_selector(".react-flow")
    page.wait_for_timeout(300)
    page.evaluate(DRAWN)


def spent(session: CDPSession, work: Callable[[], None]) -> float:
    """ms of the page's main thread."""

    def total() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    before = total()
    work()
    return (total() - before) * 1000


def drawn(count: int) -> dict[str, Any]:
    return sheet.drawn("bench", flow(count).graph)


def flow(count: int) -> fk.Flow:
    def work(a: int = 0, b: int = 0) -> int:
        return 1

    made = fk.Flow("bench")
    for name, reads in layered(count).items():
        made.add(work, name, inputs=dict(zip("ab", reads, strict=False)))
    return made


def following(rounds: int = 9) -> tuple[float, float]:
    """Median ms of a run of 10,000 instant nodes, alone and followed as the widget follows it, in turn."""
    made = flow(10_000)
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for followed in times:
            made._view = Following() if followed else None  # type: ignore[assignment]
            began = time.perf_counter()
            made.run(threads=4)
            times[followed].append((time.perf_counter() - began) * 1000)
            time.sleep(0.3)  # what tells of the end is not part of the next run
    return statistics.median(times[False]), statistics.median(times[True])


class Following:
    """As the widget's view, less the browser: it looks at the run just as often."""

    def follow(self, graph: Any, outcome: Any, cancel: Callable[[], None]) -> Callable[[], None]:
        done = threading.Event()

        def work() -> None:
            account = sheet.Account(graph, outcome)
            while not done.wait(0.1):
                account.run(), account.status(), account.times(range(100))
            account.run(), account.status(), account.times(range(100))

        threading.Thread(target=work, daemon=True).start()
        return done.set


if __name__ == "__main__":
    main()
