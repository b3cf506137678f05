"""How far a run has come: which step is next, what became of each, and what is skipped because of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from flowkit.errors import explain
from flowkit.events import Event
from flowkit.flow import formats
from flowkit.flow.graph import Wired
from flowkit.flow.limits import Gate
from flowkit.flow.log import Log
from flowkit.flow.outcome import Outcome
from flowkit.flow.schema import SchemaBroken
from flowkit.model import State, epoch

if TYPE_CHECKING:
    from flowkit.flow.checkpoint import Found, Keeping
    from flowkit.flow.child import Children
    from flowkit.flow.spans import Spans


@dataclass(slots=True, eq=False)
class Step:
    """One call that is due: a node, or one item of a mapped node."""

    wired: Wired
    name: str
    arguments: Mapping[str, Any] | None = None  #: of an item; a node's are looked up when it starts
    index: int | None = None  #: of an item
    attempt: int = 1
    held: bool = False  #: it waits for its limit
    began: float = 0.0  #: when it started last, by the monotonic clock; of nodes whose profile may be told
    found: Found | None = None  #: its kept result, looked for before it asked its limit


@dataclass(slots=True)
class Gathering:
    """The results of a mapped node, as they come in."""

    results: list[Any]
    missing: int
    waits: bool = False  #: for an item that is a run of its own
    failed: dict[int, str] = field(default_factory=dict)
    profiles: formats.Items = field(default_factory=formats.Items)


class Progress:
    """How far a run has come. Every change of state goes through here, under one lock, from whichever thread.

    ``start`` gives the arguments to call a step with; ``succeed`` and ``fail`` take what came of it and give what has
    become ready, the next for the same thread first.
    """

    def __init__(
        self,
        outcome: Outcome,
        values: dict[str, Any],
        log: Log | None,
        keeping: Keeping | None = None,
        gate: Gate | None = None,
        children: Children | None = None,
        spans: Spans | None = None,
    ) -> None:
        graph, due = outcome.graph, outcome.due
        self._outcome = outcome
        self._remember = outcome.records.append
        self._values = values  # of parameters, nodes and outputs, by name
        self._states = outcome.states
        if due is None:
            self._waits = [len(wired.reads) for wired in graph.nodes]
            self._unfinished = len(graph.nodes)
        else:
            values |= outcome.results
            self._waits = [sum(one.node.name in due for one in wired.reads) for wired in graph.nodes]
            self._unfinished = len(due)
        self._gathering: dict[str, Gathering] = {}
        self._running: dict[str, int] = {}  # name of node or item -> attempt
        self._lock = threading.Lock()
        self._log = log
        self.keeping = keeping  #: where results may be found instead of computed; None: nowhere
        self.lines = outcome.lines
        self._gate = gate
        self.spans = spans  #: where the run is traced; None: it is not
        self.children = children  #: who knows what has become of nodes that are notebooks; None: they run here
        self.waiting: set[str] = set()  #: nodes that wait for such, and those that read them
        self.stopped = False
        self.cancelled = threading.Event()
        #: Called once *cancelled* is set, by whichever thread sets it; a runner that waits for something else is woken.
        self.wake: Callable[[], None] = lambda: None
        if log:
            log.add(Event("flow", outcome.started, flow=outcome.flow, data={"nodes": graph.reads}))
            for record in outcome.records:  # of nodes that are not run again: whoever follows the log begins anew here
                log.add(outcome.event(record))
            log.flush()

    def done(self) -> bool:
        return self._unfinished == 0

    def begin(self) -> list[Step]:
        """What is ready before anything has run."""
        due = self._outcome.due
        return [
            Step(wired, wired.node.name)
            for wired in self._outcome.graph.order
            if not self._waits[wired.place] and (due is None or wired.node.name in due)
        ]

    def hold(self, step: Step) -> float | None:
        """Seconds after which a step that names a limit is to try again; None: it may start.

        Raises: LimitClosed, or UsageError if the limit is gone.
        """
        limit, gate = step.wired.node.limit, self._gate
        if limit is None or gate is None or (step.wired.node.map and step.index is None):
            return None
        if self.stopped or self.cancelled.is_set():
            return None
        if self.keeping is not None and not step.held:  # what is at hand needs no call
            step.found = self.keeping.find(step, step.arguments or self._arguments(step))
            if step.found is not None:
                return None
        pause = gate.ask(limit, again=step.held)
        step.held = pause is not None
        if self._log and pause is not None:
            waits = {"limit": limit, "until": epoch() + pause}
            flow = self._outcome.flow
            event = Event("node", epoch(), step.name, flow, State.PENDING, attempt=step.attempt, data=waits)
            self._log.add(event)
            self._log.flush()
        return pause

    def tell(self, step: Step, error: str | None) -> None:
        """How the call of a step went that names a limit."""
        if self._gate is not None and step.wired.node.limit is not None and not self.stopped:
            self._gate.tell(step.wired.node.limit, error)

    def start(self, step: Step) -> Mapping[str, Any] | None:
        """The arguments for this step, now running; None if nothing may start any more."""
        with self._lock:
            if self.stopped or self.cancelled.is_set():
                return None
            if step.index is None:
                self._states[step.name] = State.RUNNING
            self._running[step.name] = step.attempt
            if step.attempt > 1:
                self._outcome.again.pop(step.name, None)
            self._record(step.name, State.RUNNING, None, step.attempt)
        if self._log:
            self._log.flush()
            step.began = monotonic()
        if step.arguments is not None:
            return step.arguments
        return self._arguments(step)

    def _arguments(self, step: Step) -> Mapping[str, Any]:
        values = self._values
        arguments = {parameter: values[source] for parameter, source in step.wired.inputs}
        return {**step.wired.fixed, **arguments} if step.wired.fixed else arguments

    def spread(self, step: Step, arguments: Mapping[str, Any]) -> list[Step]:
        """The items of a mapped node, or what is ready after it if it has none."""
        node = step.wired.node
        try:
            columns = [_listed(node.name, port, arguments[port]) for port in node.map]
            rows = list(zip(*columns, strict=True))
        except Exception as error:  # an author's iterable is the author's code
            return self.fail(step, error)
        self._gathering[node.name] = Gathering([None] * len(rows), len(rows))
        self._outcome.counts[node.name] = 0, len(rows)
        if not rows:
            return self._gathered(step.wired)
        return [
            Step(step.wired, node.item(index), {**arguments, **dict(zip(node.map, row, strict=True))}, index)
            for index, row in enumerate(rows)
        ]

    def succeed(self, step: Step, value: Any) -> list[Step]:
        if step.wired.node.outputs:
            try:
                parts = step.wired.node.split(value)
            except (TypeError, ValueError) as error:
                return self.fail(step, error)
        else:
            parts = ()
        if step.index is not None:
            self._describe_item(step, value)
        elif self._log:
            self._describe(step, value)
        with self._lock:
            if self.stopped:
                return []
            self._ended(step, State.SUCCEEDED)
            if step.index is None:
                return self._settle(step.wired, value, parts)
            gathering = self._gathering[step.wired.node.name]
            gathering.results[step.index] = value
            last = self._count(step, gathering)
        return self._gathered(step.wired) if last else []

    def fail(self, step: Step, error: BaseException, *, reason: str | None = None) -> list[Step]:
        """Always an empty list: nothing becomes ready by a failure.

        Args:
            reason: what to say instead of the error itself, on one line.
        """
        reason = reason or explain(error)
        with self._lock:
            if self.stopped:
                return []
            self._tell_rows(step, error)
            self._ended(step, State.FAILED, reason)
            self._outcome.errors[step.name] = error
            self._outcome.reasons[step.name] = reason
            if step.index is None:
                self._give_up(step.wired)
                return []
            gathering = self._gathering[step.wired.node.name]
            gathering.failed[step.index] = reason
            last = self._count(step, gathering)
        return self._gathered(step.wired) if last else []

    def postpone(self, step: Step, parameters: Mapping[str, Any] | None = None) -> list[Step]:
        """The step waits for its child, in a later attempt: an empty list, as nothing becomes ready.

        Args:
            parameters: of the child, if it is to be asked for now.
        """
        assert self.children is not None
        node = step.wired.node
        told: dict[str, Any] = {"child": self.children.id(step.name)}
        if parameters is not None:
            assert node.child is not None
            ask = {"notebook": node.child.target, "parameters": parameters, "timeout": node.timeout}
            told["ask"] = ask | ({"retries": node.retries, "backoff": node.delay} if node.retries else {})
        with self._lock:
            if self.stopped:
                return []
            self._running.pop(step.name, None)
            if self._log:
                self._log.add(Event("node", epoch(), step.name, self._outcome.flow, State.PENDING, data=told))
            if step.index is None:
                self._postpone(step.wired)
                last = False
            else:
                gathering = self._gathering[node.name]
                gathering.waits = True
                last = self._count(step, gathering)
        if last:
            self._gathered(step.wired)
        return []

    def note_child(self, step: Step) -> None:
        """The step is a run of its own, which the event of its ending tells."""
        if self.children is not None:
            told = {"child": self.children.id(step.name)}
            for notes in (self._outcome.notes, self._outcome.misses):
                notes[step.name] = {**(notes.get(step.name) or {}), **told}

    def retry(self, step: Step, error: BaseException) -> float | None:
        """Seconds until its next attempt, with its failure recorded; None if it had its last, and is still to fail."""
        node = step.wired.node
        if step.attempt > node.retries or (node.map and step.index is None):
            return None
        with self._lock:
            if self.stopped:
                return None
            pause = node.delay * 2.0 ** (step.attempt - 1)
            self._outcome.again[step.name] = epoch() + pause
            self._tell_rows(step, error)
            self._ended(step, State.FAILED, explain(error))
        self.flush()
        step.attempt += 1
        return pause

    def cancel(self) -> None:
        """By any thread: no step starts any more, and the runner returns without waiting for those that run."""
        self.cancelled.set()
        self.wake()

    def stop(self) -> None:
        """Nothing starts any more, and what still runs is not waited for."""
        why = "cancelled" if self.cancelled.is_set() else "interrupted"
        with self._lock:
            self.stopped = True
            for name in self._outcome.again:  # it waited for its next attempt
                self._running.setdefault(name, 1)
            self._outcome.again.clear()
            for name, attempt in list(self._running.items()):
                if name in self._states:
                    self._states[name] = State.CANCELLED
                self._record(name, State.CANCELLED, why, attempt)
            for name, state in self._states.items():
                if state is State.PENDING and (self._outcome.due is None or name in self._outcome.due):
                    self._states[name] = State.SKIPPED
                    self._record(name, State.SKIPPED, f"{why} before it started", 1)
        self.flush()

    def flush(self) -> None:
        if self._log:
            self._log.flush()

    def _describe(self, step: Step, value: Any) -> None:
        """Tell of a node's result what it is, unless whoever kept it has done so."""
        note = self._outcome.notes.setdefault(step.name, {})
        if "profile" not in note:
            seconds = monotonic() - step.began
            with suppress(Exception):  # an author's object may raise anything when it is looked at
                note["profile"] = {"kind": formats.kind_of(value), **formats.profile(value, seconds)}

    def _tell_rows(self, step: Step, error: BaseException) -> None:
        """Those that did not fit a schema are in the event of the failure."""
        gathered = step.wired.node.map and step.index is None  # its item has told
        if isinstance(error, SchemaBroken) and error.rows and not gathered:
            self._outcome.misses.setdefault(step.name, {})["rows"] = error.rows

    def _describe_item(self, step: Step, value: Any) -> None:
        """An item's profile goes into its node's, and into no event: there may be thousands."""
        told = self._outcome.notes.get(step.name, {}).pop("profile", None)
        if self._log:
            profiles = self._gathering[step.wired.node.name].profiles
            with suppress(Exception):  # an author's object may raise anything when it is looked at
                if told:
                    profiles.add(told)
                else:
                    profiles.look(value, monotonic() - step.began)

    def _record(self, name: str, state: State, error: str | None, attempt: int) -> None:
        record = (epoch(), name, state, error, attempt)
        self._remember(record)
        if self._log:
            self._log.add(self._outcome.event(record))

    def _count(self, step: Step, gathering: Gathering) -> bool:
        """One item has ended: whether it was the last."""
        gathering.missing -= 1
        count = len(gathering.results)
        self._outcome.counts[step.wired.node.name] = count - gathering.missing, count
        return not gathering.missing

    def _ended(self, step: Step, state: State, error: str | None = None) -> None:
        self._running.pop(step.name, None)
        if step.index is None:
            self._states[step.name] = state
        self._record(step.name, state, error, step.attempt)

    def _settle(self, wired: Wired, value: Any, parts: tuple[Any, ...]) -> list[Step]:
        node = wired.node
        self._values[node.name] = self._outcome.results[node.name] = value
        for name, part in zip(node.outputs, parts, strict=True):
            self._values[name] = self._outcome.results[name] = part
        self._unfinished -= 1
        ready = []
        waits = self._waits
        for reader in wired.readers:
            place = reader.place
            waits[place] -= 1
            if not waits[place] and self._states[reader.node.name] is State.PENDING:
                ready.append(Step(reader, reader.node.name))
        return ready

    def _gathered(self, wired: Wired) -> list[Step]:
        """A mapped node has all its items."""
        node = wired.node
        gathering = self._gathering.pop(node.name)
        step = Step(wired, node.name)
        if gathering.waits:
            with self._lock:
                self._running.pop(node.name, None)
                if self._log:
                    self._log.add(Event("node", epoch(), node.name, self._outcome.flow, State.PENDING))
                self._postpone(wired)
            return []
        if not gathering.failed:
            try:
                split = [node.split(value) for value in gathering.results] if node.outputs else []
            except (TypeError, ValueError) as error:
                return self.fail(step, error)
            columns = tuple([row[place] for row in split] for place in range(len(node.outputs)))
            if self._log:
                self._outcome.notes[node.name] = {"profile": gathering.profiles.told(len(gathering.results), 0)}
            with self._lock:
                if self.stopped:
                    return []
                self._ended(step, State.SUCCEEDED)
                return self._settle(wired, gathering.results, columns)
        if self._log:
            told = gathering.profiles.told(len(gathering.results), len(gathering.failed))
            self._outcome.misses[node.name] = {"profile": told}
        index = min(gathering.failed)
        count = f"{len(gathering.failed)} of {len(gathering.results)} items failed"
        reason = f"{node.item(index)} failed: {gathering.failed[index]}; {count}"
        return self.fail(step, self._outcome.errors[node.item(index)], reason=reason)

    def _postpone(self, wired: Wired) -> None:
        """Neither it nor what reads it, directly or not, ends in this attempt."""
        waiting = deque([wired])
        while waiting:
            one = waiting.popleft()
            name = one.node.name
            if name in self.waiting or self._states[name] not in (State.PENDING, State.RUNNING):
                continue
            self._states[name] = State.PENDING
            self.waiting.add(name)
            self._unfinished -= 1
            waiting.extend(one.readers)

    def _give_up(self, wired: Wired) -> None:
        """Skip all that would have read it, directly or not. What already waits for another failure stays as it is."""
        cause = wired.node.name
        self._unfinished -= 1
        text = f"node {cause!r} failed"
        doomed = deque(wired.readers)
        while doomed:
            one = doomed.popleft()
            name = one.node.name
            if self._states[name] is not State.PENDING or name in self.waiting:
                continue
            self._states[name] = State.SKIPPED
            self._outcome.causes[name] = cause
            self._unfinished -= 1
            self._record(name, State.SKIPPED, text, 1)
            doomed.extend(one.readers)


def _listed(node: str, port: str, value: Any) -> list[Any]:
    if isinstance(value, str | bytes):
        raise TypeError(f"{node!r} maps over {port!r}, which is a {type(value).__name__}; give it a list")
    return list(value)
