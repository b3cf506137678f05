"""Reading: runs followed until they end, and how all of it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import sleep

from flowkit import checks
from flowkit.changes import Comparison
from flowkit.client.connection import Connection
from flowkit.events import Event, Usage, fold, usage, with_children
from flowkit.history import changed
from flowkit.model import LIVE, Backfill, Finding, NodeRun, Queue, Run, State, Worker, now

#: Seconds between two looks of somebody who follows a run.
FOLLOW = 0.2


class Reading(Connection):
    def nodes(self, run: Run) -> list[NodeRun]:
        """Node runs of the newest attempt; those that are runs of their own as these stand."""
        return with_children(fold(self.recorded(run), ended=run.state.final), self.children(run))

    def children(self, run: Run) -> list[Run]:
        """Runs that are nodes of it."""
        return self.store.children(run.id) if run.family else []

    def recorded(self, run: Run) -> list[Event]:
        """What happened in the newest attempt, without what it printed."""
        return self.store.events(run.id, attempt=run.attempt, output=False)[1]

    def search(
        self,
        *,
        limit: int,
        deployment: str | None = None,
        states: Sequence[State] = (),
        parameters: Sequence[tuple[str, str]] = (),
        error: str | None = None,
    ) -> list[Run]:
        """The newest runs that have these parameters, and this text in their error, however far back they lie."""
        found: list[Run] = []
        place = None
        while len(found) < limit:
            some = self.store.search(
                limit=limit - len(found),
                before=place,
                deployment=deployment,
                states=states,
                parameters=parameters,
                error=error,
            )
            found += some.runs
            place = some.scanned
            if place is None:
                break
        return found

    def busy(self) -> dict[str, list[tuple[Run, Usage | None]]]:
        """The runs under way by their worker, each with what it uses."""
        found: dict[str, list[tuple[Run, Usage | None]]] = {}
        for run in self.store.runs(states=[State.RUNNING], limit=1_000):
            found.setdefault(run.worker or "", []).append((run, usage(self.recorded(run))))
        return found

    def follow(
        self, run: str, on_events: Callable[[Run, Sequence[Event]], None], *, output: bool | None = False
    ) -> Run:
        """Hand over the run and its new events until it has ended; returns it as it ended.

        A retry's events begin anew with a higher ``run.attempt``. *output*: as in ``Store.events``.
        """
        seen = self.store.run(run)
        attempt, after = seen.attempt, 0
        if seen.state is State.PENDING:  # what an attempt before this retry did is an old story
            after, _ = self.store.events(run, attempt=attempt, output=output)
        while True:
            seen = self.store.run(run)  # before its events, so that none of a run that has ended is missed
            if seen.attempt != attempt:
                attempt, after = seen.attempt, 0
            after, events = self.store.events(run, attempt=attempt, after=after, output=output)
            on_events(seen, events)
            if seen.state.final:
                return seen
            sleep(FOLLOW)

    def follow_backfill(self, id: str, on_change: Callable[[Backfill], None]) -> Backfill:
        """Until all of its runs have ended."""
        while True:
            [seen] = self.store.backfills(id)
            on_change(seen)
            if seen.ended == seen.total:
                return seen
            sleep(FOLLOW)

    def workers(self, queue: str | None = None) -> list[Worker]:
        """Those that showed a sign of life lately, of one queue or of all."""
        found = self.store.workers(since=now() - LIVE)
        return [worker for worker in found if queue is None or queue in worker.queues]

    def queues(self) -> list[Queue]:
        """Those of the store, and those at which a worker listens; by name."""
        found = {queue.name: queue for queue in self.store.queues()}
        for worker in self.workers():
            for name in worker.queues:
                found.setdefault(name, Queue(name=name, waiting=0, running=0, max_concurrent=None, oldest=None))
        return [found[name] for name in sorted(found)]

    def remarks(self) -> list[Finding]:
        """What the doctor would say of the parts that all processes share, the worst first."""
        return checks.remarks(self.store, self.broker, now(), embedded=self.config.embedded)

    def redis(self) -> dict[str, float] | None:
        """Figures of Redis, see ``Broker.figures``; None: there is none."""
        return self.broker.figures()

    def diff(self, run: str, other: str | None = None) -> Comparison:
        """How a run differs from another, or from the last one of its deployment that succeeded before it."""
        return changed(self.store, self.artifacts, self.store.run(run), self.store.run(other) if other else None)
