"""The children of one attempt: what its nodes may run, what they have run already, and the runs they ask for.

The kernel knows no store. The worker lays what it may know into the run folder before it starts, and reads what it
asks for from its log; a run's id is made of its parent's and the node's, so asking twice is asking once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flowkit import trace
from flowkit.errors import FlowkitError, NotFound, UsageError
from flowkit.events import Event
from flowkit.family import CHILDREN, DEPLOYMENT, Family
from flowkit.model import Deployment, Policy, Run
from flowkit.store import Store

log = logging.getLogger("flowkit.worker")

#: Children that one attempt may ask for.
MOST = 10_000


class Children:
    def __init__(
        self,
        run: Run,
        store: Store,
        snapshot: Callable[[str], str],
        *,
        artifacts: str,
        clock: Callable[[], datetime],
    ) -> None:
        """
        Args:
            snapshot: a notebook by its digest.
            artifacts: where artifacts are, as the kernel finds them.
        """
        self.waiting = False  #: a node of it waits for a child
        self.refused: str | None = None  #: why something that was asked for cannot be had
        self._run = run
        self._store = store
        self._snapshot = snapshot
        self._artifacts = artifacts
        self._clock = clock
        self._count = 0
        self._targets: dict[str, Deployment] = {}
        self._family = Family({})
        self._texts: dict[str, str] = {}
        self._unasked: list[Run] = []

    def lay(self, folder: Path) -> None:
        """Tell the kernel of this run folder."""
        told: dict[str, Any] = {"artifacts": self._artifacts, "notebooks": {}, "known": {}}
        if self._run.family is not None:
            self._family = self._store.family(self._run.family)
            names = any(name.startswith(DEPLOYMENT) for name in self._family.tree)
            above = self._deployments_above() if names else set()
            for number, name in enumerate(self._family.tree):
                told["notebooks"][name] = self._laid(name, folder / f"child-{number}.ipynb", above)
            if self._run.attempt > 1:
                told["known"] = {child.id: _known(child) for child in self._store.children(self._run.id)}
        (folder / CHILDREN).write_text(json.dumps(told), encoding="utf-8")

    def _laid(self, name: str, place: Path, above: set[str]) -> dict[str, Any]:
        try:
            found = self._targets[name] = self._target(name, above)
        except UsageError as error:
            return {"error": str(error)}
        place.write_text(self._snapshot(found.snapshot), encoding="utf-8")
        return {"file": str(place), "snapshot": found.snapshot, "parameters": dict(found.parameters)}

    def _target(self, name: str, above: set[str]) -> Deployment:
        policy = self._run.policy
        if name.startswith(DEPLOYMENT):
            found = self._store.deployment(name.removeprefix(DEPLOYMENT))
            if found.name in above:
                raise UsageError(
                    f"the deployment {found.name!r} runs itself as a child; one of them must not run the next"
                )
            first = max(found.policy.priority, policy.priority + 1)
            return replace(found, policy=replace(found.policy, priority=first))
        below = self._family.below(name)
        return Deployment(
            name=name,
            notebook=str((Path(self._run.notebook).parent / name).absolute()),
            snapshot=self._family.tree[name]["snapshot"],
            # Claimed before what waits already, so that trees go depth first.
            policy=Policy(queue=policy.queue, priority=policy.priority + 1, memory=policy.memory, hosts=policy.hosts),
            commit=self._run.commit,
            family=below.digest if below else None,
        )

    def _deployments_above(self) -> set[str]:
        found, run = set(), self._run
        while True:
            found |= {run.deployment} if run.deployment else set()
            if run.parent is None:
                return found
            try:
                run = self._store.run(run.parent)
            except NotFound:
                return found

    def heard(self, events: Sequence[Event]) -> list[Event]:
        """The events as they are to be kept, with what they ask for noted."""
        return [
            self._noted(event) if event.kind == "node" and isinstance(event.data, dict) else event for event in events
        ]

    def _noted(self, event: Event) -> Event:
        if "child" not in event.data or event.state is None or event.state.final:
            return event
        self.waiting = True
        if "ask" not in event.data:
            return event
        kept = {name: value for name, value in event.data.items() if name != "ask"}
        try:
            self._unasked.append(self._wanted(str(event.data["child"]), event))
        except (FlowkitError, TypeError, ValueError, KeyError) as error:  # the author's code can write there, too
            self.refused = f"node {event.name!r} asked for a child that cannot be had: {error}"
        return replace(event, data=kept)

    def _wanted(self, id: str, event: Event) -> Run:
        ask: Mapping[str, Any] = event.data["ask"]
        name = str(ask["notebook"])
        found = self._targets[name]
        own = {key: ask[key] for key in ("retries", "backoff", "timeout") if ask.get(key) is not None}
        self._count += 1
        if self._count > MOST:
            raise UsageError(f"one run has {MOST:,} children at most; have a child of it run the rest")
        run = Run.of(
            replace(found, parameters={}, policy=replace(found.policy, **own)),
            now=self._clock() + self._count * timedelta(microseconds=1),  # so that they stand in this order
            parameters=dict(ask["parameters"]),
            key=f"{self._run.id}/{event.flow}/{event.name}/{id[:8]}",
            name=event.name,
        )
        self._texts[found.snapshot] = self._snapshot(found.snapshot)
        above = str(trace.of_run(self._run.id, self._run.traceparent))
        run = replace(run, id=id, parent=self._run.id, traceparent=above)
        if run.deployment is not None:  # whose own firing it would be taken for
            return run
        return replace(run, scheduled_for=self._run.scheduled_for, zone=self._run.zone)

    def ask(self) -> list[Run]:
        """Have the store make what was asked for; which runs are new. Raises Unavailable, and is to be tried again."""
        if not self._unasked:
            return []
        asked = list(self._unasked)
        families = {one for run in asked if (one := run.family) is not None}
        below = [
            found for name in self._family.tree if (found := self._family.below(name)) and found.digest in families
        ]
        new = self._store.ask(self._run.id, self._run.attempt, asked, texts=self._texts, families=below)
        del self._unasked[: len(asked)]
        return new or []


def _known(child: Run) -> dict[str, Any]:
    told = {"state": child.state.value, "attempt": child.attempt, "parameters": dict(child.parameters)}
    return told | {"error": child.error, "cause": child.cause and child.cause.value}
