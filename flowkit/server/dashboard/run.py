"""The page of one run: what it is, what its newest attempt has recorded, and what changed since it last succeeded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

from flowkit import scene
from flowkit.artifacts import notebook_path
from flowkit.changes import Comparison
from flowkit.errors import NotFound
from flowkit.events import Event, fold, kernel, usage, with_children
from flowkit.history import LARGEST, changed
from flowkit.model import NodeRun, Run, State, Wait
from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import SHOWN, cut, row, seconds, text
from flowkit.server.files import folders
from flowkit.shelf import Shelf
from flowkit.store import Store

#: Characters of a run's output that are kept for whoever looks at it: its end.
TAIL = 64_000
#: Nodes of one run that are shown; of more, those that failed or are running come first.
NODES = 300
#: Nodes whose rows that do not fit a schema are shown.
TABLES = 5
#: Parameters of one run that are shown.
PARAMETERS = 100
#: Attempts that are told, the newest; files that are listed; seconds between two listings.
TRIES, RESULTS, LISTED = 50, 500, 3.0
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
    children: list[Run] = field(default_factory=list)  #: for which it waits
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
        children = store.children(run.id) if run.waits else []
        if run == self.run and not events and wait == self.wait and children == self.children:
            return self
        steps = self.steps + [event for event in events if event.kind != "output"]
        said = [event for event in events if event.kind == "output"]
        pieces = [Output(place, e.name, str(e.data)[-TAIL:]) for place, e in enumerate(said, start=self.outputs + 1)]
        return Followed(
            run=run,
            nodes=with_children(fold(steps, ended=run.state.final), children),
            children=children,
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
class Try:
    """An attempt of a run, as its events tell it."""

    number: int
    started: float  #: seconds since 1970, as the other
    finished: float | None  #: None: it goes on
    state: State
    error: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """When each was under way, and how it ended."""

    run: str

    def read(self, look: Look, before: tuple[Followed, list[Try]] | None) -> tuple[Followed, list[Try]]:
        followed: Followed = look.found(Following(self.run))
        run = followed.run
        if before is not None and before[0].run == run:
            return before
        known = {one.number: one for one in before[1] if one.finished is not None} if before else {}
        oldest = max(1, run.attempt - TRIES + 1)
        found = [known.get(number) or _try(look.store, run, number) for number in range(oldest, run.attempt)]
        if run.attempt and run.started is not None:
            again = run.state is State.PENDING
            ended = None if run.finished is None else run.finished.timestamp()
            last = _try(look.store, run, run.attempt) if again else None
            state = State.FAILED if again else run.state
            ended = last.finished if last else ended
            found.append(Try(run.attempt, run.started.timestamp(), ended, state, run.error or ""))
        return followed, found

    def tell(self, found: tuple[Followed, list[Try]]) -> dict[str, Any]:
        return {
            "attempts": [
                [one.number, one.started, one.finished, one.state.value, cut(one.error).partition("\n")[0]]
                for one in found[1]
            ]
        }


@dataclass(frozen=True, slots=True)
class Past:
    """An attempt before the newest: its nodes, and the end of what it printed. Nothing of it changes any more."""

    run: str
    attempt: int

    def read(self, look: Look, before: Followed | None) -> Followed:
        run: Run = look.found(Following(self.run)).run
        if not 1 <= self.attempt <= run.attempt:
            raise NotFound(f"run {run.id[:8]} has no attempt {self.attempt}; its newest is {run.attempt}")
        if before is not None:
            return before
        _, events = look.store.events(run.id, attempt=self.attempt)
        said = [event for event in events if event.kind == "output"]
        pieces = [Output(place, e.name, str(e.data)[-TAIL:]) for place, e in enumerate(said, start=1)]
        steps = [event for event in events if event.kind != "output"]
        nodes = fold(steps, ended=True)
        return Followed(replace(run, attempt=self.attempt), nodes, log=_tail(pieces), steps=steps, outputs=len(pieces))

    def tell(self, found: Followed) -> dict[str, Any]:
        log = Log(found.run.id, self.attempt, found.log, found.outputs)
        return {"nodes": _nodes(found.nodes), "usage": _usage(found), "log": log}


@dataclass(frozen=True, slots=True)
class Cell:
    """The cell that a failed run failed in, from its executed notebook."""

    run: str

    def read(self, look: Look, before: tuple[Run, dict[str, Any]] | None) -> tuple[Run, dict[str, Any]]:
        run: Run = look.found(Following(self.run)).run
        if before is not None and before[0] == run:
            return before
        data = look.artifacts.read(notebook_path(run.id, run.attempt)) if run.state is State.FAILED else None
        return run, _failing(data) if data is not None and len(data) <= LARGEST else {}

    def tell(self, found: tuple[Run, dict[str, Any]]) -> dict[str, Any]:
        return {"cell": found[1] or False}


@dataclass(frozen=True, slots=True)
class Files:
    """What its attempts left, and the results of its nodes with what they were made from."""

    run: str

    def read(self, look: Look, before: Any) -> Any:
        followed: Followed = look.found(Following(self.run))
        run = followed.run
        return look.seldom((self, run.attempt, run.state), LISTED, lambda: self._read(look, followed))

    def _read(self, look: Look, followed: Followed) -> dict[str, Any]:
        run = followed.run
        reads = {
            node: list(read)
            for event in followed.steps
            if event.kind == "flow"
            for node, read in event.data["nodes"].items()
        }
        *attempts, kept = folders(run).items()
        left = [
            [int(number), name, size]
            for number, place in reversed(attempts[-TRIES:])
            for name, size in sorted(look.artifacts.sizes(place).items())
        ]
        described = [facts for _, facts in islice(Shelf(look.artifacts, kept[1]).described(), RESULTS + 1)]
        described.sort(key=lambda facts: facts.get("created") or 0)
        results = [
            {
                "node": str(facts.get("node")),
                "reads": reads.get(str(facts.get("node")), []),
                "kind": str(facts.get("kind") or facts.get("format")),
                "file": str(facts.get("file")),
                "bytes": facts.get("size"),
                "attempt": facts.get("attempt"),
            }
            for facts in described[:RESULTS]
        ]
        return {"left": left[:RESULTS], "results": results, "more": len(described) > RESULTS}

    def tell(self, found: dict[str, Any]) -> dict[str, Any]:
        return {"files": found}


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs from an earlier run, once this one has ended."""

    run: str
    other: str | None = None  #: None: the last that succeeded before it

    def read(self, look: Look, before: tuple[Run, Comparison] | None) -> tuple[Run, Comparison] | None:
        run: Run = look.found(Following(self.run)).run
        if not run.state.final:
            return None
        # Once: neither it nor what came before it changes any more.
        if before is not None and before[0] == run:
            return before
        other = None if self.other is None else look.store.run(self.other)
        return run, changed(look.store, look.artifacts, run, other)

    def tell(self, found: tuple[Run, Comparison] | None) -> dict[str, Any]:
        return {"changes": {"problem": "It has not ended yet."} if found is None else _changes(found[1])}


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "run": lambda said: Following(text(said["run"]) or ""),
    "graph": lambda said: Graph(text(said["run"]) or ""),
    "changes": lambda said: Changes(text(said["run"]) or "", text(said.get("other"))),
    "attempts": lambda said: Attempts(text(said["run"]) or ""),
    "past": lambda said: Past(text(said["run"]) or "", int(said["attempt"])),
    "cell": lambda said: Cell(text(said["run"]) or ""),
    "files": lambda said: Files(text(said["run"]) or ""),
}
ACTS: dict[str, Act] = {}


def _tail(log: list[Output]) -> list[Output]:
    room = TAIL
    for kept, piece in enumerate(reversed(log)):
        room -= len(piece.text)
        if room < 0:
            return log[len(log) - kept :]
    return log


def _try(store: Store, run: Run, number: int) -> Try:
    """One that is over."""
    events = store.events(run.id, attempt=number, output=False)[1]
    times = [event.at for event in events]
    failed = next((event for event in events if event.state is State.FAILED), None)
    error = "" if failed is None else f"{failed.name}: {failed.error or ''}"
    return Try(number, min(times, default=0.0), max(times, default=0.0), State.FAILED, error)


def _failing(notebook: bytes) -> dict[str, Any]:
    """Its source, its count, and the end of the traceback; empty if there is none, or it cannot be read."""
    try:
        for cell in json.loads(notebook)["cells"]:
            broken = next((one for one in cell.get("outputs", ()) if one["output_type"] == "error"), None)
            if broken is not None:
                source, trace = ("".join(cell["source"]), "\n".join(map(str, broken["traceback"])))
                return {"count": cell.get("execution_count"), "source": cut(source), "trace": trace[-SHOWN:]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return {}


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
                "child": node.child,
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
