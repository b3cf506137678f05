"""A flow in a real kernel."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = [
    """
import threading, time
import flowkit as fk
flow = fk.Flow("f")
@flow.node
def hello():
    on_main = threading.current_thread() is threading.main_thread()
    print(f"hello from {on_main}\\n", end="")  # one write: two threads print
@flow.node(timeout=20)
def timed():
    print("timed\\n", end="")
@flow.node
def late(hello):
    raise ValueError("bad day")
""",
    "flow.run(threads=3)",
    "flow",
    """
slow = fk.Flow("slow")
go, done = threading.Event(), threading.Event()
@slow.node
def patient():
    go.wait(10)
    print("from the earlier cell")
    done.set()
try:
    import contextvars
    fk_run = threading.Thread(target=contextvars.copy_context().run, args=(slow.run,))
    fk_run.start()
finally:
    print("cell four")
""",
    """
print("cell five")
go.set()
done.wait(10)
time.sleep(0.3)
""",
    """
import sys, types
colab = sys.modules["google.colab.output"] = types.ModuleType("google.colab.output")
colab.enable_custom_widget_manager = lambda: None
colab._widgets = types.SimpleNamespace(_installed_url="https://example.org/manager.js")
flow
""",
]


@pytest.fixture(scope="module")
def outputs():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    NotebookClient(notebook, kernel_name="python3", allow_errors=True).execute()
    return [cell.outputs for cell in notebook.cells]


def printed(outputs) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_what_nodes_print_stands_under_the_cell_that_ran_the_flow(outputs):
    assert sorted(printed(outputs[1]).splitlines()) == ["hello from False", "timed"]
    assert "from the earlier cell" not in printed(outputs[4])


def test_the_authors_error_comes_first_and_ours_says_the_rest(outputs):
    (error,) = [output for output in outputs[1] if output.output_type == "error"]

    assert error.ename == "NodeFailed"
    assert error.evalue == "node 'late' failed: ValueError: bad day"
    trace = "\n".join(error.traceback)
    assert trace.index("ValueError") < trace.index("NodeFailed")
    assert "runner.py" not in trace


def test_a_flow_as_the_last_line_is_a_picture_beside_the_live_graph(outputs):
    shown, _, live = outputs[2]

    assert live.data["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert "image/svg+xml" not in live.data, "JupyterLab would never show it: see flow/view.py"
    assert shown.data["image/svg+xml"].startswith("<svg ")
    assert shown.data["text/plain"] == "Flow('f'): 3 nodes"


def test_in_colab_the_live_graph_says_where_its_widgets_are_from(outputs):
    _, _, live = outputs[5]

    told = live.metadata["application/vnd.jupyter.widget-view+json"]["colab"]
    assert told == {"custom_widget_manager": {"url": "https://example.org/manager.js"}}
