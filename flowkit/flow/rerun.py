"""Running a part of a flow again: which nodes, with which results at hand, and which results are out of date."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any

from flowkit.errors import GraphError
from flowkit.flow.graph import Graph, same
from flowkit.flow.node import Node, author
from flowkit.flow.outcome import Outcome
from flowkit.model import State

#: The value of a parameter that has none now: no result was made with it.
_UNSETTLED = object()


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
    """The nodes that have no result, or one that a run with these parameters might not give."""
    values = {name: _settled(graph, name, given) for name in graph.parameters}

    def changed(node: Node) -> bool:
        if outcome is None or outcome.states.get(node.name) is not State.SUCCEEDED:
            return True
        then = outcome.origin(node.name)
        read = [port.source for port in node.ports if port.source in values]
        return not same_work(then.node, node) or any(
            not same(then.parameters.get(name, _UNSETTLED), values[name]) for name in read
        )

    return with_readers(graph, [wired.node.name for wired in graph.nodes if changed(wired.node)])


def with_changed(graph: Graph, outcome: Outcome | None, values: Mapping[str, Any]) -> set[str]:
    """The nodes whose results were made with other values of the parameters than these."""
    if outcome is None:
        return set()
    found = set()
    for wired in graph.nodes:
        name = wired.node.name
        if outcome.states.get(name) is not State.SUCCEEDED:
            continue
        then = outcome.origin(name).parameters
        read = [port.source for port in wired.node.ports if port.source in values]
        if any(port in then and not same(then[port], values[port]) for port in read):
            found.add(name)
    return found


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


def same_work(then: Node, now: Node) -> bool:
    """Whether two nodes would make the same of the same inputs, as far as their own code and wiring say."""
    return then is now or (_wiring(then) == _wiring(now) and _same_constants(then, now) and _same_code(then, now))


def _settled(graph: Graph, name: str, given: Mapping[str, Any]) -> Any:
    try:
        return graph.settle(name, given)
    except GraphError:
        return _UNSETTLED


def _wiring(node: Node) -> tuple[object, ...]:
    return [(port.name, port.source) for port in node.ports], node.outputs, node.map


def _same_constants(then: Node, now: Node) -> bool:
    return then.constants.keys() == now.constants.keys() and all(
        same(then.constants[key], now.constants[key]) for key in now.constants
    )


def _same_code(then: Node, now: Node) -> bool:
    if then.function is now.function:
        return True
    one, other = author(then.function), author(now.function)
    if not isinstance(one, FunctionType) or not isinstance(other, FunctionType):
        return same(then.function, now.function)
    return _code(one.__code__) == _code(other.__code__) and same(_bound(one), _bound(other))


def _code(code: CodeType) -> tuple[object, ...]:
    """What it does, not where it stands: a cell that is run again without a change gives the same."""
    constants = [_code(one) if isinstance(one, CodeType) else (type(one), repr(one)) for one in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_flags


def _bound(function: FunctionType) -> tuple[object, ...]:
    cells = function.__closure__ or ()
    return function.__defaults__, function.__kwdefaults__, [_content(cell) for cell in cells]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _UNSETTLED
