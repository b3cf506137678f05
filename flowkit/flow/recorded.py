"""A run as its events tell it: its graph, and how every node stood at any instant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from flowkit import scene
from flowkit.events import Event, fold, with_children
from flowkit.flow import draw, widget
from flowkit.flow.graph import Graph
from flowkit.flow.node import Node, Port
from flowkit.flow.outcome import rows, seconds
from flowkit.model import NodeRun, Run, State


class Recorded:
    """One attempt of a run that the store has. As the last line of a cell it is drawn, as it ended or stands.

    A run of several flows has a graph for each; in one of none, its code cells follow each other.
    """

    def __init__(self, run: Run, attempt: int, events: Sequence[Event], children: Sequence[Run] = ()) -> None:
        """
        Args:
            events: of that attempt, in order; output does not matter.
            children: runs that are nodes of it, if it is the newest attempt.
        """
        self._children = children
        self.run = run
        self.attempt = attempt
        self.events = [event for event in events if event.kind != "output"]
        #: flow -> node -> the nodes it reads. The flow of cells is called "".
        self.graphs: dict[str, dict[str, list[str]]] = _graphs(self.events)
        told = [event.at for event in self.events if event.flow in self.graphs]
        ended = [run.finished.timestamp()] if self.ended and run.finished and attempt == run.attempt else []
        #: When something changed, in seconds since 1970, ascending; the last is the end, if it has ended.
        self.instants: list[float] = sorted({*told, *ended})

    @property
    def ended(self) -> bool:
        """The attempt is over, for good or for the next one."""
        return self.run.state.final or self.attempt < self.run.attempt

    @property
    def nodes(self) -> list[NodeRun]:
        """How every node ended, or stands: states, times and errors. Items of a mapped node after it."""
        return self.at(None)

    def at(self, instant: float | datetime | None) -> list[NodeRun]:
        """How every node stood at an instant, of ``instants`` or any other, in seconds since 1970; None: at the end."""
        if isinstance(instant, datetime):
            instant = instant.timestamp()
        last = instant is None or not self.instants or instant >= self.instants[-1]
        seen = self.events if last else [event for event in self.events if instant is None or event.at <= instant]
        folded = fold(seen, ended=self.ended and last)
        found = {(node.flow, node.name): node for node in (with_children(folded, self._children) if last else folded)}
        # What was not declared yet waits, so that the graph stays the same while one moves through it.
        declared = [(flow, name) for flow, nodes in self.graphs.items() for name in nodes]
        waiting = {key: NodeRun(key[1], key[0]) for key in declared if key not in found}
        return [node for node in (found | waiting).values() if node.flow in self.graphs]

    def svg(self, instant: float | datetime | None = None, *, flow: str | None = None) -> str:
        """The picture of one flow, the first if none is named, as it stood at an instant."""
        chosen = next(iter(self.graphs), "") if flow is None else flow
        runs = {node.name: node for node in self.at(instant) if node.flow == chosen}
        return draw.drawn(f"{chosen or self.run.label} · {self._called}", self._graph(chosen), runs)

    def story(self) -> dict[str, Any]:
        """For a browser that moves through it: the ``graph`` of all flows, the ``instants``, and the ``changes``.

        A change is ``[at, place of the node, code of its state, attempt, error]``; of a mapped node's items ``[at,
        place, -1, how many have ended, how many there are]``.
        """
        declared = scene.declared(self.events)
        if declared is None:
            cells = self.graphs.get("", {})
            declared = scene.bare(self.run.label, cells), [("", name) for name in cells]
        graph, nodes = declared
        place = {node: at for at, node in enumerate(nodes)}
        codes = [0] * len(nodes)
        changes: list[list[Any]] = []
        items: dict[int, dict[str, bool]] = {}  # place -> item -> whether it has ended

        def change(at: float, node: int, code: int, attempt: int, error: str | None) -> None:
            codes[node] = code
            changes.append([at, node, code, attempt, error and error[: scene.SHOWN]])

        for event in self.events:
            name = f"cell {event.name}" if event.kind == "cell" else event.name
            owner = (event.flow, name.partition("[")[0])
            if event.kind == "flow":
                for node in event.data["nodes"] if (event.flow, "") not in place else ():
                    change(event.at, place[event.flow, node], scene.CODES[State.PENDING], 1, None)
            elif owner in place and event.state is not None and name == owner[1]:
                change(event.at, place[owner], scene.CODES[event.state], event.attempt, event.error)
            elif owner in place and event.state is not None:
                known = items.setdefault(place[owner], {})
                known[name] = event.state.final
                changes.append([event.at, place[owner], -1, sum(known.values()), len(known)])
        for at, (node, code) in enumerate(zip(nodes, scene.status(nodes, self.nodes), strict=True)):
            if code != codes[at]:  # it was cut off
                found = next((one for one in self.nodes if (one.flow, one.name) == node), None)
                change(self.instants[-1], at, code, 1, found.error if found else None)
        state = self.run.state if self.attempt == self.run.attempt else State.FAILED
        return {
            "graph": graph | {"flow": f"{graph['flow']} · {self._called}"},
            "instants": self.instants,
            "changes": changes,
            "state": state.value if self.ended else State.RUNNING.value,
        }

    def _ipython_display_(self) -> None:
        if not self.graphs or not widget.possible():
            raise NotImplementedError
        shown = widget.make("view")
        story = self.story()
        shown.graph = story.pop("graph")
        shown.story = story
        widget.show(shown, self.svg(), repr(self))

    def _graph(self, flow: str) -> Graph:
        mapped = {event.name.partition("[")[0] for event in self.events if event.flow == flow and "[" in event.name}
        return Graph(
            {
                name: Node(
                    name=name,
                    function=_elsewhere,
                    ports=tuple(Port(one, one) for one in reads),
                    map=("item",) if name in mapped else (),
                )
                for name, reads in self.graphs.get(flow, {}).items()
            }
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        if len(self.graphs) < 2:
            return {"image/svg+xml": self.svg(), "text/plain": repr(self)}
        pictures = "".join(f"<div>{self.svg(flow=flow)}</div>" for flow in self.graphs)
        return {"text/html": pictures, "text/plain": repr(self)}

    def __repr__(self) -> str:
        table = rows(self.nodes)
        width = max((len(name) for name, *_ in table), default=0)
        lines = [f"  {name:<{width}}  {state:<9}  {took:>8}  {error}".rstrip() for name, state, took, error in table]
        return "\n".join([self._headline(), *lines])

    @property
    def _called(self) -> str:
        return f"run {self.run.id[:8]}" + (f", attempt {self.attempt}" if self.run.attempt > 1 else "")

    def _headline(self) -> str:
        state = self.run.state if self.attempt == self.run.attempt else State.FAILED
        span = f" in {seconds(self.instants[-1] - self.instants[0])}" if self.instants else ""
        return f"{self.run.label} · {self._called}: {state.value}{span}"


def _graphs(events: Sequence[Event]) -> dict[str, dict[str, list[str]]]:
    found = {event.flow: dict(event.data["nodes"]) for event in events if event.kind == "flow"}
    if found:
        return found
    cells = list(dict.fromkeys(f"cell {event.name}" for event in events if event.kind == "cell"))
    return {"": {cell: cells[place - 1 : place] if place else [] for place, cell in enumerate(cells)}} if cells else {}


def _elsewhere() -> Any:
    """What stands for the functions of a run: they ran in a kernel that is gone."""
