"""``%flow`` in a notebook's kernel, as Jupyter starts it for one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from tests.notebooks_made import outputs, write
from tests.processes import answer, worker


class Notebook:
    """A notebook on the screen: its cells run here, what is saved is up to the test."""

    def __init__(self, place: Path, home: Path, **environment: str) -> None:
        settings = {"FLOWKIT_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", cwd=str(place.parent), env={**os.environ, **settings, **environment}
        )
        self.place = place

    def cell(self, source: str, id: str = "unsaved") -> str:
        """What it shows, an error's traceback included."""
        shown: list[str] = []

        def show(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                shown.append(content["text"])
            elif message["msg_type"] == "error":
                shown.append(f"ERROR {len(content['traceback'])} " + "\n".join(content["traceback"]))
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.append(content["data"]["text/plain"])

        # As JupyterLab does, with the cell's id beside the request.
        whole = self.client.session.msg("execute_request", {"code": source, "silent": False, "store_history": True})
        whole["metadata"]["cellId"] = id
        self.client.shell_channel.send(whole)
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != whole["header"]["msg_id"]:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                self.client.get_shell_msg(timeout=60)
                return "".join(shown)
            show(message)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return write(tmp_path / "sales.ipynb", "print('top', top)", "%flow deploy", parameters="top: int = 3")


@pytest.fixture
def notebook(place: Path, home: Path) -> Iterator[Notebook]:
    opened = Notebook(place, home, JPY_SESSION_NAME=str(place))
    yield opened
    opened.client.stop_channels()
    opened.manager.shutdown_kernel(now=True)


def test_commands_know_their_notebook_and_say_which_state_of_it_counts(notebook: Notebook, place: Path) -> None:
    assert notebook.cell("%load_ext flowkit") == ""

    deployed = notebook.cell('%flow deploy --cron "0 6 * * *" --tz Europe/Madrid -p top 5')
    paused = notebook.cell("%flow pause")
    top = notebook.cell("wanted = 8\n%flow run -p top $wanted")
    listed = notebook.cell("%flow runs")

    saved = re.escape(place.name) + r" as saved at \d\d:\d\d\n"
    assert re.match(saved + r"deployed sales version 1, .*\nnext: ", deployed), deployed
    assert paused == "sales is paused\n"
    assert re.search(saved + "(.|\n)*run .* of sales.ipynb is pending", top), top
    assert "of sales.ipynb; all of them: !flowkit runs" in listed
    assert "\x1b[1mrun" in listed  # in the notebook's own colours
    [run] = answer("runs", "--notebook", place)
    assert run["parameters"] == {"top": 8}
    assert answer("deployments")[0]["parameters"] == {"top": 5}
    assert notebook.cell("%flow cancel").startswith(f"run {run['id']} is ")


def test_what_is_on_the_screen_and_not_saved_is_told(notebook: Notebook, place: Path) -> None:
    notebook.cell("%load_ext flowkit")
    notebook.cell("print('top', top) if 0 else 1", "c1")  # edited, run, not saved

    told = notebook.cell("%flow deploy", "c2")
    write(place, "print('top', top) if 0 else 1", "%flow deploy", parameters="top: int = 3")
    after = notebook.cell("%flow deploy", "c2")

    assert "What ran here is not what is saved: save the notebook (Ctrl+S), and run this cell again." in told
    assert "What ran here" not in after
    assert "deployed sales version 2" in after


def test_an_error_is_one_line_and_stops_what_follows(notebook: Notebook, home: Path) -> None:
    notebook.cell("%load_ext flowkit")

    def error(line: str) -> str:
        shown = notebook.cell(f"%flow {line}\nprint('went on')")
        found = re.search(r"ERROR 1 (.*)", shown)
        assert found, shown
        assert "went on" not in shown
        return found[1]

    assert error("pause") == "flowkit: sales.ipynb is not deployed; %flow deploy does that"
    assert error("show") == "flowkit: sales.ipynb has no run yet; %flow run makes one"
    assert error("run missing.ipynb").startswith("flowkit: no notebook at 'missing.ipynb'")
    assert error("run -p tpo 3") == "flowkit: sales.ipynb has no parameter 'tpo'; did you mean 'top'? It takes top"
    assert error("worker") == "flowkit: flowkit worker goes on until it is stopped; start it in a terminal"
    assert "No such command 'rum'" in error("rum")
    assert error("deploy 'x").startswith("flowkit: deploy 'x: No closing quotation")
    assert "Usage: %flow [OPTIONS] COMMAND" in notebook.cell("%flow")
    assert "Usage: %flow deploy" in notebook.cell("%flow deploy --help")


def test_vs_codes_notebook_is_known_and_none_is_told(place: Path, home: Path) -> None:
    opened = Notebook(place, home, JPY_SESSION_NAME="")
    try:
        opened.cell("%load_ext flowkit")
        unknown = opened.cell("%flow deploy")
        known = opened.cell(f"__vsc_ipynb_file__ = {str(place)!r}\n%flow deploy")
        missing = opened.cell("__vsc_ipynb_file__ = '/gone.ipynb'\n%flow deploy")
        flow = opened.cell("import flowkit as fk\nflow = fk.Flow('mine')\nflow.name")
        variable = opened.cell("flow")
    finally:
        opened.client.stop_channels()
        opened.manager.shutdown_kernel(now=True)

    assert unknown == "ERROR 1 flowkit: nothing says which notebook this is; name it: %flow deploy NOTEBOOK.ipynb"
    assert "deployed sales version 1" in known
    assert "/gone.ipynb is not there" in missing
    assert (flow, "Flow" in variable) == ("'mine'", True)  # the variable, and not the magic of the same name


def test_in_a_run_it_does_nothing(home: Path, tmp_path: Path) -> None:
    place = write(tmp_path / "own.ipynb", "%load_ext flowkit\n%flow deploy\n%flow run\nprint('done')")
    with worker():
        run = answer("run", place, "--wait")

    assert run["state"] == "succeeded"
    assert outputs(run["output"]).split("\n")[-2:] == ["done", ""]
    assert answer("deployments") == []
    assert len(answer("runs")) == 1
