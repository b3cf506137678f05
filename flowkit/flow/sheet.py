"""A flow of this kernel as the graph's front-end is told it; ``flowkit/scene.py`` has the words."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from flowkit.flow import ports
from flowkit.flow.graph import Graph
from flowkit.flow.node import REQUIRED, Node, Port
from flowkit.flow.outcome import Outcome
from flowkit.flow.rerun import replaced
from flowkit.model import State, epoch
from flowkit.scene import CODES, SHOWN, WAITING


def drawn(flow: str, graph: Graph) -> dict[str, Any]:
    """Nodes with ports and types, and the edges between them by their places."""
    place = {wired.node.name: index for index, wired in enumerate(graph.nodes)}
    outputs = {
        output: (place[wired.node.name], at)
        for wired in graph.nodes
        for at, output in enumerate((wired.node.name, *wired.node.outputs))
    }
    edges = [
        [*outputs[port.source], place[wired.node.name], at]
        for wired in graph.nodes
        for at, port in enumerate(wired.node.ports)
        if port.source in outputs
    ]
    nodes = [_node(wired.node, graph) for wired in graph.nodes]
    return {"flow": flow, "nodes": nodes, "edges": edges, "problems": list(graph.problems)}


def _node(node: Node, graph: Graph) -> dict[str, Any]:
    produced = list(node.produced().items())
    told: dict[str, Any] = {
        "name": node.name,
        "ports": [
            *(_port(node, port, graph) for port in node.ports),
            *(
                {"name": key, "kind": "constant", "type": "", "value": short(one)}
                for key, one in node.constants.items()
            ),
        ],
        "outputs": [
            {"name": "" if at == 0 else name, "type": "" if kind in (Any, list) else ports.describe(kind)}
            for at, (name, kind) in enumerate(produced)
        ],
    }
    doc = (inspect.getdoc(node.function) or "") if inspect.isroutine(node.function) else ""
    if doc:
        told["doc"] = doc.strip().partition("\n")[0][:SHOWN]
    if node.retries:
        told["retries"] = node.retries
    if node.map:
        told["map"] = True
    return told


def _port(node: Node, port: Port, graph: Graph) -> dict[str, Any]:
    wanted = node.accepted(port)
    told: dict[str, Any] = {
        "name": port.name,
        "kind": "edge" if port.source in graph.names() else "parameter",
        "type": "" if wanted is Any else ports.describe(wanted),
    }
    if port.source != port.name:
        told["source"] = port.source
    if port.name in node.map:
        told["each"] = True
    if told["kind"] == "parameter" and port.default is not REQUIRED:
        told["value"] = short(port.default)
    return told


def short(constant: Any) -> str:
    text = repr(constant) if isinstance(constant, str | int | float | bool | None) else type(constant).__name__
    return text if len(text) <= 40 else text[:38] + "…"


class Account:
    """What has happened in one run, told anew each time it is asked, at the cost of what is new since."""

    def __init__(self, graph: Graph, outcome: Outcome) -> None:
        self._graph = graph
        self._outcome = outcome
        self._names = [wired.node.name for wired in graph.nodes]
        self._place = {name: index for index, name in enumerate(self._names)}
        self._gone = replaced(graph, outcome)
        self._same = outcome.graph is graph and not self._gone
        self._watched: frozenset[str] | None = None
        self._seen = 0
        self._times: dict[str, dict[str, Any]] = {}

    def status(self) -> bytes:
        states = self._outcome.states
        if self._same:
            found = bytearray(map(CODES.__getitem__, states.values()))
        else:
            found = bytearray(0 if name in self._gone else CODES[states[name]] for name in self._names)
        for name in list(self._outcome.again):
            if name in self._place and states[name] is State.FAILED:
                found[self._place[name]] = WAITING
        return bytes(found)

    def times(self, watched: Collection[int] | None) -> dict[str, dict[str, Any]]:
        """By place of the node; only of these if any are given."""
        names = None if watched is None else frozenset(self._names[at] for at in watched if at < len(self._names))
        if names != self._watched:
            self._watched, self._seen, self._times = names, 0, {}
        records = self._outcome.records
        known = len(records)
        for at, name, state, error, attempt in records[self._seen : known]:
            if name not in self._place or (names is not None and name not in names):
                continue
            told = self._times.setdefault(name, {})
            if state is State.RUNNING:
                told["attempt"] = attempt
                told.pop("finished", None)
                told.pop("error", None)
                if attempt == 1:
                    told["started"] = at
            else:
                told["finished"] = at
                if error:
                    told["error"] = error[:SHOWN]
        self._seen = known
        again, items = dict(self._outcome.again), dict(self._outcome.counts)
        return {
            str(self._place[name]): told
            | ({"due": again[name]} if name in again else {})
            | ({"items": items[name][1], "done": items[name][0]} if name in items else {})
            for name, told in self._times.items()
            if name not in self._gone
        }

    def run(self) -> dict[str, Any]:
        outcome = self._outcome
        told: dict[str, Any] = {"started": outcome.started, "now": epoch(), "live": True}
        if outcome.finished is None:
            return told | {"state": "running"}
        states = set(outcome.states.values())
        state = next((one for one in (State.CANCELLED, State.FAILED) if one in states), State.SUCCEEDED)
        critical = [self._place[name] for name in outcome.critical_path() if name in self._place]
        return told | {"state": state.value, "finished": outcome.finished, "critical": critical}


def at_rest() -> dict[str, Any]:
    """The trait ``run`` of a flow that has not run."""
    return {"state": "idle", "live": True, "now": epoch()}
