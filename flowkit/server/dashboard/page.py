"""One browser's page: a component that draws itself in the browser, told only what has changed.

Texts travel as JSON and become text nodes: no name, error or log line is ever read as markup.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import panel as pn
import param
from panel.custom import JSComponent

from flowkit import scene
from flowkit.changes import Comparison
from flowkit.events import kernel, usage
from flowkit.model import NodeRun, Run, State, Wait
from flowkit.server.dashboard.reading import MOST, Asked, Followed, Overview, Reader, Seen, View

#: Nodes of one run that are shown; of more, those that failed or are running come first.
NODES = 300
#: Characters of an error or of a parameter's value; the notebook and the command line have the rest.
SHOWN = 2_000
#: Parameters of one run that are shown.
PARAMETERS = 100
#: Changes since the last success, and lines of each, that are shown.
CHANGES, CHANGED = 60, 60

_FOLDER = Path(__file__).parent
_STATES = [state for state in State if state is not State.SKIPPED]
_FIRST = {State.FAILED: 0, State.RUNNING: 1}

_DOCUMENT = """
{% extends base %}
{% block postamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>body { background: light-dark(#f7f7f5, #131517) }</style>
{% endblock %}
{% block contents %}{{ embed(roots.page) }}{% endblock %}
"""


def page(reader: Reader, *, store: str) -> Any:
    """A new browser's page. *store*: which database it shows, in words."""
    viewer = Viewer(reader, store)
    pn.state.on_session_destroyed(lambda _: reader.remove(viewer))
    template = pn.Template(_DOCUMENT)
    template.add_panel("page", viewer.component)
    return template


class RunsPage(JSComponent):
    """The part in the browser: ``page.js`` asks, and draws the answers."""

    store = param.String()

    # One module in three files.
    _esm = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "run.js", "parts.js"))
    # Its text, not its path: it needs no route of its own then.
    _stylesheets = [(_FOLDER / "page.css").read_text(encoding="utf-8")]  # noqa: RUF012  # Panel's own attribute

    def __init__(self, ask: Callable[[Any], None], **params: Any) -> None:
        super().__init__(**params)
        self._ask = ask

    def _handle_msg(self, data: Any) -> None:
        self._ask(data)

    def tell(self, message: dict[str, Any]) -> None:
        """From any thread."""
        self._send_msg(json.dumps(message))


class Viewer:
    """What one browser asked for, and what it has been told."""

    def __init__(self, reader: Reader, store: str) -> None:
        self.asked = Asked()
        self.component = RunsPage(self._ask, store=store)
        self._reader = reader
        self._answered = Asked()
        self._looking = False
        self._told: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}
        self._logged: tuple[str, int, int] = ("", 0, 0)  #: run, attempt, last piece of output

    def _ask(self, data: Any) -> None:
        """The browser's question: ``{turns, states, deployment, before, run, graph, changes}``."""
        page, run = data["turns"]
        self.asked = Asked(
            view=View(
                states=tuple(state for state in _STATES if state.value in data["states"]),
                deployment=_text(data["deployment"]),
                before=_text(data["before"]),
            ),
            run=_text(data["run"]),
            graph=bool(data["graph"]),
            changes=bool(data["changes"]),
            turns=(int(page), int(run)),
        )
        if self._looking:
            self._reader.wake()
        else:  # only now: a page that is fetched and never drawn costs nothing
            self._looking = True
            self._reader.add(self)

    def show(self, seen: Seen) -> None:
        # The browser drops news of what it has turned away from, so what it turns to is told in full.
        if seen.asked.turns[0] != self._answered.turns[0]:
            self._rows = {}
            self._told.pop("runs", None)
        if seen.asked.turns[1] != self._answered.turns[1]:
            self._logged = ("", 0, 0)
            for part in ("run", "nodes", "usage", "graph", "standing", "changes"):
                self._told.pop(part, None)
        self._answered = seen.asked
        message = {"turns": seen.asked.turns, "now": seen.at.timestamp(), "problem": seen.problem}
        if seen.overview is not None and seen.runs is not None:
            message |= self._news("overview", _overview(seen.overview))
            message |= self._news("runs", {"order": [run.id for run in seen.runs], "more": seen.more})
            message |= self._rows_changed(seen.runs)
            message["missing"] = seen.missing
            if seen.followed is not None:
                message |= self._news("run", _details(seen.followed.run, seen.followed.wait))
                message |= self._news("nodes", _nodes(seen.followed.nodes))
                message |= self._news("usage", _usage(seen.followed))
                if seen.asked.graph:
                    message |= self._graph(seen.followed)
                if seen.changes is not None:
                    message |= self._news("changes", _changes(seen.changes))
                message |= self._output(seen.followed)
        self.component.tell(message)

    def _news(self, part: str, value: Any) -> dict[str, Any]:
        """The part, unless the browser has it already."""
        if self._told.get(part) == value:
            return {}
        self._told[part] = value
        return {part: value}

    def _rows_changed(self, runs: list[Run]) -> dict[str, Any]:
        rows = {run.id: _row(run) for run in runs}
        changed = [row for id, row in rows.items() if self._rows.get(id) != row]
        self._rows = rows
        return {"rows": changed} if changed else {}

    def _graph(self, followed: Followed) -> dict[str, Any]:
        """The run's graph, once, and how its nodes stand, as the graph's front-end takes them."""
        found = scene.declared(followed.steps)
        if found is None:
            return self._news("graph", False)
        graph, nodes = found
        times = scene.times(nodes, followed.nodes)
        began = min((told["started"] for told in times.values() if "started" in told), default=None)
        ended = max((told["finished"] for told in times.values() if "finished" in told), default=None)
        state = {"started": began, "finished": ended, "state": followed.run.state.value}
        standing = {
            "status": list(scene.status(nodes, followed.nodes)),
            "times": times,
            "run": {key: value for key, value in state.items() if value is not None},
        }
        return self._news("graph", graph) | self._news("standing", standing)

    def _output(self, followed: Followed) -> dict[str, Any]:
        """New pieces of the run's log; ``anew`` if the browser is to forget what it has."""
        run, attempt, last = self._logged
        anew = (run, attempt) != (followed.run.id, followed.run.attempt)
        if anew:
            last = 0
        pieces = [[piece.stream, piece.text] for piece in followed.log if piece.place > last]
        self._logged = (followed.run.id, followed.run.attempt, followed.outputs)
        if not pieces and not anew:
            return {}
        # The first that are left are not the first that were: say that there was more.
        cut = bool(followed.log) and followed.log[0].place > last + 1
        return {"log": {"anew": anew, "cut": cut, "pieces": pieces}}


def _overview(overview: Overview) -> dict[str, Any]:
    served = {queue for worker in overview.workers for queue in worker.queues}
    return {
        "counts": {state.value: overview.counts.get(state, 0) for state in _STATES},
        "most": MOST,
        "queues": [[queue, overview.depth.get(queue, 0)] for queue in sorted(overview.depth.keys() | served)],
        "unserved": [[queue, waiting] for queue, waiting in overview.depth.items() if waiting and queue not in served],
        "closed": [[limit.name, _seconds(limit.closed), _cut(limit.error or "")] for limit in overview.closed],
        "workers": len(overview.workers),
        "deployments": overview.deployments,
    }


def _row(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "label": run.label,
        "state": run.state.value,
        "cancelling": run.cancelling,
        "attempt": run.attempt,
        "scheduled": _seconds(run.scheduled_for),
        "created": _seconds(run.created),
        "started": _seconds(run.started),
        "finished": _seconds(run.finished),
        "error": (run.error or "").partition("\n")[0][:300],
    }


def _details(run: Run, wait: Wait | None) -> dict[str, Any]:
    parameters = [[name, _cut(repr(value))] for name, value in list(run.parameters.items())[:PARAMETERS]]
    return _row(run) | {
        "version": run.version,
        "notebook": run.notebook,
        "cause": run.cause and run.cause.value,
        "error": _cut(run.error or ""),
        "attempts": run.last_attempt,
        "queue": run.policy.queue,
        "priority": run.policy.priority,
        "worker": run.worker,
        "available": _seconds(run.available),
        "wait": wait and [wait.reason, _seconds(wait.until)],
        "output": run.output,
        "parameters": parameters,
        "unshown": len(run.parameters) - len(parameters),
    }


def _usage(followed: Followed) -> dict[str, Any]:
    """``where`` the kernel runs, and the points of its line, ``[at, seconds, cores, bytes]`` each."""
    used, where = usage(followed.steps), kernel(followed.steps)
    return {
        "where": where and f"{where['name']}, Python {where['python']}, {where['host']}",
        "isolation": where and where["isolation"],
        "points": [list(point) for point in used.points] if used else [],
        "peak": used.peak_memory if used else 0,
        "mean": used.mean_cpu if used else 0.0,
        "limit": followed.run.policy.memory,
    }


def _nodes(nodes: list[NodeRun]) -> dict[str, Any]:
    shown = nodes
    if len(nodes) > NODES:
        first = sorted(range(len(nodes)), key=lambda place: (_FIRST.get(nodes[place].state, 2), place))[:NODES]
        shown = [nodes[place] for place in sorted(first)]
    flows = {node.flow for node in nodes}
    return {
        "all": len(nodes),
        "done": sum(node.state.final for node in nodes),
        "shown": [
            {
                # Two flows of one notebook may have nodes of the same name.
                "name": f"{node.flow}: {node.name}" if len(flows) > 1 else node.name,
                "state": node.state.value,
                "started": _seconds(node.started),
                "finished": _seconds(node.finished),
                "error": _cut(node.error or ""),
                "note": f"reused from {node.reused}" if node.reused else "",
                "waits": [node.limit, _seconds(node.until)] if node.limit else None,
            }
            for node in shown
        ],
    }


def _changes(found: Comparison | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"problem": found}
    told = [change.to_json() | {"lines": list(change.lines[:CHANGED])} for change in found.changes[:CHANGES]]
    for change in told:
        if change["kind"] in ("cell", "output"):  # their lines say it
            change |= {"before": change["before"] is not None, "after": change["after"] is not None}
    return {
        "since": _row(found.before),
        "changes": told,
        "unshown": len(found.changes) - len(told),
        "same": list(found.same),
        "unknown": list(found.unknown),
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at else None


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"
