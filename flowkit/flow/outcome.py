"""What became of each node when a flow ran: results by name, states, times, errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowkit.errors import FlowkitError, did_you_mean
from flowkit.events import Event, fold
from flowkit.flow.graph import Graph
from flowkit.flow.lines import Lines
from flowkit.flow.node import Node
from flowkit.flow.work import Work
from flowkit.model import NodeRun, State, epoch

#: (at, name, state, error, attempt): an event of a node, before anybody asks for it as an ``Event``.
Record = tuple[float, str, State, str | None, int]

_SHOWN = 30  # rows of the table, before it is cut


class NoResult(FlowkitError, KeyError):
    """A node or output has no result, and why."""

    __str__ = Exception.__str__  # KeyError would quote the message


class Outcome(Mapping[str, Any]):
    """Results by the name of a node or of an output; only those there are. Filled while the flow runs.

    A node that failed or was skipped is not in it: asking for it says why.
    """

    def __init__(self, flow: str, graph: Graph, given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        self.flow = flow
        self.graph = graph
        self.given = given  #: parameters that were given; the others had their defaults
        self.parameters = values  #: the value of every parameter of the flow
        self.work = Work(graph, values)  #: what its results are made by
        self.due: frozenset[str] | None = None  #: the nodes that this run ran; None: all
        self.started = epoch()  #: seconds since 1970
        self.finished: float | None = None  #: None while it runs
        self.results: dict[str, Any] = {}
        self.errors: dict[str, BaseException] = {}  #: the author's own, by node, or by item: ``report[3]``
        self.reasons: dict[str, str] = {}  #: the same on one line
        self.states: dict[str, State] = {wired.node.name: State.PENDING for wired in graph.nodes}
        self.causes: dict[str, str] = {}  #: skipped node -> the node whose failure is the cause
        self.records: list[Record] = []  #: what happened to nodes, appended as it happens
        #: node or item -> where its result is kept, and was taken from, and its profile
        self.notes: dict[str, dict[str, Any]] = {}
        self.misses: dict[
            str, dict[str, Any]
        ] = {}  #: of a node or item that failed: ``rows`` that do not fit its schema
        self.counts: dict[str, tuple[int, int]] = {}  #: mapped node -> items that have ended, all items
        self.again: dict[str, float] = {}  #: node or item that failed -> when its next attempt starts
        self.lines: Lines | None = None  #: what nodes wrote; None where nobody can look at one

    def __getitem__(self, name: str) -> Any:
        try:
            return self.results[name]
        except KeyError:
            raise NoResult(self._why_not(name)) from self._error_behind(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    # By identity: results may be data frames, whose equality is no yes or no.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self.results)

    @property
    def elapsed(self) -> float:
        """Seconds it took, or has taken so far."""
        return (self.finished or epoch()) - self.started

    @property
    def ok(self) -> bool:
        return all(state is State.SUCCEEDED for state in self.states.values())

    @property
    def events(self) -> list[Event]:
        """All that happened, the flow's own event first."""
        declared = Event("flow", self.started, flow=self.flow, data={"nodes": self.graph.reads})
        return [declared, *(self.event(record) for record in list(self.records))]

    @property
    def nodes(self) -> list[NodeRun]:
        """How every node stands, in the order of their definition, items after their node."""
        return fold(self.events)

    def keep(self, earlier: Outcome, nodes: Iterable[Node]) -> None:
        """Take over what an earlier run has of these nodes."""
        kept = {node.name: node for node in nodes if node.name in earlier.states}
        self.work.keep(earlier.work, kept)
        for name, node in kept.items():
            self.states[name] = earlier.states[name]
            for result in (name, *node.outputs):
                if result in earlier.results:
                    self.results[result] = earlier.results[result]
            if name in earlier.causes:
                self.causes[name] = earlier.causes[name]
        self.errors |= {name: error for name, error in earlier.errors.items() if _owner(name) in kept}
        self.reasons |= {name: reason for name, reason in earlier.reasons.items() if _owner(name) in kept}
        self.records = [record for record in earlier.records if _owner(record[1]) in kept]
        self.notes = {name: note for name, note in earlier.notes.items() if _owner(name) in kept}
        self.misses = {name: miss for name, miss in earlier.misses.items() if _owner(name) in kept}
        self.counts = {name: count for name, count in earlier.counts.items() if name in kept}
        if self.lines is not None and earlier.lines is not None:
            self.lines.take(earlier.lines, kept)

    def critical_path(self) -> list[str]:
        """The nodes that the end waited for: the last to end, before it the last to end of those it reads, and so on.

        What this run ran, in order; to shorten the run, shorten one of these.
        """
        ended: dict[str, float] = {}
        for at, name, state, _, _ in self.records:
            if state.final and name in self.states and (self.due is None or name in self.due):
                ended[name] = at
        ran = {name for _, name, state, _, _ in self.records if state is State.RUNNING}
        ended = {name: at for name, at in ended.items() if name in ran}
        reads = {wired.node.name: wired.reads for wired in self.graph.nodes}
        path: list[str] = []
        last = max(ended, key=ended.__getitem__, default=None)
        while last is not None:
            path.append(last)
            before = [one.node.name for one in reads[last] if one.node.name in ended]
            last = max(before, key=ended.__getitem__, default=None)
        return path[::-1]

    def finish(self) -> None:
        self.finished = epoch()

    def event(self, record: Record) -> Event:
        at, name, state, error, attempt = record
        note = {State.SUCCEEDED: self.notes, State.FAILED: self.misses}.get(state, {}).get(name)
        return Event("node", at, name, self.flow, state, error, attempt, note)

    def failure(self) -> tuple[str, BaseException] | None:
        """What failed in this run, on one line, and the author's exception behind it; None if nothing did."""
        states = {name: state for name, state in self.states.items() if self.due is None or name in self.due}
        failed = [name for name, state in states.items() if state is State.FAILED]
        if not failed:
            return None
        skipped = [name for name, state in states.items() if state is State.SKIPPED]
        others = f"; so did {_names(failed[1:])}" if len(failed) > 1 else ""
        after = f" ({len(skipped)} skipped after {'them' if others else 'it'}: {_names(skipped)})" if skipped else ""
        return f"node {failed[0]!r} failed: {self.reasons[failed[0]]}{others}{after}", self.errors[failed[0]]

    def _why_not(self, name: str) -> str:
        if name not in self.graph.names():
            return f"no node or output is called {name!r}{did_you_mean(name, self.graph.names())}"
        node = self.graph.node(name).name
        what = f"node {name!r}" if name == node else f"output {name!r} of node {node!r}"
        state = self.states[node]
        cause = self.causes.get(node, node)
        if state is State.SKIPPED and node in self.causes:
            return f"{what} was skipped, because node {cause!r} failed: {self.reasons[cause]}"
        if node in self.errors:
            return f"{what} failed: {self.reasons[node]}"
        return f"{what} has no result: it is {state.value}"

    def _error_behind(self, name: str) -> BaseException | None:
        node = self.graph.node(name).name if name in self.graph.names() else name
        return self.errors.get(self.causes.get(node, node))

    def __repr__(self) -> str:
        lines = [self._headline()]
        table = rows(self.nodes)
        width = max((len(name) for name, *_ in table), default=0)
        lines += [f"  {name:<{width}}  {state:<9}  {took:>8}  {error}".rstrip() for name, state, took, error in table]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        import html  # late, with its table of entities

        cells = "".join(
            f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
            f"<td style='text-align:left;white-space:nowrap'>{_dot(state)} {state}</td><td>{took}</td>"
            f"<td style='text-align:left'>{html.escape(error)}</td></tr>"
            for name, state, took, error in rows(self.nodes)
        )
        return (
            f"<div><p>{html.escape(self._headline())}</p><table><thead><tr><th style='text-align:left'>node</th>"
            f"<th style='text-align:left'>state</th><th>took</th><th style='text-align:left'>error</th></tr></thead>"
            f"<tbody>{cells}</tbody></table></div>"
        )

    def _headline(self) -> str:
        counts = {state: list(self.states.values()).count(state) for state in State}
        told = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
        return f"{self.flow}: {told or 'no nodes'} in {seconds(self.elapsed)}"


def _owner(name: str) -> str:
    """The node of an item: ``report`` of ``report[3]``."""
    return name.partition("[")[0]


def _names(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 8 else [*names[:7], f"and {len(names) - 7} more"])


def seconds(span: float) -> str:
    """A duration for people: ``3 ms``, ``1.25 s``, ``2 min 5 s``."""
    if span < 0.0005:
        return "<1 ms"
    if span < 0.9995:
        return f"{span * 1000:.0f} ms"
    if span < 60:
        return f"{span:.3g} s"
    return f"{int(span // 60)} min {int(span % 60)} s"


def rows(nodes: list[NodeRun]) -> list[tuple[str, str, str, str]]:
    """The table, cut in the middle of nowhere interesting: failures are always shown."""
    kept = nodes
    if len(nodes) > _SHOWN:
        telling = [node for node in nodes if node.state is State.FAILED][:_SHOWN]
        rest = [node for node in nodes if node.state is not State.FAILED][: _SHOWN - len(telling)]
        chosen = {id(node) for node in [*telling, *rest]}
        kept = [node for node in nodes if id(node) in chosen]
    found = [(node.name, node.state.value, _took(node), node.error or _reused(node)) for node in kept]
    if len(kept) < len(nodes):
        found.append((f"… {len(nodes) - len(kept)} more", "", "", ""))
    return found


def _reused(node: NodeRun) -> str:
    return f"reused from {node.reused}" if node.reused else ""


def _took(node: NodeRun) -> str:
    if node.started is None or node.finished is None:
        return ""
    return seconds((node.finished - node.started).total_seconds())


def _dot(state: str) -> str:
    colours = {"succeeded": "#1a7f37", "failed": "#cf222e", "running": "#0969da"}
    return f"<span style='color:{colours.get(state, '#8c959f')}'>●</span>" if state else ""
