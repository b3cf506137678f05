"""What the graph's front-end is told, as plain data: the words it shares with ``widgets/src/model.ts``.

A flow of a kernel is told by ``flow/sheet.py``; this module tells what can be known from a run's events alone, to
whoever shows a recorded run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowkit.model import NodeRun, State

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


def bare(flow: str, reads: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The graph as a run's first event declares it: names and edges, no types."""
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


def status(names: Iterable[str], states: Mapping[str, State]) -> bytes:
    return bytes([CODES[states[name]] if name in states else 0 for name in names])


def times(names: Sequence[str], runs: Iterable[NodeRun]) -> dict[str, dict[str, Any]]:
    """By place of the node, from node runs with items after their node, as ``fold`` gives them."""
    place = {name: str(index) for index, name in enumerate(names)}
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.name in place:
            told: dict[str, Any] = {}
            if run.started:
                told["started"] = run.started.timestamp()
            if run.finished:
                told["finished"] = run.finished.timestamp()
            if run.error:
                told["error"] = run.error[:SHOWN]
            found[place[run.name]] = told
        elif (owner := run.name.partition("[")[0]) in place:
            told = found.setdefault(place[owner], {})
            told["items"] = told.get("items", 0) + 1
            told["done"] = told.get("done", 0) + run.state.final
    return found
