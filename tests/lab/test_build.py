"""A flow built by mouse in a real JupyterLab: its code goes into the cell below, and runs; its nodes run again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.lab.conftest import SOON, Lab, Notebook

FUNCTIONS = """
import time
from pathlib import Path
import flowkit as fk

def flights(day: str) -> list[int]:
    return [3, 20, 45, len(day)]

def late(flights: list[int], min_delay: int = 15) -> list[int]:
    print("looking for what is late")
    return [one for one in flights if one >= min_delay]

def count(rows: list[int], exact: bool = True) -> int:
    return len(rows)
"""
EMPTY = """flow = fk.Flow("delays")\nflow"""

Open = Callable[..., Notebook]


@pytest.fixture
def opened(lab: Lab, page: Page, request: pytest.FixtureRequest) -> Open:
    def open(*cells: str) -> Notebook:
        name = request.node.name
        page.set_viewport_size({"width": 1280, "height": 1500})
        lab.theme("JupyterLab Dark" if "dark" in name else "JupyterLab Light")
        lab.write(f"{name}.ipynb", *cells)
        notebook = Notebook(page, lab.url(f"{name}.ipynb"))
        notebook.connect()
        return notebook

    return open


def sources(page: Page) -> list[str]:
    found: list[str] = page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(cell => cell.getSource())"
    )
    return found


def outputs(page: Page, cell: int) -> str:
    script = (
        "cell => JSON.stringify(window.jupyterapp.shell.currentWidget.content.widgets[cell].model.outputs.toJSON())"
    )
    return str(page.evaluate(script, cell))


def put(page: Page, function: str, x: float, y: float) -> None:
    """Drag a function from the palette to this place of the sheet."""
    sheet = page.locator(".fk-board").bounding_box()
    assert sheet is not None
    drag(page, page.locator(".fk-offer", has=page.get_by_text(function, exact=True)), (sheet["x"] + x, sheet["y"] + y))


def port(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def drag(page: Page, thing: Locator, to: Any, *, drop: bool = True) -> None:
    for place, at in (("from", thing), ("to", to)):
        box = at.bounding_box() if isinstance(at, Locator) else {"x": at[0], "y": at[1], "width": 0, "height": 0}
        x = box["x"] + min(box["width"] / 2, 30)
        page.mouse.move(x, box["y"] + box["height"] / 2, steps=1 if place == "from" else 6)
        if place == "from":
            page.mouse.down()
    if drop:
        page.mouse.up()


def test_a_flow_of_three_nodes_is_built_by_mouse_written_below_and_run(opened: Open, page: Page):
    notebook = opened(FUNCTIONS, EMPTY, 'flow.run(day="monday")["count"]')
    notebook.run(0)
    notebook.run(1)
    page.get_by_role("button", name="build it by mouse").click(timeout=SOON)
    expect(page.locator(".fk-first")).to_contain_text("Drag a function from the list onto this sheet", timeout=SOON)

    put(page, "flights", 120, 60)
    put(page, "late", 420, 60)
    put(page, "count", 420, 250)
    edges = page.locator(".react-flow__edge")
    expect(edges).to_have_count(1)  # flights > late: the name is the edge

    drag(page, port(page, "output result of late"), port(page, "input exact of count"), drop=False)
    expect(page.get_by_role("tooltip")).to_have_text("list[int] does not fit bool")
    expect(page.locator(".fk-row.fits .fk-label", has_text="rows")).to_have_count(1)
    expect(page.locator(".fk-row.dim .fk-label", has_text="exact")).to_have_count(1)
    page.mouse.up()
    expect(page.get_by_role("status")).to_have_text("list[int] does not fit bool")
    drag(page, port(page, "output result of late"), port(page, "input flights of late"), drop=False)
    expect(page.get_by_role("tooltip")).to_have_text("would make a circle: late would read itself")
    page.mouse.up()
    expect(edges).to_have_count(1)
    drag(page, port(page, "output result of late"), port(page, "input rows of count"))
    expect(edges).to_have_count(2)
    line = edges.last.locator(".react-flow__edge-interaction").bounding_box()
    assert line is not None
    page.mouse.click(line["x"] + line["width"] / 2, line["y"] + line["height"] / 2)
    page.keyboard.press("Delete")
    expect(edges).to_have_count(1)
    page.keyboard.press("Control+z")
    expect(edges).to_have_count(2)

    page.get_by_role("group", name="late").locator(".fk-head").click()
    field = page.get_by_role("textbox", name="min_delay")
    field.fill("many")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("a whole number")
    field.fill("30")
    field.press("Enter")
    label = page.get_by_role("group", name="late").locator(".fk-label", has_text="min_delay")
    expect(label).to_have_text("min_delay = 30")
    page.get_by_role("button", name="Undo").click()
    expect(label).to_have_text("min_delay = 15")
    page.keyboard.press("Control+Shift+z")
    expect(label).to_have_text("min_delay = 30")

    write = page.get_by_role("button", name="Write code")
    write.click()
    expect(page.get_by_role("status")).to_contain_text("Written into the cell below", timeout=SOON)
    cells = sources(page)
    assert len(cells) == 4
    assert '@flow.node(inputs={"min_delay": 30})\ndef late(' in cells[2]
    notebook.run(2)
    expect(page.locator(".fk-board .react-flow__node")).to_have_count(3)
    write.click()  # of what the written code has made: nothing changes
    expect(page.get_by_role("status")).to_contain_text("Written into the cell below", timeout=SOON)
    assert sources(page) == cells

    page.get_by_role("button", name="Done").click()
    notebook.run(3)
    assert "'text/plain': '1'" in outputs(page, 3).replace('"', "'").replace(":'", ": '")
    expect(page.get_by_role("button", name="count, succeeded")).to_be_visible(timeout=SOON)


def test_the_keyboard_builds_in_the_dark_while_a_cell_is_busy_and_a_flow_runs_again_from_a_node(
    opened: Open, page: Page, lab: Lab
):
    go = lab.folder / "build.go"
    nodes = "flow = fk.Flow('delays')\nfor one in (flights, late):\n    flow.node(one)\nflow"
    busy = f"flow.run(day='x')\nwhile not Path('{go.name}').exists():\n    time.sleep(0.02)"
    notebook = opened(FUNCTIONS, nodes, busy, "late_ = late")
    notebook.run(0)
    notebook.run(1)
    notebook.run(2, wait=False)
    expect(page.get_by_role("button", name="late, succeeded")).to_be_visible(timeout=SOON)

    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Find a function").fill("coun", timeout=SOON)
    page.keyboard.press("Enter")
    port(page, "input rows of count").press("c")
    expect(page.get_by_role("menuitem", name="flights")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".react-flow__edge")).to_have_count(2)
    port(page, "input rows of count").press("Delete")
    expect(page.locator(".react-flow__edge")).to_have_count(1)
    expect(page.locator(".fk-board .fk-card")).to_have_count(3)
    page.get_by_role("group", name="count").press("Enter")
    page.get_by_label("rows is fed by").select_option("when it runs")
    expect(page.locator(".fk-form")).to_contain_text("give it when the flow runs", timeout=SOON)  # the kernel's word
    page.get_by_label("rows is fed by").select_option("from late")
    ground = page.locator(".fk-board .fk-card").first.evaluate("card => getComputedStyle(card).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground))) < 60, f"a card of the dark theme is {ground}"

    # Where nobody puts it into the notebook, the code is shown.
    page.evaluate(
        "() => window.addEventListener('flowkit:write-below', event => event.stopImmediatePropagation(), true)"
    )
    page.get_by_role("button", name="Write code").click()
    shown = page.get_by_role("dialog", name="The code of this flow").get_by_role("textbox")
    expect(shown).to_have_value(re.compile(r"@flow\.node\(inputs={\"rows\": \"late\"}\)\ndef count"), timeout=SOON)
    assert notebook.state(2) == "running"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Done").click()
    go.touch()
    notebook.until(2, "idle")
    assert outputs(page, 1).count("looking for what is late") == 0

    page.get_by_role("button", name="late, succeeded").click(button="right")
    page.get_by_role("menuitem", name="Run again from here").click()
    expect(page.locator(".jp-OutputArea-output", has_text="looking for what is late").first).to_be_visible(timeout=SOON)
    page.wait_for_function(
        """() => JSON.stringify(window.jupyterapp.shell.currentWidget.content.widgets[1].model.outputs.toJSON())
            .includes("looking for what is late")"""
    )  # under the cell with the graph
    page.get_by_role("button", name="late, succeeded").press("m")
    expect(page.get_by_role("menuitem", name="Run what is stale")).to_contain_text("nothing is")


def test_a_draft_survives_its_page_and_its_kernel(opened: Open, page: Page):
    notebook = opened(FUNCTIONS, EMPTY)
    notebook.run(0)
    notebook.run(1)
    page.get_by_role("button", name="build it by mouse").click(timeout=SOON)
    put(page, "flights", 120, 60)
    put(page, "late", 420, 60)
    nodes = page.locator(".fk-board .react-flow__node")
    expect(nodes).to_have_count(2)
    notebook.save()

    page.evaluate("() => localStorage.clear()")  # of this page; the kernel has it too
    notebook = Notebook(page, page.url)
    page.get_by_role("button", name="Edit draft").click(timeout=SOON)
    expect(nodes).to_have_count(2, timeout=SOON)
    put(page, "count", 420, 250)
    expect(nodes).to_have_count(3)

    notebook.stop()
    notebook = Notebook(page, page.url)
    notebook.restart()
    notebook.run(0)
    notebook.run(1)
    page.get_by_role("button", name="Edit draft").click(timeout=SOON)
    expect(nodes).to_have_count(3, timeout=SOON)
    page.get_by_role("button", name="Undo").click()  # back to what the notebook has
    expect(nodes).to_have_count(0)
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("button", name="Edit", exact=True)).to_be_visible()


MANY = """
flow = fk.Flow("many")
flow.node(flights)
for n in range(399):
    flow.add(late, f"late_{n}", flights=f"late_{n - 20}" if n >= 20 else "flights")
flow
"""


def test_a_flow_of_more_nodes_than_elements_is_edited_by_mouse(opened: Open, page: Page):
    notebook = opened(FUNCTIONS, MANY)
    notebook.run(0)
    notebook.run(1)
    page.get_by_role("button", name="Edit").click(timeout=SOON)
    put(page, "count", 300, 30)  # beside what is there
    nodes = page.locator(".fk-board .react-flow__node")
    expect(page.get_by_role("status")).to_contain_text("401 nodes")
    sheet = page.locator(".fk-board").bounding_box()
    assert sheet is not None
    middle = sheet["x"] + sheet["width"] / 2, sheet["y"] + sheet["height"] / 2

    page.mouse.click(*middle)  # where no card is an element
    form = page.locator(".fk-form h2")
    expect(form).to_have_text(re.compile(r"late_\d+"))
    name = form.inner_text()
    reader = f"late_{int(name.removeprefix('late_')) + 20}"
    expect(page.get_by_role("group", name=reader, exact=True)).to_be_visible(timeout=SOON)
    assert nodes.count() < 150
    page.get_by_role("button", name="Close").click()
    drag(page, port(page, f"output result of {name}"), port(page, f"input min_delay of {reader}"), drop=False)
    expect(page.get_by_role("tooltip")).to_have_text("list[int] does not fit int")
    page.mouse.up()
    port(page, f"input flights of {reader}").click()
    page.get_by_role("menuitem", name=re.compile(r"^late_0\b")).click()
    page.get_by_role("button", name="Write code").click()
    expect(page.get_by_role("status")).to_contain_text("Written into the cell below", timeout=SOON)
    assert f'flow.add(late, "{reader}", flights="late_0")' in sources(page)[2]


RECORDED = """
import os, tempfile
os.environ["FLOWKIT_HOME"] = tempfile.mkdtemp()
from flowkit.config import Config
from flowkit.store import Store
from tests.store.given import claimed
flow = fk.Flow("delays")
flow.node(flights), flow.node(late)
flow.run(day="x")
with Store.open(Config.from_env().database_url) as store:
    run = claimed(store)
    store.record(run.id, run.attempt, flow.outcome.events)
fk.view(run.id)
"""


def test_a_recorded_run_is_moved_through_in_time(opened: Open, page: Page):
    notebook = opened(FUNCTIONS, RECORDED)
    notebook.run(0)
    notebook.run(1)
    expect(page.get_by_role("button", name="late, succeeded")).to_be_visible(timeout=SOON)
    slider = page.get_by_role("slider", name="Time")

    slider.press("Home")
    expect(page.get_by_role("button", name="late, pending")).to_be_visible()
    expect(page.get_by_role("button", name="flights, pending")).to_be_visible()
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="late, succeeded")).to_be_visible(timeout=SOON)
    expect(page.get_by_role("button", name="Edit")).to_have_count(0)
