"""The graph's front-end as a widget of the notebook, and how it is put below a cell."""

from __future__ import annotations

import sys
from typing import Any

from flowkit.config import session_notebook
from flowkit.flow.current import current_run
from flowkit.scene import BUNDLE

_WIDGET = "application/vnd.jupyter.widget-view+json"

# JupyterLab shows a widget whose kernel is gone as an error, and prefers it to any picture in the same output. So the
# picture is an output of its own, and this one, between the two, hides whichever of them is of no use.
_EITHER = """<style>
.jp-OutputArea-child:has(.flowkit-either) { display: none }
.jp-OutputArea-child:has(.flowkit-either) + .jp-OutputArea-child:not(:has(.flowkit)) { display: none }
.jp-OutputArea-child:has(+ * .flowkit-either):has(+ * + .jp-OutputArea-child .flowkit) { display: none }
</style><span class="flowkit-either"></span>"""


def possible() -> bool:
    """Whether a kernel of a person's notebook shows a widget; a worker's run has nobody to look."""
    return kernel() is not None and BUNDLE.exists() and current_run() is None


def show(widget: Any, svg: str, text: str) -> None:
    """Below the cell: the picture, for where nothing is alive, and the widget."""
    plain = {"text/plain": text}
    _publish({"image/svg+xml": svg, **plain}, _picture(widget))
    _publish({"text/html": _EITHER, "text/plain": ""})
    data, metadata = widget._repr_mimebundle_()  # in Colab the metadata says where its widgets are from
    _publish({_WIDGET: data[_WIDGET], **plain}, metadata=metadata)


def show_again(widget: Any, svg: str, text: str) -> None:
    """The picture as it is now, wherever it stands."""
    _publish({"image/svg+xml": svg, "text/plain": text}, _picture(widget), again=True)


def _picture(widget: Any) -> str:
    return f"flowkit-{widget.model_id}"


def make(mode: str) -> Any:
    """The widget. In the mode ``build`` its flow can be edited and run again; else it is looked at."""
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
        lines = Dict().tag(sync=True)
        visible: Any = List().tag(sync=True)
        outbox: Any = List().tag(sync=True)
        ack = Int(0).tag(sync=True)
        mode = Unicode("view").tag(sync=True)
        notice = Dict().tag(sync=True)
        offered = Dict().tag(sync=True)
        judged = Dict().tag(sync=True)
        written = Dict().tag(sync=True)
        story = Dict().tag(sync=True)
        draft = Dict().tag(sync=True)  # the browser's own: kept here for the next page

    widget = FlowGraph(mode=mode)
    answer_at_once(widget.comm)
    return widget


def answer_at_once(comm: Any) -> None:
    """Let the browser's messages be handled in the subshell they come to, also while a cell runs.

    ipykernel 7.4.0 hands them to the shell that last sent on this comm: for a widget that a cell made or a run
    updates, the one that is busy with the cell.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


def kernel() -> Any:
    """The kernel this process is, if it is one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None)


def notebook() -> str:
    """Where this kernel's notebook is; empty if nothing says so."""
    one = kernel()
    named = one.shell.user_ns.get("__vsc_ipynb_file__") if one else None  # VS Code's, which has no session
    return str(named or session_notebook() or "")


def _publish(
    data: dict[str, Any], id: str | None = None, *, again: bool = False, metadata: dict[str, Any] | None = None
) -> None:
    from IPython.display import publish_display_data

    publish_display_data(data, metadata, transient={"display_id": id} if id else {}, update=again)
