"""Runs: submitted, one or a backfill of them, tried again, cancelled and forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

from flowkit import notebooks
from flowkit.client.reading import FOLLOW, Reading
from flowkit.client.targets import Targets, alone
from flowkit.errors import Conflict, NotFound, UsageError, did_you_mean
from flowkit.family import Family
from flowkit.model import Backfill, Deployment, Policy, Run, State, now
from flowkit.shelf import CACHE, Shelf, kept_path


class Runs(Targets, Reading):
    def submit(
        self,
        target: str | Path,
        *,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        name: str | None = None,
        policy: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
    ) -> Run:
        """Submit a run of a notebook (a path) or of a deployment (its name). It is stored when this returns.

        A Redis that does not answer costs a warning and a second: workers find the run by looking.

        Args:
            parameters: laid over the deployment's own.
            key: submitting the same key again gives the run it has made already.
            name: what it is called, if not as its deployment or notebook.
            policy: fields of ``Policy`` that differ from the deployment's.
            traceparent: the span it is submitted from.
        """
        if shared := sorted({"hosts", "max_concurrent", "rate"} & (policy or {}).keys()):
            raise UsageError(f"{shared[0]} holds for all runs of a deployment; deploy it with that, or leave it out")
        deployment, text, family = self._target(target, parameters or {}, policy or {})
        return self._submit(deployment, text, family, key=key, name=name, traceparent=traceparent)

    def submit_deployment(
        self,
        name: str,
        *,
        parameters: Mapping[str, Any],
        key: str | None,
        policy: Mapping[str, Any],
        traceparent: str | None = None,
    ) -> Run:
        """As ``submit``, of a name that is never read as a path."""
        deployment = self._deployed(self.store.deployment(name), parameters, policy)
        return self._submit(deployment, None, None, key=key, name=None, traceparent=traceparent)

    def submit_text(
        self,
        text: str,
        path: str,
        *,
        parameters: Mapping[str, Any],
        key: str | None,
        policy: Mapping[str, Any],
        commit: str | None = None,
        traceparent: str | None = None,
    ) -> Run:
        """As ``submit``, of a notebook's text, that has *path* on another machine, in a folder at *commit* there."""
        notebook = notebooks.parse(text, name=Path(path).name)
        family = alone(notebook)
        deployment, text = self._prepare(notebook, path, parameters, Policy(**policy), family, commit=commit)
        return self._submit(deployment, text, family, key=key, name=None, traceparent=traceparent)

    def _submit(
        self,
        deployment: Deployment,
        text: str | None,
        family: Family | None,
        *,
        key: str | None,
        name: str | None,
        traceparent: str | None,
    ) -> Run:
        run = Run.of(deployment, now=now(), key=key, name=name, traceparent=traceparent)
        stored, new = self.store.submit(run, text, family)
        if new:
            self.ring(stored)
        return stored

    def retry(self, run: str, *, forget: str | None = None) -> Run:
        """Another attempt of a run that failed or was cancelled; it keeps its parameters and its firing.

        Args:
            forget: a node that is computed again, with all that depends on it. The others keep their results.
        """
        found = self.store.run(run)
        if forget is not None and found.state in (State.FAILED, State.CANCELLED):
            self._forget(found, forget)
        again = self.store.retry(found.id, now=now())
        self.ring(again)
        return again

    def backfill(
        self,
        name: str,
        parameter: str,
        values: Sequence[str],
        *,
        concurrency: int,
        only_failed: bool = False,
    ) -> Backfill:
        """One run of the deployment for each value of the parameter, in this order, *concurrency* of them at once.

        What is there already is not made again; cancelled runs are taken up again.

        Args:
            values: texts, read as the command line's are.
            only_failed: run the failed ones of these again, and nothing else.
        """
        deployment, at = self.store.deployment(name), now()
        notebook = self._snapshot(deployment)
        runs = []
        for number, text in enumerate(values):
            value = notebook.from_text({parameter: text})
            complete = replace(deployment, parameters=notebook.check({**deployment.parameters, **value}))
            # Not of the version: a backfill goes on where it was, also after another deploy.
            key = f"{deployment.name}:{parameter}={text}"
            runs.append(Run.of(complete, now=at + number * timedelta(microseconds=1), key=key))
        id = f"{deployment.name}:{parameter}"
        wanted = Backfill(
            id=id, deployment=deployment.name, parameter=parameter, concurrency=concurrency, created=at, counts={}
        )
        again = State.FAILED if only_failed else State.CANCELLED
        runs = [replace(run, series=id) for run in runs]
        found = self.store.backfill(wanted, runs, again=[again], only_again=only_failed, now=at)
        for run in runs[:concurrency]:  # a ring only says "look"
            if not self.ring(run):
                break  # neither would the others be heard, and each says so
        return found

    def _forget(self, run: Run, node: str) -> None:
        readers = self._readers(run)
        if not readers:
            raise UsageError(f"run {run.id[:8]} came to no flow, so it has no node {node!r}; retry it without --from")
        if node not in readers:
            raise NotFound(f"no node of run {run.id[:8]} is called {node!r}{did_you_mean(node, readers)}")
        doomed, waiting = {node}, [node]
        while waiting:
            new = readers[waiting.pop()] - doomed
            doomed |= new
            waiting += new
        shelf, cache = Shelf(self.artifacts, kept_path(run.id)), Shelf(self.artifacts, CACHE)
        for _, facts in shelf.described(doomed):
            if facts.get("cached"):
                cache.drop(facts["cached"])
        shelf.forget(doomed)
        self._forget_children(run, doomed)

    def _forget_children(self, run: Run, nodes: set[str]) -> None:
        """Those that these nodes are: they are made anew."""
        theirs = [child.id for child in self.store.children(run.id) if (child.name or "").partition("[")[0] in nodes]
        self._forget_whole(theirs)

    def _forget_whole(self, ids: Sequence[str]) -> None:
        """With all below them, once that has ended: kernels of what was cancelled may take a moment."""
        while len(whole := self.store.whole(ids)) < len(ids):
            sleep(FOLLOW)
        for id, theirs in whole.items():
            for one in (id, *theirs):
                self.artifacts.remove(f"runs/{one}")  # files first: without a row nobody would ever find them
        self.store.forget(list(whole))

    def _readers(self, run: Run) -> dict[str, set[str]]:
        """node -> the nodes that read it, of all flows of the newest attempt that came to one."""
        readers: dict[str, set[str]] = {}
        for attempt in range(run.attempt, 0, -1):
            for event in self.store.events(run.id, attempt=attempt, output=False)[1]:
                if event.kind == "flow":
                    for name, reads in event.data["nodes"].items():
                        readers.setdefault(name, set())
                        for one in reads:
                            readers.setdefault(one, set()).add(name)
            if readers:
                break
        return readers

    def cancel(self, run: str) -> Run:
        return self.store.cancel(self.store.run(run).id, now=now())

    def cancel_backfill(self, id: str) -> Backfill:
        """All of its runs that have not ended. Raises: NotFound."""
        self.store.backfills(id)
        self.store.cancel_backfill(id, now=now())
        return self.store.backfills(id)[0]

    def forget(self, run: str) -> None:
        """Delete the run with its events and artifacts. One that has not ended is cancelled, which may take seconds."""
        found = self.store.run(run)
        if not found.state.final:
            with suppress(Conflict):  # it has ended meanwhile
                self.cancel(found.id)
            self.follow(found.id, lambda *_: None)
        self._forget_whole([found.id])

    def ring(self, run: Run) -> bool:
        """Wake a worker. False: the broker does not answer, which a warning has said."""
        return self.broker.ring(run.policy.queue, run.id, priority=run.policy.priority)
