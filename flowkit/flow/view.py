"""A flow's graph as a widget of the notebook: drawn in the browser, kept up to date while the flow runs.

One widget a flow, however often it is shown. It is told through traits alone, ten times a second at most, by one thread
that only reads the outcome. What the browser asks comes in a queue (``outbox``) that it keeps until it is acknowledged:
ipywidgets merges what is sent while the kernel is busy, and a trait with the last event alone would lose the others.
Its callbacks come in whichever thread, so they set flags, or answer from a thread of their own.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowkit.flow import detail, sheet
from flowkit.flow.current import current_run
from flowkit.flow.graph import Graph
from flowkit.flow.outcome import Outcome
from flowkit.scene import BUNDLE

if TYPE_CHECKING:
    from flowkit.flow.flow import Flow

#: Seconds between two looks at a run.
EVERY = 0.1
#: Nodes up to which the times of all are told; of more, only of those the browser says it shows.
ALL = 200

_WIDGET = "application/vnd.jupyter.widget-view+json"

# JupyterLab shows a widget whose kernel is gone as an error, and prefers it to any picture in the same output. So the
# picture is an output of its own, and this one, between the two, hides whichever of them is of no use.
_EITHER = """<style>
.jp-OutputArea-child:has(.flowkit-either) { display: none }
.jp-OutputArea-child:has(.flowkit-either) + .jp-OutputArea-child:not(:has(.flowkit)) { display: none }
.jp-OutputArea-child:has(+ * .flowkit-either):has(+ * + .jp-OutputArea-child .flowkit) { display: none }
</style><span class="flowkit-either"></span>"""


class View:
    """Ties a flow to its widget."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._widget = _make()
        self._widget.observe(self._heard, "outbox")
        self._widget.observe(self._looked, "visible")
        self._lock = threading.Lock()  # the run's thread and the one that displays both tell
        self._shown: Graph | None = None
        self._cancel: Callable[[], None] = lambda: None
        self._picture = f"flowkit-{self._widget.model_id}"

    @staticmethod
    def possible() -> bool:
        """Whether a kernel of a person's notebook shows this; a worker's run has nobody to look."""
        return _kernel() is not None and BUNDLE.exists() and current_run() is None

    def display(self) -> None:
        """Below the cell: the picture, for where nothing is alive, and the live graph."""
        flow = self._flow
        self._tell(flow.graph, flow.outcome)
        plain = {"text/plain": repr(flow)}
        _publish({"image/svg+xml": flow.svg(), **plain}, self._picture)
        _publish({"text/html": _EITHER, "text/plain": ""})
        view = {"version_major": 2, "version_minor": 0, "model_id": self._widget.model_id}
        _publish({_WIDGET: view, **plain})

    def follow(self, graph: Graph, outcome: Outcome, cancel: Callable[[], None]) -> Callable[[], None]:
        """Tell of this run from now on; call what is returned at its end, of which the thread then tells by itself."""
        self._cancel = cancel
        done = threading.Event()

        def work() -> None:
            account = sheet.Account(graph, outcome)
            while not done.wait(EVERY):
                self._tell(graph, outcome, account)
            self._tell(graph, outcome, account)
            _publish({"image/svg+xml": self._flow.svg(), "text/plain": repr(self._flow)}, self._picture, again=True)

        # In a copy of the context: what it sends belongs to the cell that runs the flow.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(work,), daemon=True, name=f"graph of {self._flow.name}").start()
        return done.set

    def _tell(self, graph: Graph, outcome: Outcome | None, account: sheet.Account | None = None) -> None:
        widget = self._widget
        with self._lock:
            if graph is not self._shown:
                widget.graph = sheet.drawn(self._flow.name, graph)
                self._shown = graph
            visible = None if len(graph.nodes) <= ALL else list(widget.visible)
            if outcome is None:
                widget.status, widget.times, run = bytes(len(graph.nodes)), {}, sheet.at_rest()
            else:
                account = account or sheet.Account(graph, outcome)
                run = account.run()  # read first and told last: whoever hears of the end knows the rest
                widget.status, widget.times = account.status(), account.times(visible)
            if {**run, "now": 0} != {**widget.run, "now": 0}:
                widget.run = run

    def _heard(self, change: Any) -> None:
        asked = [question for question in change["new"] if question["n"] > self._widget.ack]
        for question in asked:
            if question["kind"] == "cancel":
                self._cancel()
            elif question["kind"] == "open":
                threading.Thread(target=self._answer, args=(str(question["node"]),), daemon=True).start()
        if asked:
            self._widget.ack = max(question["n"] for question in asked)

    def _looked(self, change: Any) -> None:
        if self._shown is not None:
            self._tell(self._shown, self._flow.outcome)

    def _answer(self, name: str) -> None:
        graph = self._shown
        if graph is not None and name in graph.names():
            self._widget.detail = detail.detail(graph, self._flow.outcome, name)


def _make() -> Any:
    import anywidget
    from traitlets import Bytes, Dict, Int, List, Unicode

    class FlowGraph(anywidget.AnyWidget):
        """The traits are those of widgets/src/model.ts."""

        _esm = BUNDLE
        graph = Dict().tag(sync=True)
        status = Bytes().tag(sync=True)
        times = Dict().tag(sync=True)
        run = Dict().tag(sync=True)
        detail = Dict().tag(sync=True)
        visible: Any = List().tag(sync=True)
        outbox: Any = List().tag(sync=True)
        ack = Int(0).tag(sync=True)
        mode = Unicode("view").tag(sync=True)

    widget = FlowGraph()
    answer_at_once(widget.comm)
    return widget


def answer_at_once(comm: Any) -> None:
    """Let the browser's messages be handled in the subshell they come to, also while a cell runs.

    ipykernel 7.4.0 hands them to the shell that last sent on this comm: for a widget that a cell made or a run
    updates, the one that is busy with the cell.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


def _kernel() -> Any:
    """The kernel this process is, if it is one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None)


def _publish(data: dict[str, Any], id: str | None = None, *, again: bool = False) -> None:
    from IPython.display import publish_display_data

    publish_display_data(data, transient={"display_id": id} if id else {}, update=again)
