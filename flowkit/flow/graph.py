"""The nodes of a flow wired together: who reads whom, in which order, and what is wrong, before anything runs."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowkit.errors import GraphError, ParameterError, did_you_mean
from flowkit.flow import ports
from flowkit.flow.node import REQUIRED, Node, Port
from flowkit.flow.schema import checked, usable
from flowkit.flow.secrets import Secret, secret

#: Keywords of ``Flow.run`` that are not parameters of the flow.
RESERVED = ("executor", "threads")


@dataclass(slots=True, eq=False)
class Wired:
    """A node in its place. There may be 10,000, so it holds what a run needs and no more."""

    node: Node
    call: Callable[..., Any]
    inputs: tuple[tuple[str, str], ...]  #: (parameter, name of what feeds it)
    fixed: dict[str, Any]
    readers: list[Wired] = field(default_factory=list)  #: nodes that read it, each once
    reads: list[Wired] = field(default_factory=list)  #: nodes it reads, each once
    place: int = 0  #: position in the order the nodes were defined


class Problem(str):
    """What is wrong, in a sentence, and where: at a node, or at one of its inputs."""

    node: str | None
    port: str | None

    def __new__(cls, text: str, node: str | None = None, port: str | None = None) -> Problem:
        found = super().__new__(cls, text)
        found.node, found.port = node, port
        return found


class Graph:
    """Wires what it can, and keeps what is wrong as ``problems``, so that a broken flow can still be drawn."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.problems: list[Problem] = []
        self._nodes = nodes
        self._producers = self._find_producers()
        self.nodes = [self._wire(node) for node in nodes.values()]
        self._connect()
        self.order = self._sort()
        self.parameters = self._find_parameters()

    @property
    def reads(self) -> dict[str, list[str]]:
        """node -> the nodes it reads, as the run's first event declares them."""
        return {wired.node.name: [one.node.name for one in wired.reads] for wired in self.nodes}

    def check(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every parameter of the flow, or the first thing that is wrong."""
        if self.problems:
            more = len(self.problems) - 1
            raise GraphError(self.problems[0] + (f" (and {more} more like it)" if more else ""))
        for name in given:
            if name not in self.parameters:
                raise ParameterError(self._unknown(name))
        return {name: self.settle(name, given) for name in self.parameters}

    def settle(self, name: str, given: Mapping[str, Any]) -> Any:
        """The value of one parameter of the flow."""
        asking = self.parameters[name]
        if name in given:
            self._check_value(given[name], asking)
            return given[name]
        bound = [(node, port) for node, port in asking if port.bound]
        defaults = [(node, port) for node, port in asking if port.default is not REQUIRED]
        if bound or not defaults:
            node, _ = (bound or asking)[0]
            known = [other for other in [*self._producers, *self.parameters] if other not in (name, node.name)]
            remedy = did_you_mean(name, known)
            if not remedy:
                remedy = f"; give it: flow.run({name}=…)" if name.isidentifier() else ""
            if bound:
                remedy += f"; the text itself would be fk.value({name!r})"
            raise GraphError(f"node {node.name!r} needs {name!r}, which is neither a node nor a parameter{remedy}")
        first, port = defaults[0]
        for other, another in defaults[1:]:
            if not same(port.default, another.default):
                raise GraphError(
                    f"parameter {name!r} is {port.default!r} by default in node {first.name!r}, but "
                    f"{another.default!r} in node {other.name!r}; give it: flow.run({name}=…), or make them agree"
                )
        return port.default

    def names(self) -> Iterable[str]:
        """Every name a parameter can bear to be fed by a node."""
        return self._producers

    def node(self, name: str) -> Node:
        """The node that is called, or has an output called, *name*."""
        if name not in self._producers:
            raise GraphError(f"no node or output is called {name!r}{did_you_mean(name, self._producers)}")
        return self._nodes[self._producers[name]]

    def _find_producers(self) -> dict[str, str]:
        found = {name: name for name in self._nodes}
        for node in self._nodes.values():
            for output in node.outputs:
                other = found.setdefault(output, node.name)
                if output == other:
                    self._wrong(
                        f"{output!r} is a node and an output of node {node.name!r}; give one of them another name",
                        node,
                    )
                elif other != node.name or node.outputs.count(output) > 1:
                    self._wrong(
                        f"{output!r} is an output of node {other!r} and again of node {node.name!r}; "
                        f"give one of them another name",
                        node,
                    )
        return found

    def _wire(self, node: Node) -> Wired:
        call: Callable[..., Any] = node.function
        if inspect.isgeneratorfunction(call):
            call = functools.partial(_gathered, call)
        if node.positional:
            call = functools.partial(_by_position, call, node.positional)
        conversions = {}
        for port in node.ports:
            if port.source in self._producers and (converter := self._judge(node, port)):
                conversions[port.name] = converter
        for port in node.ports:
            if port.source not in self._producers and _is_secret(node.accepted(port)):
                conversions[port.name] = _revealed
        if conversions:
            call = functools.partial(_converted, call, conversions)
        if node.schema is not None:
            call = functools.partial(checked, call, usable(node.schema, node.name, node.outputs), node.outputs)
        return Wired(node, call, tuple((port.name, port.source) for port in node.ports), dict(node.constants))

    def _judge(self, node: Node, port: Port) -> ports.Converter | None:
        """The conversion that this edge needs, if any; a type that cannot fit becomes a problem."""
        wanted = node.accepted(port)
        if wanted is Any and port.name not in node.map:
            return None
        giver = self._nodes[self._producers[port.source]]
        given = giver.produced()[port.source]
        whose = (
            f"node {giver.name!r}" if port.source == giver.name else f"output {port.source!r} of node {giver.name!r}"
        )
        if port.name in node.map:
            item = ports.element(given)
            if item is ports.NOTHING:
                self._wrong(
                    f"node {node.name!r} maps over {port.name!r}, but {whose} returns {ports.describe(given)}, which "
                    f"is not a list; return a list, or do not map",
                    node,
                    port,
                )
                return None
            given = item
        fit = ports.fit(given, wanted)
        if not fit:
            _, colon, reason = fit.why.partition(": ")
            remedy = (
                reason if colon else "change one of the annotations, or tell fk.convert() how to make one of the other"
            )
            returns = "returns items of type" if port.name in node.map else "returns"
            self._wrong(
                f"node {node.name!r} takes {port.name!r} as {ports.describe(wanted)}, but {whose} {returns} "
                f"{ports.describe(given)}; {remedy}",
                node,
                port,
            )
        return fit.convert

    def _connect(self) -> None:
        by_name = {wired.node.name: wired for wired in self.nodes}
        for place, wired in enumerate(self.nodes):
            wired.place = place
            givers = dict.fromkeys(self._producers[source] for _, source in wired.inputs if source in self._producers)
            wired.reads = [by_name[name] for name in givers]
            for giver in wired.reads:
                giver.readers.append(wired)

    def _sort(self) -> list[Wired]:
        """Every node after those it reads, else as defined. Nodes on a cycle, and after one, are left out."""
        waits = [len(wired.reads) for wired in self.nodes]
        order = [wired for wired in self.nodes if not wired.reads]
        for wired in order:
            for reader in wired.readers:
                waits[reader.place] -= 1
                if not waits[reader.place]:
                    order.append(reader)
        if len(order) < len(self.nodes):
            stuck = [wired for wired in self.nodes if waits[wired.place]]
            self._wrong(_describe_cycle(stuck), stuck[0].node)
        return order

    def _find_parameters(self) -> dict[str, list[tuple[Node, Port]]]:
        found: dict[str, list[tuple[Node, Port]]] = {}
        for wired in self.nodes:
            for port in wired.node.ports:
                if port.source not in self._producers:
                    found.setdefault(port.source, []).append((wired.node, port))
        for name in RESERVED:
            if name in found:
                node, port = found[name][0]
                self._wrong(
                    f"node {node.name!r} takes {port.name!r} from a parameter {name!r}, which is a keyword of run(); "
                    f"give it another name",
                    node,
                    port,
                )
        return found

    def _wrong(self, text: str, node: Node, port: Port | None = None) -> None:
        self.problems.append(Problem(text, node.name, port.name if port else None))

    def _unknown(self, name: str) -> str:
        if name in self._producers:
            return f"{name!r} is a node of this flow, not a parameter; run() cannot be given its value"
        takes = ", ".join(self.parameters) or "no parameters"
        return f"no node takes {name!r}; this flow takes {takes}{did_you_mean(name, self.parameters)}"

    def _check_value(self, value: Any, asking: list[tuple[Node, Port]]) -> None:
        for node, port in asking:
            wanted = node.accepted(port)
            if wanted is Any or port.name in node.map or same(value, port.default):
                continue
            if ports.plainly_wrong(value, wanted):
                raise ParameterError(
                    f"node {node.name!r} takes {port.source!r} as {ports.describe(wanted)}, but was given {value!r}, "
                    f"a {ports.describe(type(value))}"
                )


def _by_position(function: Callable[..., Any], names: tuple[str, ...], /, **inputs: Any) -> Any:
    return function(*[inputs.pop(name) for name in names if name in inputs], **inputs)


def _gathered(function: Callable[..., Iterable[Any]], /, **inputs: Any) -> list[Any]:
    """A generator's values as a list: its body is part of the node's work, and two readers may read it."""
    return list(function(**inputs))


def _converted(function: Callable[..., Any], conversions: Mapping[str, ports.Converter], /, **inputs: Any) -> Any:
    return function(**inputs | {name: convert(inputs[name]) for name, convert in conversions.items()})


def _is_secret(wanted: Any) -> bool:
    return wanted is Secret or Secret in typing.get_args(wanted)


def _revealed(given: Any) -> Any:
    """A parameter that is a secret is given by its name."""
    return secret(given) if isinstance(given, str) else given


def _describe_cycle(stuck: list[Wired]) -> str:
    """Some cycle among nodes that each wait for another of them."""
    waiting = {wired.place for wired in stuck}
    path = [stuck[0]]
    seen = {stuck[0].place: 0}
    while True:
        before = next(wired for wired in path[-1].reads if wired.place in waiting)
        if before.place in seen:
            break
        seen[before.place] = len(path)
        path.append(before)
    names = [wired.node.name for wired in reversed(path[seen[before.place] :])]
    if len(names) == 1:
        return (
            f"node {names[0]!r} reads itself, {names[0]} -> {names[0]}; rename the node or its parameter, or bind the "
            f"parameter: inputs={{{names[0]!r}: …}}"
        )
    first = names.index(min(names, key=lambda name: next(w.place for w in stuck if w.node.name == name)))
    around = [*names[first:], *names[:first], names[first]]
    shown = around if len(around) <= 12 else [*around[:6], "…", *around[-5:]]
    return f"these nodes wait for each other: {' -> '.join(shown)}; one of them must not read the one before it"


def same(one: Any, other: Any) -> bool:
    """Whether two values are known to be equal."""
    try:
        return one is other or bool(one == other)
    except Exception:  # an author's value may refuse to be compared, as arrays do
        return False
