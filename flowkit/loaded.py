"""A run opened in its author's own notebook: its results, what a node was given, and the flow going on from there.

Here results are unpickled, so it belongs in a kernel. The command line writes a notebook that calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from flowkit.artifacts import Artifacts
from flowkit.client import Client
from flowkit.config import Config
from flowkit.errors import NotFound, UsageError, did_you_mean
from flowkit.events import Event, fold
from flowkit.flow import checkpoint, formats
from flowkit.flow.current import current_run
from flowkit.model import NodeRun, Run, State
from flowkit.shelf import Shelf, kept_path


class Loaded:
    """One run: ``run["clean"]`` is what its node ``clean`` gave, in whichever attempt."""

    def __init__(self, run: Run, attempts: list[list[Event]], artifacts: Artifacts) -> None:
        """
        Args:
            attempts: the events of each, the newest first.
        """
        self.run = run
        self.params: dict[str, Any] = dict(run.parameters)  #: that the run was given; others had their defaults
        self.nodes: list[NodeRun] = []  #: as the newest attempt that came to a flow left them
        self._shelf = Shelf(artifacts, kept_path(run.id))
        self._kept: dict[str, str] = {}  # node or item -> under which name its result is kept
        self._flows: dict[str, str] = {}  # node -> its flow
        self._done: set[str] = set()  # nodes that have succeeded in some attempt
        for events in attempts:
            nodes = [node for node in fold(events, ended=True) if node.flow]
            self.nodes = self.nodes or nodes
            for node in nodes:
                self._flows.setdefault(node.name, node.flow)
                if node.state is State.SUCCEEDED:
                    self._done.add(node.name)
                if node.kept:
                    self._kept.setdefault(node.name, node.kept)
        self._plans: dict[str, Mapping[str, Any]] = {}
        self._values: dict[str, Any] = {}

    @property
    def failed(self) -> str | None:
        """The first node that failed; None if none did."""
        return next((node.name for node in self.nodes if node.state is State.FAILED and "[" not in node.name), None)

    @property
    def misfits(self) -> dict[str, list[dict[str, Any]]]:
        """The first rows that did not fit their schemas, by node or item: ``pd.DataFrame(run.misfits["late"])``."""
        return {
            node.name: [dict(zip(node.misfits["columns"], row, strict=True)) for row in node.misfits["values"]]
            for node in self.nodes
            if node.misfits
        }

    def __getitem__(self, name: str) -> Any:
        """The result of a node, an item or an output. Loaded once, and not copied."""
        if name not in self._values:
            self._values[name] = self._load(name)
        return self._values[name]

    def results(self) -> dict[str, Any]:
        """Every node's result that there is."""
        found = {}
        for name in self._finished():
            with suppress(NotFound):
                found[name] = self[name]
        return found

    def inputs(self, node: str) -> dict[str, Any]:
        """What a node was given, or would have been: parameter -> value. Of a mapped one the whole list.

        What was not kept, such as the result of a node with ``checkpoint=False``, is left out.
        """
        flow = self._flows.get(node)
        if flow is None:
            raise NotFound(f"no node of run {self.run.id[:8]} is called {node!r}{did_you_mean(node, self._flows)}")
        plan = self._plan(flow)
        wired = plan["nodes"][node]
        parameters = plan["parameters"]
        given = dict(wired["constants"])
        for name, source in wired["inputs"].items():
            with suppress(NotFound):
                given[name] = parameters[source] if source in parameters else self[source]
        return given

    def resume(self) -> None:
        """From now on, a flow of this notebook takes what the run has kept, as another attempt of it would, and
        computes the rest. What is computed here is not added to the run."""
        checkpoint.resume(self._shelf, self.run.id)

    def __repr__(self) -> str:
        there = ", ".join(self._finished()) or "none"
        how = f"{self.run.state}" + (f" in {self.failed!r}" if self.failed else "")
        why = f": {self.run.error}" if self.run.error else ""
        rows = "".join(f"\nmisfits of {name}: {rows[:3]}" for name, rows in self.misfits.items())
        return f"run {self.run.id[:8]} of {self.run.label}, {how}{why}\nresults: {there}{rows}"

    def _finished(self) -> Iterator[str]:
        mapped = {name.partition("[")[0] for name in self._kept if "[" in name} & self._done
        yield from (name for name in self._flows if "[" not in name and (name in self._kept or name in mapped))

    def _load(self, name: str) -> Any:
        kept = self._kept.get(name)
        if kept is not None:
            return self._read(kept, name)
        items = [key for key in self._kept if key.startswith(f"{name}[")]
        if items and name in self._done:
            count = 1 + max(int(key[len(name) + 1 : -1]) for key in items)
            return [self[f"{name}[{index}]"] for index in range(count)]
        for flow in dict.fromkeys(self._flows.values()):
            for node, wired in self._plan(flow)["nodes"].items():
                if name in wired["outputs"]:
                    return self._part(self[node], wired, name)
        known = [*self._flows, *self.params]
        if name in self._flows:
            raise NotFound(f"run {self.run.id[:8]} has kept no result of {name!r}; run.resume() computes it again")
        raise NotFound(f"no node of run {self.run.id[:8]} is called {name!r}{did_you_mean(name, known)}")

    @staticmethod
    def _part(value: Any, wired: Mapping[str, Any], name: str) -> Any:
        def of(one: Any) -> Any:
            return one[name] if isinstance(one, dict) else one[wired["outputs"].index(name)]

        return [of(one) for one in value] if wired["map"] else of(value)

    def _plan(self, flow: str) -> Mapping[str, Any]:
        if flow not in self._plans:
            self._plans[flow] = self._read(checkpoint.plan_stem(flow), f"flow {flow!r}")
        return self._plans[flow]

    def _read(self, stem: str, what: str) -> Any:
        facts = self._shelf.facts(stem)
        if facts is None:
            raise NotFound(f"run {self.run.id[:8]} no longer has what it kept of {what}")
        with self._shelf.open(facts) as file:
            return formats.read(facts["format"], file)


def load_run(run: str) -> Loaded:
    """Open a run of the store: its parameters, results, and what each node was given.

    ``run = fk.load_run("4c0a9a3e")``; ``run["clean"]``, ``run.inputs("clean")``, ``run.params``, ``run.resume()``.
    """
    if current_run() is not None:
        raise UsageError(f"a run cannot load {run}: kernels have no access to the store; do it from a notebook")
    with Client(Config.from_env()) as client:
        found = client.store.run(run)
        attempts = [client.store.events(found.id, attempt=one, output=False)[1] for one in range(found.attempt, 0, -1)]
        return Loaded(found, attempts, client.artifacts)
