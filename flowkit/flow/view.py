"""A flow's graph as a widget of the notebook: drawn in the browser, kept up to date while the flow runs.

One widget a flow, however often it is shown. It is told through traits alone, ten times a second at most, by one thread
that only reads the outcome. What the browser asks comes in a queue (``outbox``) that it keeps until it is acknowledged:
ipywidgets merges what is sent while the kernel is busy, and a trait with the last event alone would lose the others.
Its callbacks come in whichever thread, so they set flags, or answer from a thread of their own.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowkit.errors import FlowCancelled, FlowkitError, NodeFailed, explain
from flowkit.flow import detail, editor, sheet, widget
from flowkit.flow.graph import Graph
from flowkit.flow.outcome import Outcome

if TYPE_CHECKING:
    from flowkit.flow.flow import Flow

#: Seconds between two looks at a run.
EVERY = 0.1
#: Nodes up to which the times of all are told; of more, only of those the browser says it shows.
ALL = 200

#: flow's name -> the view whose editor has written its code last: it shows the flow that this code makes.
_written: dict[str, View] = {}


class View:
    """Ties a flow to its widget."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._widget = widget.make("build")
        self._widget.observe(self._heard, "outbox")
        if kernel := widget.kernel():
            kernel.shell.events.register("post_run_cell", self._after_cell)
        self._widget.observe(self._looked, "visible")
        self._notebook = widget.notebook()
        self._lock = threading.Lock()  # the run's thread and the one that displays both tell
        self._shown: Graph | None = None
        self._stale: tuple[Graph, Outcome, list[int]] | None = None
        self._cancel: Callable[[], None] = lambda: None
        self._again = threading.Lock()  # held while a run that the browser asked for is under way
        self._cell = contextvars.copy_context()  # what such a run prints stands where the graph does

    def display(self) -> None:
        """Below the cell: the picture, for where nothing is alive, and the live graph."""
        flow = self._flow
        self._cell = contextvars.copy_context()
        self._tell(flow.graph, flow.outcome)
        widget.show(self._widget, flow.svg(), repr(flow))

    @staticmethod
    def of_code(flow: Flow) -> View | None:
        """The view of another flow, now this one's, in whose editor the code that makes it was written."""
        view = _written.pop(flow.name, None)
        if view is not None:
            view._flow._view = None
            view._flow = flow
        return view

    def follow(self, graph: Graph, outcome: Outcome, cancel: Callable[[], None]) -> Callable[[], None]:
        """Tell of this run from now on; call what is returned at its end, of which the thread tells."""
        self._cancel = cancel
        done = threading.Event()

        def work() -> None:
            account = sheet.Account(graph, outcome)
            while not done.wait(EVERY):
                self._tell(graph, outcome, account)
            self._tell(graph, outcome, account)
            widget.show_again(self._widget, self._flow.svg(), repr(self._flow))

        # In a copy of the context: what it sends belongs to the cell that runs the flow.
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(work,), daemon=True, name=f"graph of {self._flow.name}")
        thread.start()

        def end() -> None:
            done.set()
            if len(graph.nodes) <= ALL:  # a moment: what executes a notebook hears of a cell until it ends
                thread.join(1.0)

        return end

    def _tell(self, graph: Graph, outcome: Outcome | None, account: sheet.Account | None = None) -> None:
        shown = self._widget
        if outcome is not None:
            self._out_of_date(graph, outcome)  # this may take long, and nobody has to wait for the lock meanwhile
        with self._lock:
            if graph is not self._shown:
                shown.graph = sheet.drawn(self._flow.name, graph)
                self._shown = graph
            visible = None if len(graph.nodes) <= ALL else list(shown.visible)
            if outcome is None:
                shown.status, shown.times, run = bytes(len(graph.nodes)), {}, sheet.at_rest()
            else:
                account = account or sheet.Account(graph, outcome)
                # Read first and told last: whoever hears of the end knows the rest.
                run = account.run() | {"stale": self._out_of_date(graph, outcome)}
                shown.status, shown.times = account.status(), account.times(visible)
            run["notebook"] = self._notebook
            if {**run, "now": 0} != {**shown.run, "now": 0}:
                shown.run = run

    def _out_of_date(self, graph: Graph, outcome: Outcome) -> list[int]:
        """The places of what ``flow.rerun()`` would run; none while the flow runs."""
        if outcome.finished is None:
            return []
        if self._stale is None or self._stale[0] is not graph or self._stale[1] is not outcome:
            stale = set(self._flow.stale())
            places = [place for place, one in enumerate(graph.nodes) if one.node.name in stale]
            self._stale = graph, outcome, places
        return self._stale[2]

    def _after_cell(self, *_: Any) -> None:
        """A cell may have changed nodes, what they name, or what there is to build of."""
        threading.Thread(target=self._look_again, daemon=True).start()  # the cell that ended need not wait for it

    def _look_again(self) -> None:
        flow, self._stale = self._flow, None
        if flow.outcome is None or flow.outcome.finished is not None:
            self._tell(flow.graph, flow.outcome)
        if self._widget.offered:
            self._answer({"n": 0, "kind": "offer"})

    def _heard(self, change: Any) -> None:
        asked = [question for question in change["new"] if question["n"] > self._widget.ack]
        for question in asked:
            if question["kind"] == "cancel":
                self._cancel()
            else:
                threading.Thread(target=self._answer, args=(question,), daemon=True).start()
        if asked:
            self._widget.ack = max(question["n"] for question in asked)

    def _looked(self, change: Any) -> None:
        if self._shown is not None:
            self._tell(self._shown, self._flow.outcome)

    def _answer(self, question: dict[str, Any]) -> None:
        shown, flow, kind = self._widget, self._flow, question["kind"]
        try:
            if kind == "open":
                graph = self._shown
                if graph is not None and question["node"] in graph.names():
                    shown.detail = detail.detail(graph, flow.outcome, str(question["node"]))
            elif kind == "lines":
                shown.lines = {"node": question["node"], "lines": self._lines(str(question["node"]))}
            elif kind == "rerun":
                self._cell.copy().run(self._rerun, question.get("node"))
            elif kind == "offer":
                shown.offered = editor.offered(flow)
            elif kind == "judge":
                shown.judged = {"n": question["n"], "problems": editor.judged(flow, question["draft"])}
            elif kind == "write":
                answer = editor.written(flow, question["draft"])
                if "code" in answer:
                    _written[flow.name] = self
                shown.written = {"n": question["n"], **answer}
        except Exception as error:  # nobody would read a thread's traceback
            text = str(error) if isinstance(error, FlowkitError) else explain(error)
            shown.notice = {"n": question["n"], "text": text}

    def _lines(self, name: str) -> list[dict[str, Any]]:
        outcome = self._flow.outcome
        return outcome.lines.of(name) if outcome is not None and outcome.lines is not None else []

    def _rerun(self, name: str | None) -> None:
        if not self._again.acquire(blocking=False):
            return
        try:
            self._flow.rerun(*([name] if name else []))
        except (NodeFailed, FlowCancelled):
            pass  # the graph tells
        finally:
            self._again.release()
