"""Running a part of a flow again: which nodes, with which results at hand, and which results are out of date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from flowkit.errors import GraphError
from flowkit.flow.graph import Graph
from flowkit.flow.outcome import Outcome
from flowkit.flow.work import Work, digests
from flowkit.model import State


def with_readers(graph: Graph, names: Iterable[str]) -> set[str]:
    """These nodes, and all that read them, directly or not."""
    wired = {one.node.name: one for one in graph.nodes}
    found = set(names)
    waiting = [wired[name] for name in found]
    while waiting:
        for reader in waiting.pop().readers:
            if reader.node.name not in found:
                found.add(reader.node.name)
                waiting.append(reader)
    return found


def stale(graph: Graph, outcome: Outcome | None, given: Mapping[str, Any]) -> set[str]:
    """The nodes that have no result, or one of another key than a run with these parameters would give."""
    if outcome is None:
        return {wired.node.name for wired in graph.nodes}
    now = Work(graph, _settled(graph, given))

    def changed(name: str) -> bool:
        key = now.key(name)
        return outcome.states.get(name) is not State.SUCCEEDED or key is None or key != outcome.work.key(name)

    return with_readers(graph, [wired.node.name for wired in graph.nodes if changed(wired.node.name)])


def with_changed(graph: Graph, outcome: Outcome | None, values: Mapping[str, Any]) -> set[str]:
    """The nodes whose results were made with other values of the parameters than these."""
    if outcome is None:
        return set()
    now = digests(values)
    found = set()
    for wired in graph.nodes:
        name = wired.node.name
        if outcome.states.get(name) is State.SUCCEEDED:
            then = outcome.work.behind(name).given
            if any(then[source] != now[source] for _, source in wired.inputs if source in then and source in now):
                found.add(name)
    return found


def replaced(graph: Graph, outcome: Outcome) -> set[str]:
    """The nodes that this outcome says nothing of: they are new, or their own code is."""
    if graph is outcome.graph and not outcome.work.kept:
        return set()
    now = Work(graph, {})
    names = [wired.node.name for wired in graph.nodes]
    return {name for name in names if name not in outcome.states or now.code(name) != outcome.work.code(name)}


def continued(outcome: Outcome | None, graph: Graph, due: set[str], fresh: Outcome) -> None:
    """Fill *fresh* with what *outcome* has of the nodes that are not *due*; refuse if a result they read is missing."""
    kept = [wired for wired in graph.nodes if wired.node.name not in due]
    have = {name for name, state in outcome.states.items() if state is State.SUCCEEDED} if outcome else set()
    for wired in graph.nodes:
        if wired.node.name in due:
            for parameter, source in wired.inputs:
                giver = graph.node(source).name if source in graph.names() else None
                if giver and giver not in due and (giver not in have or outcome is None or source not in outcome):
                    raise GraphError(
                        f"node {wired.node.name!r} needs {parameter!r}, but {giver!r} has no result yet; run the whole "
                        f"flow, or again from there: flow.rerun({giver!r})"
                    )
    fresh.due = frozenset(due)
    if outcome is not None:
        fresh.keep(outcome, [wired.node for wired in kept])


def _settled(graph: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that have a value now: no result was made with the others."""
    found = {}
    for name in graph.parameters:
        with suppress(GraphError):
            found[name] = graph.settle(name, given)
    return found
