"""flowkit as papermill's engine: another kernel, and nothing else that papermill's users could notice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

import papermill
import pytest
from papermill.engines import papermill_engines
from papermill.iorw import LocalHandler

from flowkit.config import whole_environment
from flowkit.worker import engine, kernels
from flowkit.worker.zygote import Zygotes
from tests.notebooks_made import outputs, write
from tests.processes import eventually


@pytest.fixture(autouse=True)
def registered(entry_points: None) -> None:
    papermill_engines.register_entry_points()


@pytest.fixture(scope="module")
def warm(entry_points: None) -> Iterator[Zygotes]:
    """Ready for the kernels of this process."""
    zygotes = Zygotes(lambda: ())
    zygotes.await_ready(kernels.find(None), whole_environment())
    yield zygotes
    zygotes.close()


def normalised(nb: Any) -> Any:
    """A document without ids, times, numbers of processes and addresses."""
    if isinstance(nb, dict) and "widgets" in nb["metadata"]:
        (states,) = nb["metadata"]["widgets"].values()
        states["state"] = sorted(json.dumps(state["model_name"]) for state in states["state"].values())
    text = re.sub(r"ipykernel_\d+|0x[0-9a-f]{6,}|\b([0-9a-f]{32}|[0-9a-f]{8})\b", "X", json.dumps(nb))
    text = re.sub(r'"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)"', '"T"', text)
    return json.loads(re.sub(r'"duration": [\d.e-]+', '"duration": 0', text))


def executed(notebook: Path, engine: str | None, **options: Any) -> list[str]:
    """The document and the error, as lines, to be compared."""
    output = notebook.parent / "out.ipynb"
    error = None
    try:
        papermill.execute_notebook(str(notebook), str(output), engine_name=engine, progress_bar=False, **options)
    except Exception as raised:
        error = type(raised).__name__, normalised(str(raised))
    return json.dumps([normalised(json.loads(output.read_text())), error and str(error)], indent=1).splitlines()


def difference(ours: list[str], theirs: list[str]) -> list[str]:
    return list(unified_diff(theirs, ours, "theirs", "ours", n=0, lineterm=""))


RICH = (
    "x = 1",
    "import sys\nprint('out'); print('err', file=sys.stderr); x + 1",
    "from IPython.display import display, clear_output\nh = display('one', display_id='d'); h.update('two')",
    "for i in range(3):\n    clear_output(wait=True); print(i)",
    "import ipywidgets as w\nout = w.Output()\nwith out:\n    print('inside')\nout",
    "import os\nos.getcwd(), sorted(set(os.environ) - {'JPY_PARENT_PID', 'JPY_SESSION_NAME', 'PYDEVD_USE_FRAME_EVAL'})",
    "input('name? ')",
    "never",
)


def test_its_document_and_its_error_are_those_of_papermills_own_engine(
    tmp_path: Path, warm: Zygotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = write(tmp_path / "notebook.ipynb", *RICH)

    theirs = executed(notebook, None, parameters={"x": 5})
    started = executed(notebook, "flowkit", parameters={"x": 5})
    monkeypatch.setattr(engine.WARM, "zygotes", warm)
    forked = executed(notebook, "flowkit", parameters={"x": 5})

    assert "PapermillExecutionError" in theirs[-2]
    assert not difference(started, theirs)
    assert not difference(forked, theirs)


def test_the_command_line_takes_it_by_one_flag(tmp_path: Path) -> None:
    notebook = write(tmp_path / "notebook.ipynb", "day = 1", "print(day)")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "--log-output", "-p", "day", "2"]
    found = []
    for flag in ((), ("--engine", "flowkit")):
        output = tmp_path / "out.ipynb"
        done = subprocess.run([*command, *flag, str(notebook), str(output)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if "Executing" in line or line.strip() == "2"]
        found.append((normalised(json.loads(output.read_text())), said))

    assert found[0] == found[1]


def test_from_the_second_notebook_on_kernels_are_forked(tmp_path: Path, warm: Zygotes) -> None:
    write(tmp_path / "how.ipynb", "'zygote.py' in open('/proc/self/cmdline').read()")
    engine.WARM._forget()
    found = []
    for _ in range(3):
        output = tmp_path / "out.ipynb"
        papermill.execute_notebook(str(tmp_path / "how.ipynb"), str(output), engine_name="flowkit", progress_bar=False)
        found.append(outputs(output).strip())
        assert (engine.WARM.zygotes is None) == (len(found) == 1)
        engine.WARM.zygotes = warm if engine.WARM.zygotes else None

    assert found == ["False", "False", "True"]


@pytest.mark.parametrize(
    ("cells", "options", "error"),
    [
        (("import time; time.sleep(60)",), {"execution_timeout": 1}, "CellTimeoutError"),
        (("import os, time; time.sleep(0.5); os._exit(3)",), {}, "DeadKernelError"),
        (("import sys; sys.exit(3)", "1"), {}, "PapermillExecutionError"),
        (("import sys; sys.exit(0)", "1"), {}, "null"),
        (("1",), {"kernel_name": "none such"}, "NoSuchKernel"),
    ],
)
def test_a_failure_is_told_as_papermill_tells_it(
    tmp_path: Path,
    cells: tuple[str, ...],
    options: dict[str, Any],
    error: str,
    warm: Zygotes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine.WARM, "zygotes", warm)
    notebook = write(tmp_path / "notebook.ipynb", *cells)

    theirs, ours = (executed(notebook, engine, **options) for engine in (None, "flowkit"))

    assert not difference(ours, theirs)
    assert error in theirs[-2]


def test_fifty_cells_are_saved_a_few_times_and_what_runs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = write(
        tmp_path / "notebook.ipynb", *["1"] * 50, "import time\nwhile not open('go').read(): time.sleep(.05)"
    )
    (tmp_path / "go").write_text("")
    output, saves = tmp_path / "out.ipynb", []
    write_file = LocalHandler.write
    monkeypatch.setattr(LocalHandler, "write", lambda *given: (saves.append(1), write_file(*given)))
    monkeypatch.chdir(tmp_path)
    options = {"engine_name": "flowkit", "progress_bar": False}
    thread = threading.Thread(target=papermill.execute_notebook, args=(str(notebook), str(output)), kwargs=options)
    thread.start()

    def status() -> Any:
        cells = json.loads(output.read_text())["cells"] if output.exists() else []
        return cells and cells[-1]["metadata"]["papermill"]["status"]

    eventually(lambda: status() == "running")
    (tmp_path / "go").write_text("1")
    thread.join()

    assert status() == "completed"
    assert len(saves) < 20
