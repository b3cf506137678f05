"""A notebook as a node, seen from the kernel: what it asks for, how it waits, and what it makes of what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import flowkit as fk
from flowkit.artifacts import Artifacts
from flowkit.errors import ChildFailed, GraphError, NodeFailed, NotebookError, UsageError
from flowkit.events import LOG, Event, fold
from flowkit.family import CHILDREN
from flowkit.flow import child, formats
from flowkit.flow.current import FILE
from flowkit.model import CurrentRun, State
from flowkit.shelf import KEEP, Shelf, handed_path
from tests.flow.test_checkpoint import Ran, ran
from tests.notebooks_made import write

__all__ = ["ran"]  # the fixture

CELL = "fk.result('rows', day * 10)"
PARAMETERS = "day: int\nleast: int = 15"


class Attempts:
    """Of one run, each in a kernel of its own as far as it can tell; children end between two of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.notebook = write(folder / "clean.ipynb", CELL, parameters=PARAMETERS)
        self.known: dict[str, dict[str, Any]] = {}
        self._monkeypatch = monkeypatch
        self._count = 0

    def begin(self) -> None:
        self._count += 1
        self.work = self.folder / f"r1.{self._count}"
        self.work.mkdir()
        current = CurrentRun(id="r1", key="r1", attempt=self._count, deployment=None, notebook="n.ipynb")
        (self.work / FILE).write_text(current.to_json())
        artifacts = str(self.folder / "artifacts")
        (self.work / KEEP).write_text(json.dumps({"url": artifacts, "limit": 10**9}))
        notebooks = {"clean.ipynb": {"file": str(self.notebook), "parameters": {}}, "gone.ipynb": {"error": "no such"}}
        told = {"artifacts": artifacts, "notebooks": notebooks, "known": self.known}
        (self.work / CHILDREN).write_text(json.dumps(told))
        self._monkeypatch.setenv("FLOWKIT_RUN_FOLDER", str(self.work))
        self._monkeypatch.setattr(child, "_times", {})
        self._monkeypatch.setattr("flowkit.flow.checkpoint._times", {})

    @property
    def events(self) -> list[Event]:
        return [Event.from_json(line) for line in (self.work / LOG).read_text().splitlines()]

    @property
    def asked(self) -> dict[str, dict[str, Any]]:
        """node -> what it has asked for in this attempt."""
        asks = [event for event in self.events if event.kind == "node" and event.data and "ask" in event.data]
        return {event.name: event.data["ask"] for event in asks}

    def end(self, node: str, error: str | None = None, **handed: Any) -> None:
        """The child that this node has asked for ends."""
        ask = next(e for e in self.events if e.kind == "node" and e.name == node and e.data and "ask" in e.data)
        state = State.SUCCEEDED if error is None else State.FAILED
        parameters = ask.data["ask"]["parameters"]
        self.known[ask.data["child"]] = {"state": state, "attempt": 1, "error": error, "parameters": parameters}
        shelf = Shelf(Artifacts(str(self.folder / "artifacts")), handed_path(ask.data["child"], 1))
        for name, value in handed.items():

            def put(file: Any, name: str = name, value: Any = value) -> dict[str, Any]:
                written = formats.write(value, file)
                return {"name": name, "format": written.name, "suffix": written.suffix}

            shelf.keep(name, put)


@pytest.fixture
def attempts(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(tmp_path, monkeypatch)


def authored(ran: Ran, days: Callable[[], list[int]] = lambda: [1, 2], **options: Any) -> fk.Flow:
    flow = fk.Flow("year")

    @flow.node(checkpoint=False)
    def listed() -> list[int]:
        return days()

    options = {"map": "day", "outputs": "rows"} | options
    flow.add(fk.notebook("clean.ipynb"), "clean", day="listed", **options)

    @flow.node
    def total(rows: list[int]) -> int:
        ran.append("total")
        return sum(rows)

    @flow.node
    def alone() -> int:
        ran.append("alone")
        return 1

    return flow


@pytest.mark.parametrize("how", [{}, {"threads": 1}, {"executor": True}])
def test_a_flow_asks_runs_the_rest_and_waits_and_the_next_attempt_gathers(
    attempts: Attempts, ran: Ran, how: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        given = {"executor": pool} if "executor" in how else how
        attempts.begin()
        with pytest.raises(child.WaitsForChildren):
            authored(ran, retries=2, delay=3.0, timeout=60).run(**given)
        assert list(ran) == ["alone"]
        policy = {"retries": 2, "backoff": 3.0, "timeout": 60}
        assert attempts.asked == {
            f"clean[{item}]": {"notebook": "clean.ipynb", "parameters": {"day": item + 1}} | policy for item in (0, 1)
        }
        states = {node.name: node.state for node in fold(attempts.events)}
        assert (states["clean"], states["clean[0]"], states["total"]) == (State.PENDING,) * 3

        attempts.end("clean[1]", rows=20)
        attempts.end("clean[0]", rows=10)
        attempts.begin()
        outcome = authored(ran).run(**given)

    assert outcome["total"] == 30
    assert list(ran) == ["alone", "total"], "what was kept was computed again"
    nodes = {node.name: node for node in fold(attempts.events)}
    assert nodes["clean[0]"].child in attempts.known
    assert attempts.asked == {}


def test_a_child_that_has_not_ended_is_waited_for_and_not_asked_for_again(attempts: Attempts, ran: Ran) -> None:
    for _ in range(2):
        attempts.begin()
        with pytest.raises(child.WaitsForChildren):
            authored(ran).run()
        asked = attempts.asked
        open = {"state": "running", "attempt": 1, "error": None}
        for event in attempts.events:
            if event.kind == "node" and event.data and "ask" in event.data:
                attempts.known[event.data["child"]] = open | {"parameters": event.data["ask"]["parameters"]}

    assert asked == {}


def test_the_failure_of_a_child_is_its_nodes(attempts: Attempts, ran: Ran) -> None:
    attempts.begin()
    with pytest.raises(child.WaitsForChildren):
        authored(ran).run()
    attempts.end("clean[1]", error="ValueError: bad day")
    attempts.end("clean[0]", rows=10)
    attempts.begin()

    with pytest.raises(NodeFailed, match=r"clean\[1\] failed: ChildFailed: the notebook 'clean.ipynb', run ") as caught:
        authored(ran, retries=3, delay=60.0).run()  # which are the child's own

    assert isinstance(caught.value.__cause__, ChildFailed)
    assert str(caught.value.__cause__).endswith("failed: ValueError: bad day")
    failed = {node.name: node.child for node in fold(attempts.events) if node.state is State.FAILED}
    assert failed["clean[1]"] in attempts.known


def test_other_parameters_than_before_are_refused(attempts: Attempts, ran: Ran) -> None:
    attempts.begin()
    with pytest.raises(child.WaitsForChildren):
        authored(ran).run()
    for node in ("clean[0]", "clean[1]"):
        attempts.end(node, rows=10)
    attempts.begin()

    with pytest.raises(NodeFailed, match="it was run with day=2 and now has day=3; what its parameters come from must"):
        authored(ran, days=lambda: [1, 3]).run()


def test_a_flow_that_runs_twice_has_children_of_its_own_each_time(attempts: Attempts) -> None:
    def both() -> list[Any]:
        flow = fk.Flow("days")
        flow.add(fk.notebook("clean.ipynb"), "clean")
        return [flow.run(day=day)["clean"] for day in (1, 2)]

    for rows in (10, 20):
        attempts.begin()
        with pytest.raises(child.WaitsForChildren):
            both()
        attempts.end("clean", rows=rows)
    attempts.begin()

    assert both() == [{"rows": 10}, {"rows": 20}]
    assert len(attempts.known) == 2


def test_what_does_not_fit_a_child_is_refused_before_anything_runs(attempts: Attempts) -> None:
    for begin in (lambda: None, attempts.begin):
        begin()
        flow = fk.Flow("x")
        path = "clean.ipynb" if begin == attempts.begin else str(attempts.notebook)
        clean = fk.notebook(path)
        with pytest.raises(GraphError, match="has no parameter 'dya'; it takes day, least; did you mean 'day'"):
            flow.add(clean, dya="day")
        with pytest.raises(GraphError, match="is a notebook and has limit="):
            flow.add(clean, limit="crm")
        flow.add(clean)
        assert list(flow.graph.parameters) == ["day"]
        with pytest.raises(NodeFailed, match="parameter 'day' takes int, not 'monday'"):
            flow.run(day="monday")
    with pytest.raises(NotebookError, match="no such"):
        fk.notebook("gone.ipynb")
    with pytest.raises(NotebookError, match=r"submitted without 'other.ipynb'; write fk.notebook\('other.ipynb'\) in"):
        fk.notebook("other.ipynb")
    with pytest.raises(UsageError, match="called outside of a flow"):
        fk.notebook("clean.ipynb")(day=1)


def test_a_result_is_handed_over_by_a_cell_and_not_by_a_node(attempts: Attempts) -> None:
    fk.result("rows", 1)  # in the author's notebook it does nothing
    attempts.begin()
    fk.result("rows", 1)
    fk.result("rows", [2, 3])
    flow = fk.Flow("x")
    flow.add(lambda: fk.result("late", 1), "late")

    with pytest.raises(NodeFailed, match=r"fk.result\('late', …\) is called by a node"):
        flow.run()
    with pytest.raises(UsageError, match="a result cannot be named 'two words'"):
        fk.result("two words", 1)
    assert child._handed(Artifacts(str(attempts.folder / "artifacts")), "r1", 1) == {"rows": [2, 3]}


def test_an_author_runs_a_child_and_its_children_on_their_own_machine(tmp_path: Path, monkeypatch: Any) -> None:
    write(tmp_path / "leaf.ipynb", "import flowkit as fk\nfk.result('square', item * item)", parameters="item: int = 0")
    cells = """
import flowkit as fk
flow = fk.Flow("below")
flow.add(fk.notebook("leaf.ipynb"), "leaf", item="item", outputs="square")
fk.result("square", flow.run(item=item)["square"])
"""
    write(tmp_path / "middle.ipynb", cells, parameters="item: int = 0")
    write(tmp_path / "wrong.ipynb", "1 / 0")
    monkeypatch.chdir(tmp_path)
    flow = fk.Flow("above")
    flow.add(fk.notebook("middle.ipynb"), "middle", item=7)
    flow.add(fk.notebook("wrong.ipynb"), "wrong")

    failure = r"'wrong' failed: ChildFailed: the notebook 'wrong.ipynb' failed: ZeroDivisionError.*; as it ran: "
    with pytest.raises(NodeFailed, match=failure):
        flow.run()

    assert flow.outcome is not None
    assert flow.outcome["middle"] == {"square": 49}
    flow = fk.Flow("by name")
    flow.add(fk.notebook(deployment="clean"), "clean", day=1)
    with pytest.raises(NodeFailed, match="the deployment 'clean' is run by workers alone; submit this notebook"):
        flow.run()
