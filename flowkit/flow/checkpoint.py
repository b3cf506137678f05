"""Results of nodes, kept as they are made and found again: by later attempts of a run, and by whoever shares a cache.

Within a run a result's key is made of code, parameters and the keys of what it reads: nothing that was kept is read to
make a key. A cache outlives its run, and what a node reads from a file or a database may have changed meanwhile: there
a key is made of code and the content of what it reads.

A result is kept before the next node is given it, which may change it.
"""

from __future__ import annotations

import io
import json
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any

from flowkit.artifacts import Artifacts
from flowkit.config import Config
from flowkit.errors import explain
from flowkit.flow import formats, identity
from flowkit.flow.current import current_run
from flowkit.flow.graph import Wired
from flowkit.flow.outcome import Outcome
from flowkit.flow.progress import Step
from flowkit.flow.secrets import untold
from flowkit.flow.work import known
from flowkit.model import epoch
from flowkit.shelf import CACHE, KEEP, Damaged, Shelf, kept_path, stem


@dataclass(frozen=True, slots=True)
class Found:
    value: Any


@dataclass(slots=True)
class Place:
    """The results of one run, and what this kernel may do with them."""

    shelf: Shelf
    run: str
    attempt: int = 0  #: of this kernel; 0: of a person, who only reads
    limit: int | None = None  #: bytes, for all of the run's results

    @property
    def writing(self) -> bool:
        return self.attempt > 0


#: Of a person who resumes a run in their own notebook, see ``resume``.
_resumed: Place | None = None

#: How often this kernel has come to a key: a notebook may run its flow twice, and each time is a time of its own.
_times: dict[str, int] = {}
_counting = threading.Lock()


def resume(shelf: Shelf, run: str) -> None:
    """From now on flows of this process take what that run has kept."""
    global _resumed
    _resumed = Place(shelf, run)


def keeping(outcome: Outcome, values: Mapping[str, Any], *, afresh: frozenset[str]) -> Keeping | None:
    """What keeps the results of this run of a flow; None where nothing is to be kept or found.

    Args:
        values: of parameters, and of nodes as they come in.
        afresh: nodes that are to be computed though there may be a result.
    """
    place, artifacts = _place()
    cached = any(wired.node.cache is not None for wired in outcome.graph.nodes)
    if place is None and not cached:
        return None
    artifacts = artifacts or Artifacts(Config.from_env().artifacts_url)
    return Keeping(outcome, values, place, Shelf(artifacts, CACHE) if cached else None, afresh)


def _place() -> tuple[Place | None, Artifacts | None]:
    folder = Config.from_env().run_folder
    run = current_run()
    if folder is None or run is None:
        return _resumed, None
    try:
        told = json.loads(Path(folder, KEEP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, None
    artifacts = Artifacts(told["url"])
    return Place(Shelf(artifacts, kept_path(run.id)), run.id, run.attempt, told["limit"]), artifacts


_UNTOLD = "cannot be told from another, so what depends on it is computed again"


class Keeping:
    """One run of a flow. ``find`` is asked before a step is called, ``keep`` is told what came of it; neither raises:
    what cannot be kept is said once, and computed again next time."""

    def __init__(
        self,
        outcome: Outcome,
        values: Mapping[str, Any],
        place: Place | None,
        cache: Shelf | None,
        afresh: frozenset[str],
    ) -> None:
        self._outcome = outcome
        self._graph = outcome.graph
        self._wired = {wired.node.name: wired for wired in outcome.graph.nodes}
        self._values = values  # of parameters, nodes and outputs, filled as the flow runs
        self._place = place
        self._cache = cache
        self._afresh = afresh
        self._began: dict[str, float] = {}  # step -> when it was last looked for, monotonic
        self._said: set[str] = set()
        self._work = outcome.work
        self._keys: dict[str, str | None] = {}  # node -> key within the run
        self._kept: set[str] = set()  # nodes whose results the run has: their key says it all
        self._contents: dict[str, str | None] = {}  # node or output -> digest of its content
        self._stems: dict[str, str] = {}  # step -> what its files are called, once it was looked for
        self._cache_keys: dict[str, str] = {}  # step -> key in the cache
        self._size = 0
        self._known: set[str] = set()
        for what, why in self._work.unknown.items():
            self._say(what, f"{_UNTOLD}: {why}")
        if place is not None:
            try:
                if place.attempt != 1:
                    self._known = place.shelf.stems()
                if place.writing:
                    self._size = place.shelf.size() if place.attempt != 1 else 0
                    self._keep_plan(place, values)
            except Exception as error:
                self._say("the run", f"nothing can be kept: {explain(error)}")

    # -- finding ------------------------------------------------------------------------------------------------------

    def find(self, step: Step, arguments: Mapping[str, Any]) -> Found | None:
        """A result of this very computation, if there is one."""
        found = None
        try:
            found = self._find(step, arguments)
        except Exception as error:  # nothing that goes wrong here is the node's failure
            self._say(
                step.wired.node.name, f"its kept result cannot be used, so it is computed again: {explain(error)}"
            )
        self._began[step.name] = monotonic()
        return found

    def _find(self, step: Step, arguments: Mapping[str, Any]) -> Found | None:
        if step.attempt > 1:  # it was looked for
            return None
        node = step.wired.node
        key = self._run_key(step) if self._place is not None else None
        if self._place is not None and node.checkpoint and key is not None:
            name = self._stems[step.name] = self._numbered(node.name, key)
            if (
                name in self._known
                and node.name not in self._afresh
                and (found := self._load(self._place.shelf, name, step)) is not None
            ):
                self._note(step, name, found[0])
                return Found(found[1])
        if self._cache is not None and node.cache is not None:
            return self._find_cached(self._cache, step, arguments, node.cache)
        return None

    def _find_cached(self, cache: Shelf, step: Step, arguments: Mapping[str, Any], lifetime: float) -> Found | None:
        key = self._cache_key(step, arguments)
        if key is None:
            return None
        name = self._cache_keys[step.name] = stem(step.wired.node.name, key)
        facts = None if step.wired.node.name in self._afresh else cache.facts(name)
        if facts is None or epoch() - facts["created"] > lifetime or (found := self._load(cache, name, step)) is None:
            return None
        facts, value = found
        origin = facts["run"]
        told = f"run {origin[:8]}" if origin else "the cache"
        self._contents[step.name] = facts["digest"]
        self._outcome.notes[step.name] = {"reused": told}
        if self._place is not None and self._place.writing and step.name in self._stems:
            self._put(self._place.shelf, self._stems[step.name], step, value, facts["seconds"], note=True)
        return Found(value)

    def _load(self, shelf: Shelf, name: str, step: Step) -> tuple[dict[str, Any], Any] | None:
        facts = shelf.facts(name)
        if facts is None:
            return None
        try:
            with shelf.open(facts) as file:
                value = formats.read(facts["format"], file)
        except Exception as error:  # unpickling runs whatever the author's classes do
            reason = str(error) if isinstance(error, Damaged) else explain(error)
            self._say(step.name, f"its kept result cannot be read, so it is computed again: {reason}")
            shelf.drop(name)
            return None
        if step.index is None:
            self._kept.add(step.name)
        return facts, value

    # -- keeping ------------------------------------------------------------------------------------------------------

    def keep(self, step: Step, value: Any) -> None:
        """Keep what a step has returned."""
        seconds = monotonic() - self._began[step.name]
        if self._place is not None and self._place.writing and step.name in self._stems:
            self._put(self._place.shelf, self._stems[step.name], step, value, seconds, note=True)
        if self._cache is not None and step.name in self._cache_keys:
            facts = self._put(self._cache, self._cache_keys[step.name], step, value, seconds, note=False)
            if facts is not None:
                self._contents[step.name] = facts["digest"]

    def _put(
        self, shelf: Shelf, name: str, step: Step, value: Any, seconds: float, *, note: bool
    ) -> dict[str, Any] | None:
        node = step.wired.node
        limit = self._place.limit if self._place is not None and note else None
        if limit is not None and self._size >= limit:
            self._say("the run", f"has kept {self._size / 1e6:,.0f} MB, which is the limit: nothing more is kept of it")
            return None

        if self._tells(node.name, value):
            return None

        def write(file: IO[bytes]) -> dict[str, Any]:
            written = formats.write(value, file)
            return {"format": written.name, "suffix": written.suffix} | about | formats.described(value, seconds)

        about = {
            "node": step.name,
            "flow": self._outcome.flow,
            "run": self._place.run if self._place and self._place.writing else None,
            "attempt": self._place.attempt if self._place else 0,
            "created": epoch(),
            "seconds": seconds,
            "lifetime": node.cache,
            "cached": self._cache_keys.get(step.name),
        }
        try:
            facts = shelf.keep(name, write)
            if (page := formats.picture(value)) is not None:
                shelf.beside(f"{name}.png", page)
        except Exception as error:  # pickling runs whatever the author's classes do
            again = "" if note else " by others"
            self._say(node.name, f"its result cannot be kept, so it is computed again{again}: {explain(error)}")
            return None
        if note:
            with _counting:
                self._size += facts["size"]
            self._outcome.notes[step.name] = {"kept": name, "profile": _profile(facts)} | (
                self._outcome.notes.get(step.name) or {}
            )
            if step.index is None:
                self._kept.add(step.name)
        return facts

    def _keep_plan(self, place: Place, values: Mapping[str, Any]) -> None:
        """What each node was given, for who opens the run."""
        nodes = {
            wired.node.name: {
                "inputs": dict(wired.inputs),
                "outputs": list(wired.node.outputs),
                "map": list(wired.node.map),
                "constants": {name: value for name, value in wired.fixed.items() if _can_be_kept(value)},
            }
            for wired in self._graph.nodes
        }
        plan = {"nodes": nodes, "parameters": {name: value for name, value in values.items() if _can_be_kept(value)}}

        def write(file: IO[bytes]) -> dict[str, Any]:
            written = formats.write(plan, file)
            return {"format": written.name, "suffix": written.suffix}

        place.shelf.keep(plan_stem(self._outcome.flow), write)

    def _tells(self, node: str, value: Any) -> bool:
        """Whether the value of a secret is in it, or may be: then it is not to be kept."""
        why = untold(value)
        if why is not None:
            self._say(node, f"its result {why}, so it is not kept")
        return why is not None

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _numbered(self, node: str, key: str) -> str:
        assert self._place is not None
        if not self._place.writing:
            return stem(node, key)  # a person runs their flow as often as they like
        with _counting:
            time = _times[key] = _times.get(key, -1) + 1
        return stem(node, identity.of_parts(key, str(time)) if time else key)

    def _run_key(self, step: Step) -> str | None:
        key = self._node_key(step.wired)
        return key if key is None or step.index is None else identity.of_parts(key, str(step.index))

    def _node_key(self, wired: Wired) -> str | None:
        name = wired.node.name
        if name not in self._keys:
            self._keys[name] = self._work.made_of(wired, [self._identity(source) for _, source in wired.inputs])
        return self._keys[name]

    def _identity(self, source: str) -> str | None:
        """What stands for a parameter's or a node's value in the keys of those that read it, within the run."""
        if source in self._work.given:
            return self._work.given[source]
        node = self._graph.node(source)
        key = self._node_key(self._wired[node.name])
        if node.name in self._kept or node.map:
            return None if key is None else identity.of_parts(key, source)
        # It is computed again by every attempt: that it comes out the same is seen by looking, where one can look.
        content = self._content(source, quiet=key is not None)
        return content or (None if key is None else identity.of_parts(key, source))

    def _cache_key(self, step: Step, arguments: Mapping[str, Any]) -> str | None:
        node = step.wired.node
        given = self._work.given
        content: list[str | None] = []
        for parameter, source in step.wired.inputs:
            if parameter in node.map:
                content.append(self._identified(step.name, arguments[parameter]))
            else:
                content.append(given[source] if source in given else self._content(source))
        return self._work.made_of(step.wired, content)

    def _content(self, source: str, *, quiet: bool = False) -> str | None:
        node = self._graph.node(source)
        whole = self._contents.get(node.name)
        if whole is not None and source != node.name:
            return identity.of_parts(whole, *node.outputs, source)
        if source not in self._contents:
            self._contents[source] = self._identified(node.name, self._values[source], quiet=quiet)
        return self._contents[source]

    def _identified(self, step: str, value: Any, *, quiet: bool = False) -> str | None:
        unknown: dict[str, str] = {}
        found = known(lambda: identity.of_value(value), unknown, step)
        for what, why in {} if quiet else unknown.items():
            self._say(what, f"{_UNTOLD}: {why}")
        return found

    # -- telling ------------------------------------------------------------------------------------------------------

    def _note(self, step: Step, name: str, facts: Mapping[str, Any]) -> None:
        assert self._place is not None
        told = f"attempt {facts['attempt']}" if self._place.writing else f"run {(facts['run'] or '')[:8]}"
        self._outcome.notes[step.name] = {"kept": name, "reused": told, "profile": _profile(facts)}

    def _say(self, what: str, text: str) -> None:
        """Once; it goes to the notebook's output."""
        if what not in self._said:
            self._said.add(what)
            what = what if " " in what else f"node {what!r}"
            warnings.warn(f"{self._outcome.flow}: {what}: {text}", RuntimeWarning, stacklevel=2)


def _profile(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": facts["kind"], **facts["profile"]}


def plan_stem(flow: str) -> str:
    """What the description of a flow's run is called among the results."""
    return stem("-flow", identity.of_parts(flow))


def _can_be_kept(value: Any) -> bool:
    try:
        formats.write(value, io.BytesIO())
        return untold(value) is None
    except Exception:  # such as a connection
        return False
