"""The graph in a real JupyterLab: live while a cell is busy, cancelled, dark, and a picture without its kernel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.lab.conftest import SOON, Lab, Notebook

#: `slow` ends when the test makes the file NAME.go; of NAME.say it says that it has seen it.
FLOW = """
import time
from pathlib import Path
import flowkit as fk

flow = fk.Flow("<b>flight</b> delays")

@flow.node
def quick(day: str = "monday") -> list[int]:
    "What is read."
    return [1, 2, 3]

@flow.node
def slow(quick: list[int]) -> int:
    print("<b>begun</b>")
    while not Path("NAME.go").exists():
        if Path("NAME.say").exists():
            Path("NAME.say").unlink()
            print("asked to say something")
        time.sleep(0.02)
    return len(quick)

@flow.node
def last(slow: int) -> str:
    return "<img src=x onerror=window.broken=1>"
"""


@pytest.fixture
def opened(lab: Lab, page: Page, request: pytest.FixtureRequest) -> tuple[Notebook, Path]:
    """A notebook whose graph is shown, and the file that lets `slow` end."""
    name = request.node.name
    lab.theme("JupyterLab Dark" if "dark" in name else "JupyterLab Light")
    lab.write(f"{name}.ipynb", FLOW.replace("NAME", name), "flow", "flow.run()\nprint('the end')")
    notebook = Notebook(page, lab.url(f"{name}.ipynb"))
    notebook.connect()
    notebook.run(0)
    notebook.run(1)
    expect(page.locator(".fk-card")).to_have_count(3, timeout=SOON)
    return notebook, lab.folder / f"{name}.go"


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def test_states_go_by_and_a_node_tells_its_code_while_the_cell_is_busy(opened: tuple[Notebook, Path], page: Page):
    notebook, go = opened
    expect(card(page, "slow, not run")).to_be_visible()

    notebook.run(2, wait=False)
    expect(card(page, "quick, succeeded")).to_be_visible(timeout=SOON)
    expect(card(page, "slow, running")).to_be_visible(timeout=SOON)
    expect(card(page, "last, pending")).to_be_visible()
    card(page, "quick").click()
    detail = page.get_by_role("complementary", name="Node quick")
    expect(detail).to_contain_text('"What is read."', timeout=SOON)
    expect(detail).to_contain_text("list · 3 items")
    card(page, "slow, running").click()
    wrote = page.get_by_role("complementary", name="Node slow").locator(".fk-log")
    expect(wrote).to_have_text("<b>begun</b>\n", timeout=SOON)
    go.with_suffix(".say").touch()
    expect(wrote).to_contain_text("asked to say something", timeout=SOON)
    assert notebook.state(2) == "running"

    go.touch()
    notebook.until(2, "idle")
    expect(card(page, "last, succeeded")).to_be_visible(timeout=SOON)
    expect(page.locator(".fk-top")).to_contain_text("critical path: 3 nodes")
    card(page, "last, succeeded").click()
    shown = page.get_by_role("complementary", name="Node last").locator("pre", has_text="<img src=x").first
    expect(shown).to_have_text("<img src=x onerror=window.broken=1>", timeout=SOON)
    assert page.evaluate("() => window.broken") is None
    expect(page.locator(".fk-top h1")).to_have_text("<b>flight</b> delays")


def test_the_keyboard_reaches_every_node(opened: tuple[Notebook, Path], page: Page):
    card(page, "quick").focus()
    page.keyboard.press("ArrowRight")
    expect(card(page, "slow")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Node slow")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".fk-detail")).to_have_count(0)
    expect(card(page, "slow")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("las")
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name="Node last")).to_be_visible()


def test_cancel_stops_the_run_while_the_cell_is_busy(opened: tuple[Notebook, Path], page: Page):
    notebook, _ = opened
    notebook.run(2, wait=False)
    expect(card(page, "slow, running")).to_be_visible(timeout=SOON)

    page.get_by_role("button", name="Cancel").click()

    notebook.until(2, "idle")  # and `slow` would never have ended
    expect(card(page, "slow, cancelled")).to_be_visible(timeout=SOON)
    expect(card(page, "last, skipped")).to_be_visible()
    expect(page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").last).to_contain_text(
        "FlowCancelled: cancelled on the graph"
    )


def test_a_saved_notebook_shows_the_last_picture_without_its_kernel_and_in_the_dark(
    opened: tuple[Notebook, Path], page: Page, lab: Lab
):
    notebook, go = opened
    ground = page.locator(".fk-card").first.evaluate("card => getComputedStyle(card).backgroundColor")
    assert max(map(int, re.findall(r"\d+", ground))) < 60, f"a card of the dark theme is {ground}"
    expect(page.locator(".flowkit")).to_have_css("color-scheme", "dark")  # so its states have their dark colours too
    picture = page.locator("[data-mime-type='image/svg+xml']")
    expect(picture).to_be_hidden()

    go.touch()
    notebook.run(2)
    name = lab.folder / f"{go.stem}.ipynb"
    expect(card(page, "last, succeeded")).to_be_visible(timeout=SOON)
    page.wait_for_function(  # the picture follows a moment after the run
        """() => JSON.stringify(window.jupyterapp.shell.currentWidget.content.widgets[1].model.outputs.toJSON())
            .includes("✓")""",
    )
    notebook.save()
    notebook.stop()

    Notebook(page, lab.url(name.name)).connect()
    expect(picture).to_be_visible(timeout=SOON)
    expect(page.locator(".jp-OutputArea-child").nth(2)).to_be_hidden(timeout=SOON)  # "widget model not found"
    outputs = json.loads(name.read_text())["cells"][1]["outputs"]
    assert "<svg " in "".join(outputs[0]["data"]["image/svg+xml"])
