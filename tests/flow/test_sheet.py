"""What the graph's front-end is told of a flow and its run, and what it can ask."""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import pytest

import flowkit as fk
from flowkit.errors import FlowCancelled
from flowkit.flow import preview as previews
from flowkit.flow import sheet
from flowkit.flow.detail import detail
from flowkit.flow.preview import preview
from flowkit.flow.progress import Progress
from flowkit.flow.widget import answer_at_once
from flowkit.model import State
from flowkit.scene import CODES, WAITING


@pytest.fixture
def flow() -> fk.Flow:
    flow = fk.Flow("f")

    @flow.node
    def numbers(top: int = 3) -> list[int]:
        """Counts.

        From nought."""
        return list(range(top))

    @flow.node(map="number", inputs={"number": "numbers"})
    def squares(number: int) -> int:
        if number == 13:
            raise ValueError("<b>unlucky</b>")
        return number * number

    @flow.node(outputs=("few", "many"))
    def parts(squares: list[int]) -> tuple[int, int]:
        return 1, 2

    @flow.node
    def told(many: int, few: int, style: str = "plain"): ...

    return flow


def test_the_graph_is_told_with_ports_types_and_edges_between_them(flow: fk.Flow):
    told = sheet.drawn("f", flow.graph)

    by_name = {node["name"]: node for node in told["nodes"]}
    assert by_name["numbers"] == {
        "name": "numbers",
        "ports": [{"name": "top", "kind": "parameter", "type": "int", "value": "3"}],
        "outputs": [{"name": "", "type": "list[int]"}],
        "doc": "Counts.",
    }
    assert by_name["squares"]["ports"] == [
        {"name": "number", "kind": "edge", "type": "int", "source": "numbers", "each": True}
    ]
    assert [output["name"] for output in by_name["parts"]["outputs"]] == ["", "few", "many"]
    assert told["edges"] == [[0, 0, 1, 0], [1, 0, 2, 0], [2, 2, 3, 0], [2, 1, 3, 1]]


def test_a_run_is_told_as_a_byte_a_node_with_times_items_and_the_critical_path(flow: fk.Flow):
    outcome = flow.run()
    account = sheet.Account(flow.graph, outcome)

    assert account.status() == bytes([CODES[State.SUCCEEDED]] * 4)
    assert account.times(None)["1"]["done"] == account.times(None)["1"]["items"] == 3
    assert set(account.times([0, 2])) == {"0", "2"}
    assert account.run()["critical"] == [0, 1, 2, 3]


def test_a_node_replaced_since_the_run_stands_as_if_it_had_not_run(flow: fk.Flow):
    outcome = flow.run()

    @flow.node
    def told(many: int, few: int): ...

    account = sheet.Account(flow.graph, outcome)
    assert account.status() == bytes([3, 3, 3, 0])
    assert "3" not in account.times(None)


def test_the_critical_path_leads_through_what_the_end_waited_for():
    flow = fk.Flow("f")

    @flow.node
    def quick(): ...

    @flow.node
    def slow():
        time.sleep(0.05)

    @flow.node
    def last(quick, slow): ...

    outcome = flow.run()
    assert outcome.critical_path() == ["slow", "last"]
    assert fk.Flow("empty").run().critical_path() == []


def test_a_node_that_waits_for_its_next_attempt_says_when_that_is():
    flow = fk.Flow("f")
    failed = threading.Event()

    @flow.node(retries=1, delay=1.0)
    def flaky():
        if not failed.is_set():
            failed.set()
            raise OSError("no answer")

    run = threading.Thread(target=flow.run)
    run.start()
    failed.wait(10)
    while flow.outcome is None or not flow.outcome.again:
        time.sleep(0.001)
    account = sheet.Account(flow.graph, flow.outcome)
    assert account.status() == bytes([WAITING])
    assert account.times(None)["0"]["due"] > flow.outcome.started
    run.join()

    assert account.status() == bytes([3])
    assert account.times(None)["0"]["attempt"] == 2
    assert "due" not in account.times(None)["0"]


@pytest.mark.parametrize("how", ["threads", "one thread", "executor"])
def test_after_cancel_no_node_starts_and_the_run_ends_with_a_clear_error(how: str, monkeypatch: pytest.MonkeyPatch):
    made: list[Progress] = []
    monkeypatch.setattr(Progress, "begin", lambda self, begin=Progress.begin: made.append(self) or begin(self))
    flow = fk.Flow("f")
    go = threading.Event()

    @flow.node
    def first():
        made[0].cancel()
        if how != "one thread":  # which is not waited for
            go.wait(20)
        return 1

    @flow.node
    def second(first): ...

    options = {"threads": {"threads": 3}, "one thread": {"threads": 1}, "executor": {"executor": ThreadPoolExecutor(2)}}
    with pytest.raises(FlowCancelled, match=r"cancelled on the graph; what had ended by then is in flow\.outcome"):
        flow.run(**options[how])
    go.set()

    assert flow.outcome.states["second"] is State.SKIPPED
    assert flow.outcome.reasons == {}
    assert sheet.Account(flow.graph, flow.outcome).run()["state"] in ("cancelled", "succeeded")


def test_cancel_ends_the_pause_before_a_next_attempt(monkeypatch: pytest.MonkeyPatch):
    made: list[Progress] = []
    monkeypatch.setattr(Progress, "begin", lambda self, begin=Progress.begin: made.append(self) or begin(self))
    for threads in (1, 2):
        made.clear()
        flow = fk.Flow("f")

        @flow.node(retries=1, delay=60)
        def flaky():
            threading.Timer(0.05, made[0].cancel).start()
            raise OSError("no answer")

        with pytest.raises(FlowCancelled):
            flow.run(threads=threads)
        assert flow.outcome.states["flaky"] is State.CANCELLED


def test_a_node_tells_its_code_inputs_result_and_failures(flow: fk.Flow):
    with pytest.raises(fk.NodeFailed):
        flow.run(top=14)

    of_squares = detail(flow.graph, flow.outcome, "squares")
    assert of_squares["items"] == "3" * 13 + "4"
    assert of_squares["failures"] == [{"name": "squares[13]", "error": "ValueError: <b>unlucky</b>"}]
    assert of_squares["source"].startswith("@flow.node(map=")
    assert "raise ValueError" in of_squares["traceback"]
    assert of_squares["inputs"][0]["preview"]["title"] == "list · 14 items"
    assert detail(flow.graph, flow.outcome, "parts")["error"].startswith("node 'squares' failed: squares[13] failed")
    assert detail(flow.graph, flow.outcome, "numbers")["doc"] == "Counts.\n\nFrom nought."
    assert detail(flow.graph, None, "told").keys() == {"node", "source", "where"}


def test_a_data_frame_is_previewed_as_a_table_with_types_and_nulls():
    import pandas as pd

    shown = preview(pd.DataFrame({"a": [1.5, None], "<b>": ["x", "y" * 500]}))
    assert shown["title"] == "DataFrame · 2 rows × 2 columns"
    assert shown["columns"][0] == {"name": "a", "type": "float64", "nulls": "1"}
    assert shown["rows"][0] == ["1.5", "x"]
    assert len(shown["rows"][1][1]) == 60
    assert preview(pd.Series([1, 2], name="s"))["columns"][0]["name"] == "s"
    assert preview(pd.DataFrame())["rows"] == []


def test_a_figure_is_previewed_as_a_png():
    from matplotlib.figure import Figure

    assert preview(Figure())["png"].startswith("iVBORw0KGgo")


def test_a_value_that_is_large_hangs_or_raises_is_previewed_all_the_same(monkeypatch: pytest.MonkeyPatch):
    class Bad:
        def __repr__(self):
            raise RuntimeError("no")

    class Endless:
        def __repr__(self):
            threading.Event().wait(20)
            return ""

    monkeypatch.setattr(previews, "PATIENCE", 0.2)
    assert preview(Bad())["text"] == "not shown: looking at it raised RuntimeError"
    assert preview(Endless())["text"] == "not shown: it took longer than 0.2 s to look at"
    assert len(preview("x" * 1_000_000)["text"]) < 5_000
    assert len(preview(list(range(1_000_000)))["text"]) < 5_000
    assert preview(None)["title"] == "None" or preview(None)["title"] == "NoneType"


def test_following_10_000_instant_nodes_costs_little():
    """The aim is a tenth (`make bench` measures it); the limit here is generous, for a busy machine."""
    flow = fk.Flow("f")
    for place in range(10_000):
        flow.add(_instant, f"n{place}", **({"before": f"n{place - 100}"} if place >= 100 else {"before": 0}))
    flow.run(threads=1)
    bare = min(_seconds(flow) for _ in range(3))
    flow._view = View()

    followed = min(_seconds(flow) for _ in range(3))

    assert followed < 2 * bare + 0.1


def _instant(before):
    return 1


def _seconds(flow: fk.Flow) -> float:
    began = time.perf_counter()
    flow.run(threads=1)
    return time.perf_counter() - began


class View:
    """As the widget's, less the browser."""

    def follow(self, graph, outcome, cancel):
        done = threading.Event()

        def work():
            account = sheet.Account(graph, outcome)
            while not done.wait(0.1):
                account.status(), account.times(range(100)), account.run()

        threading.Thread(target=work, daemon=True).start()
        return done.set


def test_the_override_lets_a_message_be_handled_where_it_comes_to():
    """ipykernel 7.4.0's own rule would send it to the shell that sent last, which the cell keeps busy."""
    from ipykernel.comm.comm import BaseComm

    class Comm(BaseComm):
        def __init__(self):
            self._reply_subshell_id = "busy"
            self._reply_subshell_ids = {}
            self._reply_subshell_lock = threading.Lock()

    comm = Comm()
    answer_at_once(comm)
    assert getattr(comm, "_reply_subshell_for", lambda data, default: default)({}, "free") == "free"
    answer_at_once(object())  # of another version


def test_the_picture_is_known_for_what_it_is_to_the_live_graph_beside_it(flow: fk.Flow):
    assert ElementTree.fromstring(flow.svg()).get("data-flowkit") == ""
