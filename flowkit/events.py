"""What happens in a run, as a sequence of events, and the fold that turns events into node runs.

A kernel appends events to the log in its run folder, the worker adds those it sees itself (cells and output), the
store keeps them in order. Whoever wants to know how a run stands folds them; there is no second truth.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from flowkit.model import NodeRun, Run, State

#: The event log in a run folder: one event a line, appended by the kernel, followed by the worker.
LOG = "events.jsonl"

Kind = Literal["flow", "node", "cell", "output", "kernel", "packages", "usage"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    flow    a flow began to run; ``flow`` is its name, ``data`` is ``{"nodes": {node: [nodes it reads]}}`` in order
    node    a node (``name``; ``report[3]`` for an item) of ``flow`` entered ``state``; ``data`` of one that succeeded
            says where its result is ``kept``, whose it ``reused``, and its ``profile``, if so; of one that failed
            which ``rows`` do not fit its schema, if that is why; of a pending one that it waits for a ``limit``
            ``until`` then, in seconds since 1970, or that it waits for the ``child`` that it is, a run, and how it
            ``ask``ed for that; of one that is a run, which ``child`` it is
    cell    code cell number ``name`` (counted from 1, code cells only) entered ``state``
    output  ``name`` is ``stdout`` or ``stderr``, ``data`` the text
    kernel  the attempt's kernel (``name``) was started; ``data`` says where and how: host, python, isolation
    packages  the kernel has come up: ``data`` is its ``python`` and, as it tells it, the list of its ``packages``,
            which the store keeps under the digest ``name``
    usage   what the attempt used, ``data`` is a list of ``Point``
    """

    kind: Kind
    at: float  #: seconds since 1970
    name: str = ""
    flow: str = ""
    state: State | None = None
    error: str | None = None
    attempt: int = 1  #: of the node within one attempt of the run: 2 is its first retry
    data: Any = None

    def to_json(self) -> str:
        """One line without a newline; fields at their default are left out."""
        pairs: dict[str, Any] = {"kind": self.kind, "at": self.at}
        if self.name:
            pairs["name"] = self.name
        if self.flow:
            pairs["flow"] = self.flow
        if self.state is not None:
            pairs["state"] = self.state
        if self.error is not None:
            pairs["error"] = self.error
        if self.attempt != 1:
            pairs["attempt"] = self.attempt
        if self.data is not None:
            pairs["data"] = self.data
        return _encode(pairs)

    @classmethod
    def from_json(cls, line: str | Mapping[str, Any]) -> Event:
        """The inverse of ``to_json``; unknown keys are ignored, so that an older reader survives a newer writer."""
        pairs = json.loads(line) if isinstance(line, str) else line
        known = {name: pairs[name] for name in cls.__slots__ if name in pairs}
        if known.get("state") is not None:
            known["state"] = State(known["state"])
        return cls(**known)


class Point(NamedTuple):
    """What all processes of an attempt used in a piece of time."""

    at: float  #: seconds since 1970: its end
    seconds: float  #: its length
    cpu: float  #: how many cores were busy, on average
    memory: int  #: bytes, the most that were seen


#: Points of one attempt that are shown at most.
POINTS = 240


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU and memory of an attempt so far."""

    points: tuple[Point, ...]  #: at most ``POINTS``

    @property
    def last(self) -> Point:
        return self.points[-1]

    @property
    def peak_memory(self) -> int:
        return max(point.memory for point in self.points)

    @property
    def mean_cpu(self) -> float:
        return _mean(self.points)

    def to_json(self) -> dict[str, Any]:
        return {
            "memory": {"last": self.last.memory, "peak": self.peak_memory},
            "cpu": {
                "last": self.last.cpu,
                "peak": max(point.cpu for point in self.points),
                "mean": round(self.mean_cpu, 3),
            },
            "points": [list(point) for point in self.points],
        }


def kernel(events: Iterable[Event]) -> dict[str, Any] | None:
    """Where and how the attempt's kernel was started; None if it was not."""
    return next(({"name": event.name, **event.data} for event in events if event.kind == "kernel"), None)


def usage(events: Iterable[Event]) -> Usage | None:
    """None if nothing is known: it has just begun."""
    points = [Point(*point) for event in events if event.kind == "usage" for point in event.data]
    while len(points) > POINTS:
        points = [_joined(points[place : place + 2]) for place in range(0, len(points), 2)]
    return Usage(tuple(points)) if points else None


def _joined(points: list[Point]) -> Point:
    seconds = sum(point.seconds for point in points)
    return Point(points[-1].at, round(seconds, 2), round(_mean(points), 3), max(point.memory for point in points))


def _mean(points: Iterable[Point]) -> float:
    pairs = [(point.cpu * point.seconds, point.seconds) for point in points]
    return sum(busy for busy, _ in pairs) / sum(seconds for _, seconds in pairs)


# Made once: json.dumps with options makes an encoder for every call, which costs more than the encoding.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def fold(events: Iterable[Event], *, ended: bool = False) -> list[NodeRun]:
    """How every node of one attempt stands: declared order, a mapped node's items right after it.

    In a notebook that ran no flow its code cells take the place of nodes, named ``cell 1``, ``cell 2``, …

    Args:
        ended: the attempt is over. A node the log still shows as running was cut off with its kernel, one still
            pending will never start.
    """
    nodes: dict[tuple[str, str], NodeRun] = {}
    cells: dict[tuple[str, str], NodeRun] = {}
    for event in events:
        if event.kind == "flow":
            for key in [key for key in nodes if key[0] == event.flow]:
                del nodes[key]
            nodes |= {(event.flow, name): NodeRun(name, event.flow) for name in event.data["nodes"]}
        elif event.kind == "node":
            _advance(nodes, (event.flow, event.name), event)
        elif event.kind == "cell":
            _advance(cells, ("", f"cell {event.name}"), event)
    found = list((nodes or cells).values())
    return _grouped([_cut_off(node) for node in found] if ended else found)


def with_children(nodes: Iterable[NodeRun], children: Iterable[Run]) -> list[NodeRun]:
    """Nodes that are runs of their own, and wait for them, as those stand; a mapped one runs while an item does."""
    runs = {child.id: child for child in children}
    found = []
    busy = set()
    for node in nodes:
        run = None if node.state.final else runs.get(node.child or "")
        if run is not None:
            changed = {"state": run.state, "started": run.started, "finished": run.finished, "error": run.error}
            node = replace(node, **changed)  # type: ignore[arg-type]
            if run.state is not State.PENDING:
                busy.add((node.flow, node.name.partition("[")[0]))
        found.append(node)
    return [
        replace(node, state=State.RUNNING)
        if node.state is State.PENDING and (node.flow, node.name) in busy and node.child is None
        else node
        for node in found
    ]


def _advance(nodes: dict[tuple[str, str], NodeRun], key: tuple[str, str], event: Event) -> None:
    before = nodes.get(key) or NodeRun(key[1], key[0])
    assert event.state is not None
    at = datetime.fromtimestamp(event.at, UTC)
    started = before.started
    if event.state is State.RUNNING and (started is None or event.attempt == 1):
        started = at
    note = event.data if isinstance(event.data, dict) else {}
    until = note.get("until")
    nodes[key] = replace(
        before,
        state=event.state,
        started=started,
        finished=at if event.state.final else None,
        error=event.error,
        kept=note.get("kept"),
        profile=note.get("profile"),
        misfits=note.get("rows"),
        reused=note.get("reused"),
        limit=note.get("limit"),
        until=None if until is None else datetime.fromtimestamp(until, UTC),
        child=note.get("child") or before.child,
    )


_NEVER = "never started: the run ended before it"


def _cut_off(node: NodeRun) -> NodeRun:
    if node.state is State.RUNNING:
        return replace(node, state=State.FAILED, error=node.error or "cut off: its kernel or worker stopped here")
    if node.state is State.PENDING:
        return replace(node, state=State.SKIPPED, error=node.error or _NEVER, limit=None, until=None)
    return node


def _grouped(nodes: list[NodeRun]) -> list[NodeRun]:
    """Items (``report[3]``) after their node, in order of their index, however they arrived."""
    place = {(node.flow, node.name): index for index, node in enumerate(nodes)}

    def position(node: NodeRun) -> tuple[int, int]:
        owner, bracket, index = node.name.rpartition("[")
        if bracket and index[:-1].isdigit() and (node.flow, owner) in place:
            return place[node.flow, owner], int(index[:-1]) + 1
        return place[node.flow, node.name], 0

    return sorted(nodes, key=position)
