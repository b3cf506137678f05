"""The page Runs: the table of runs, page by page, and what is done to many of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowkit.errors import Conflict, NotFound, UsageError
from flowkit.model import Run, State
from flowkit.server.actions import Actions
from flowkit.server.dashboard.acts import Act, Done, given
from flowkit.server.dashboard.now import MOST, STATES
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import Rows, row, seconds, text
from flowkit.store.runs import Place
from flowkit.store.search import SCANNED, Found

#: Runs on one page of the table.
PAGE = 200
#: Seconds between two searches for what no index knows; they cost the database more than the rest of a look.
SEARCHED = 5.0
#: Runs that one press of a button is for.
TOGETHER = 1_000


@dataclass(frozen=True, slots=True)
class Table:
    """One page of it."""

    states: tuple[State, ...] = ()  #: empty for all
    deployment: str | None = None
    queue: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: str | None = None  #: where the page before ended: a run's id, or ``<seconds>~<id>``; None for the newest

    @classmethod
    def asked(cls, said: Mapping[str, Any]) -> Table:
        pairs = [str(one).partition("=") for one in said.get("parameters", ())[:10]]
        return cls(
            states=tuple(state for state in STATES if state.value in said["states"]),
            deployment=text(said["deployment"]),
            queue=text(said.get("queue")),
            parameters=tuple((name.strip()[:200], value.strip()[:500]) for name, _, value in pairs),
            error=text(said.get("error")),
            since=_instant(said.get("since")),
            until=_instant(said.get("until")),
            before=text(said["before"]),
        )

    def read(self, look: Look, before: Any) -> Found:
        """One more than a page holds, if there are more."""
        if self.parameters or self.error:
            return look.seldom(self, SEARCHED, lambda: self._search(look))
        return self._search(look)

    def tell(self, found: Found) -> dict[str, Any]:
        rows = Rows([row(run) for run in found.runs[:PAGE]], more=len(found.runs) > PAGE)
        end = found.scanned
        scanned = end and {"to": seconds(end.created), "before": f"{end.created.timestamp()}~{end.id}", "most": SCANNED}
        return {"table": rows, "scanned": scanned or False}

    def _search(self, look: Look) -> Found:
        return look.store.search(
            limit=PAGE + 1,
            before=self._place(look),
            deployment=self.deployment,
            states=self.states,
            queue=self.queue,
            since=self.since,
            until=self.until,
            parameters=self.parameters,
            error=self.error,
        )

    def _place(self, look: Look) -> Run | Place | None:
        """Only its place counts, which never changes. A run pruned meanwhile: the newest page."""
        before = self.before
        if before is None:
            return None
        at, cut, id = before.partition("~")
        if cut:
            created = _instant(at)
            return None if created is None else Place(created, id)
        try:
            return look.seldom(("before", before), 600.0, lambda: look.store.run(before))
        except NotFound:
            return None


@dataclass(frozen=True, slots=True)
class Choice:
    """What the table can be filtered by."""

    def read(self, look: Look, before: Any) -> dict[str, Any]:
        store = look.store
        counts = store.counts(most=MOST)
        return {
            "counts": {state.value: counts.get(state, 0) for state in STATES},
            "most": MOST,
            "deployments": store.deployment_names(),
            "queues": look.seldom("queues of runs", SEARCHED, lambda: _queues(look)),
        }

    def tell(self, found: dict[str, Any]) -> dict[str, Any]:
        return {"choice": found}


def _queues(look: Look) -> list[str]:
    """Of deployments, and those in which runs wait or run."""
    deployed = {one.policy.queue for one in look.store.deployments()}
    return sorted(deployed | {queue.name for queue in look.store.queues()})


def _cancel(actions: Actions, said: Mapping[str, Any]) -> Done:
    return _each(said, actions.cancel, "cancelled")


def _retry(actions: Actions, said: Mapping[str, Any]) -> Done:
    node = text(said.get("node"))
    done = _each(said, lambda id: actions.retry(id, forget=node), "to run again")
    return Done(done.said, f"{done.about}, from node {node}" if node else done.about)


def _each(said: Mapping[str, Any], do: Callable[[str], Run], verb: str) -> Done:
    """To each of the runs; those that it cannot be done to are counted. Raises what a single one did."""
    ids: Sequence[str] = [str(id)[:100] for id in given(said, "runs", list, TOGETHER)]
    if not ids:
        raise UsageError("no run is selected; choose some first")
    done, refused = [], []
    for id in dict.fromkeys(ids):
        try:
            done.append(do(id).id)
        except (Conflict, NotFound) as error:
            if len(ids) == 1:
                raise
            refused.append(str(error))
    if not done:
        raise Conflict(f"none of {len(refused)} runs could be: {refused[0]}")
    many = f"run {done[0][:8]}" if len(done) == 1 else f"{len(done)} runs"
    rest = f"; {len(refused)} could not be: {refused[0]}" if refused else ""
    return Done(f"{many} {verb}{rest}", ", ".join(id[:8] for id in done))


def _instant(seconds: Any) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(min(max(float(seconds), 0.0), 1e11), UTC)
    except ValueError:
        return None


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "runs": Table.asked,
    "choice": lambda said: Choice(),
}
ACTS: dict[str, Act] = {"cancel": _cancel, "retry": _retry}
