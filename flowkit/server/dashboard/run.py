"""The page of one run: what it is, what its newest attempt has recorded, and what changed since it last succeeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flowkit import scene
from flowkit.changes import Comparison
from flowkit.events import Event, fold, kernel, usage
from flowkit.history import changed
from flowkit.model import NodeRun, Run, State, Wait
from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import cut, row, seconds, text
from flowkit.store import Store

#: Characters of a run's output that are kept for whoever looks at it: its end.
TAIL = 64_000
#: Nodes of one run that are shown; of more, those that failed or are running come first.
NODES = 300
#: Nodes whose rows that do not fit a schema are shown.
TABLES = 5
#: Parameters of one run that are shown.
PARAMETERS = 100
#: Changes since the last success, and lines of each, that are shown.
CHANGES, CHANGED = 60, 60

_FIRST = {State.FAILED: 0, State.RUNNING: 1}


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a run's log."""

    place: int  #: counts from 1 within the attempt, without a gap
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Followed:
    """A run that somebody looks at: what its newest attempt has recorded so far."""

    run: Run
    nodes: list[NodeRun] = field(default_factory=list)
    wait: Wait | None = None  #: why it is not claimed
    log: list[Output] = field(default_factory=list)  #: its end
    position: int = 0  #: of the store's events
    steps: list[Event] = field(default_factory=list)  #: all events but output
    outputs: int = 0  #: pieces of output so far

    def read(self, store: Store, at: datetime) -> Followed:
        """As it is now; the same object if nothing has happened."""
        run = store.run(self.run.id)
        if run.attempt != self.run.attempt:
            return Followed(run).read(store, at)
        # Also after the end: what was recorded right before it comes with the next look.
        position, events = store.events(run.id, attempt=run.attempt, after=self.position)
        wait = store.wait(run, now=at)
        if run == self.run and not events and wait == self.wait:
            return self
        steps = self.steps + [event for event in events if event.kind != "output"]
        said = [event for event in events if event.kind == "output"]
        pieces = [Output(place, e.name, str(e.data)[-TAIL:]) for place, e in enumerate(said, start=self.outputs + 1)]
        return Followed(
            run=run,
            nodes=fold(steps, ended=run.state.final),
            wait=wait,
            log=_tail(self.log + pieces),
            position=position,
            steps=steps,
            outputs=self.outputs + len(pieces),
        )


@dataclass(frozen=True)
class Log:
    """The output of an attempt, of which a browser has what was there before."""

    run: str
    attempt: int
    pieces: list[Output]
    outputs: int

    def since(self, before: Log | None) -> dict[str, Any] | None:
        """``anew``: the browser is to forget what it has. ``cut``: there was more before the first that are left."""
        anew = before is None or (before.run, before.attempt) != (self.run, self.attempt)
        last = 0 if before is None or anew else before.outputs
        pieces = [[piece.stream, piece.text] for piece in self.pieces if piece.place > last]
        if not pieces and not anew:
            return None
        cut = bool(self.pieces) and self.pieces[0].place > last + 1
        return {"anew": anew, "cut": cut, "pieces": pieces}


@dataclass(frozen=True, slots=True)
class Following:
    run: str  #: id, or the beginning of one

    def read(self, look: Look, before: Followed | None) -> Followed:
        return (before or Followed(look.store.run(self.run))).read(look.store, look.at)

    def tell(self, found: Followed) -> dict[str, Any]:
        run = found.run
        return {
            "run": _details(run, found.wait),
            "nodes": _nodes(found.nodes),
            "usage": _usage(found),
            "log": Log(run.id, run.attempt, found.log, found.outputs),
        }


@dataclass(frozen=True, slots=True)
class Graph:
    """The run's graph, and how its nodes stand, as the graph's front-end takes them."""

    run: str

    def read(self, look: Look, before: Followed | None) -> Followed:
        found: Followed = look.found(Following(self.run))
        return found

    def tell(self, found: Followed) -> dict[str, Any]:
        declared = scene.declared(found.steps)
        if declared is None:
            return {"graph": False}
        graph, nodes = declared
        times = scene.times(nodes, found.nodes)
        began = min((told["started"] for told in times.values() if "started" in told), default=None)
        ended = max((told["finished"] for told in times.values() if "finished" in told), default=None)
        state = {"started": began, "finished": ended, "state": found.run.state.value}
        standing = {
            "status": list(scene.status(nodes, found.nodes)),
            "times": times,
            "run": {key: value for key, value in state.items() if value is not None},
        }
        return {"graph": graph, "standing": standing}


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from an earlier run, once this one has ended."""

    run: str

    def read(self, look: Look, before: tuple[Run, Comparison] | None) -> tuple[Run, Comparison] | None:
        run: Run = look.found(Following(self.run)).run
        if not run.state.final:
            return None
        # Once: neither it nor what came before it changes any more.
        if before is not None and before[0] == run:
            return before
        return run, changed(look.store, look.artifacts, run)

    def tell(self, found: tuple[Run, Comparison] | None) -> dict[str, Any]:
        return {"changes": {"problem": "It has not ended yet."} if found is None else _changes(found[1])}


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "run": lambda said: Following(text(said["run"]) or ""),
    "graph": lambda said: Graph(text(said["run"]) or ""),
    "changes": lambda said: Changes(text(said["run"]) or ""),
}
ACTS: dict[str, Act] = {}


def _tail(log: list[Output]) -> list[Output]:
    room = TAIL
    for kept, piece in enumerate(reversed(log)):
        room -= len(piece.text)
        if room < 0:
            return log[len(log) - kept :]
    return log


def _details(run: Run, wait: Wait | None) -> dict[str, Any]:
    parameters = [[name, cut(repr(value))] for name, value in list(run.parameters.items())[:PARAMETERS]]
    return row(run) | {
        "version": run.version,
        "notebook": run.notebook,
        "cause": run.cause and run.cause.value,
        "error": cut(run.error or ""),
        "attempts": run.last_attempt,
        "queue": run.policy.queue,
        "priority": run.policy.priority,
        "worker": run.worker,
        "available": seconds(run.available),
        "wait": wait and [wait.reason, seconds(wait.until)],
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
    misfits = [id(node) for node in shown if node.misfits][:TABLES]
    return {
        "all": len(nodes),
        "done": sum(node.state.final for node in nodes),
        "shown": [
            {
                # Two flows of one notebook may have nodes of the same name.
                "name": f"{node.flow}: {node.name}" if len(flows) > 1 else node.name,
                "state": node.state.value,
                "started": seconds(node.started),
                "finished": seconds(node.finished),
                "error": cut(node.error or ""),
                "note": f"reused from {node.reused}" if node.reused else "",
                "waits": [node.limit, seconds(node.until)] if node.limit else None,
                "misfits": node.misfits if id(node) in misfits else None,
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
        "since": row(found.before),
        "changes": told,
        "unshown": len(found.changes) - len(told),
        "same": list(found.same),
        "unknown": list(found.unknown),
    }
