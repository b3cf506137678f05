"""Where JupyterLab is not: a saved notebook as a page, and what other front-ends ask of the bundle."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import nbformat.v4 as v4
import pytest
from nbclient import NotebookClient
from playwright.sync_api import Page, expect

from flowkit.scene import BUNDLE

FLOW = """
import flowkit as fk
flow = fk.Flow("delays")

@flow.node
def flights() -> list[int]:
    return [1, 20]

@flow.node
def late(flights: list[int]) -> int:
    return len(flights)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that has run, with the state of its widgets, as JupyterLab saves it if it is asked to."""
    notebook = v4.new_notebook(
        cells=[v4.new_code_cell(FLOW), v4.new_code_cell("flow"), v4.new_code_cell("flow.run();")]
    )
    NotebookClient(notebook, kernel_name="python3").execute()
    assert notebook.metadata.widgets
    path = tmp_path_factory.mktemp("saved") / "delays.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_saved_notebook_that_nbconvert_makes_a_page_of_shows_the_last_picture(saved: Path, page: Page):
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", "--log-level=ERROR", str(saved)]
    subprocess.run(command, check=True, timeout=120)
    page.route(re.compile("^https?:"), lambda route: route.abort())  # without a net, and so without the live graph

    page.goto(saved.with_suffix(".html").as_uri())

    picture = page.locator("img[src^='data:image/svg+xml']")
    expect(picture).to_be_visible()
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") > 300
    drawn = base64.b64decode(str(picture.get_attribute("src")).partition(",")[2]).decode()
    assert ">late<" in drawn
    assert drawn.count("✓") == 2, "as it stood after the run"
    expect(page.locator(".jp-OutputArea-output:visible")).to_have_count(1)  # no error where the live graph would be


def test_the_bundle_is_one_module_that_asks_nothing_of_where_it_is_shown():
    source = BUNDLE.read_text()

    assert len(source) < 300_000
    assert re.search(r"\bexport\s*\{[^}]*\bas default\b[^}]*\};?\s*$", source)
    for wanted in (r'\bimport\s*[\w{*"(]', r"\brequire\(", r"import\.meta", r"\bjupyterapp\b", r"\bfetch\(",
                   r"XMLHttpRequest", r"\beval\(", r"new Function"):  # fmt: skip
        assert not re.search(wanted, source), (
            f"{wanted} in the bundle: VS Code, Colab and a page without a net have none"
        )
