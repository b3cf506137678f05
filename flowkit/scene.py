"""What the graph's front-end is told, as plain data: the words it shares with ``widgets/src/model.ts``.

A flow of a kernel is told by ``flow/sheet.py``; this module tells what can be known from a run's events alone, to
whoever shows a recorded run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit.events import Event
from flowkit.model import NodeRun, State

#: The front-end: one file, built from ``widgets/``. Missing if it was left out, see ``hatch_build.py``.
BUNDLE = Path(__file__).parent / "flow" / "static" / "graph.js"

#: A node's state as one byte of the trait ``status``. 0: there is no run of it.
CODES: Mapping[State, int] = {
    State.PENDING: 1,
    State.RUNNING: 2,
    State.SUCCEEDED: 3,
    State.FAILED: 4,
    State.SKIPPED: 5,
    State.CANCELLED: 6,
}
#: It failed and is to be tried again.
WAITING = 7

#: Characters of an error that a card and its tooltip show.
SHOWN = 500


def declared(steps: Iterable[Event]) -> tuple[dict[str, Any], list[tuple[str, str]]] | None:
    """The graph of all flows of a run as its events declare it, and (flow, node) by place; None if it ran none."""
    flows: dict[str, Mapping[str, Sequence[str]]] = {}
    for event in steps:
        if event.kind == "flow":
            flows[event.flow] = event.data["nodes"]
    if not flows:
        return None
    several = len(flows) > 1
    reads = {
        f"{flow}: {name}" if several else name: [f"{flow}: {giver}" if several else giver for giver in givers]
        for flow, nodes in flows.items()
        for name, givers in nodes.items()
    }
    return bare(", ".join(flows), reads), [(flow, name) for flow, nodes in flows.items() for name in nodes]


def bare(flow: str, reads: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A graph of which names and edges are known, and no types: node -> the nodes it reads."""
    place = {name: index for index, name in enumerate(reads)}
    return {
        "flow": flow,
        "nodes": [
            {
                "name": name,
                "ports": [{"name": giver, "kind": "edge", "type": ""} for giver in givers],
                "outputs": [{"name": "", "type": ""}],
            }
            for name, givers in reads.items()
        ],
        "edges": [
            [place[giver], 0, place[name], port]
            for name, givers in reads.items()
            for port, giver in enumerate(givers)
            if giver in place
        ],
        "problems": [],
    }


def status(nodes: Sequence[tuple[str, str]], runs: Iterable[NodeRun]) -> bytes:
    """A byte for each (flow, node)."""
    states = {(run.flow, run.name): run.state for run in runs}
    return bytes([CODES[states[node]] if node in states else 0 for node in nodes])


def times(nodes: Sequence[tuple[str, str]], runs: Iterable[NodeRun]) -> dict[str, dict[str, Any]]:
    """By place of the (flow, node), from node runs with items after their node, as ``fold`` gives them."""
    place = {node: str(index) for index, node in enumerate(nodes)}
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        owner = (run.flow, run.name.partition("[")[0])
        if owner not in place:
            continue
        told = found.setdefault(place[owner], {})
        if owner[1] != run.name:
            told["items"] = told.get("items", 0) + 1
            told["done"] = told.get("done", 0) + run.state.final
            continue
        told |= {"started": run.started.timestamp()} if run.started else {}
        told |= {"finished": run.finished.timestamp()} if run.finished else {}
        told |= {"error": run.error[:SHOWN]} if run.error else {}
    return found
