"""The page Runs: the table of runs, page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flowkit.errors import NotFound
from flowkit.model import Run, State
from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.now import MOST, STATES
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import Rows, row, text

#: Runs on one page of the table.
PAGE = 200


@dataclass(frozen=True, slots=True)
class Table:
    """One page of it."""

    states: tuple[State, ...] = ()  #: empty for all
    deployment: str | None = None
    before: str | None = None  #: id of the run before the first; None for the newest

    @classmethod
    def asked(cls, said: Mapping[str, Any]) -> Table:
        return cls(
            states=tuple(state for state in STATES if state.value in said["states"]),
            deployment=text(said["deployment"]),
            before=text(said["before"]),
        )

    def read(self, look: Look, before: Any) -> list[Run]:
        """One more than a page holds, if there are more."""
        return look.store.runs(
            limit=PAGE + 1,
            before=self._run_before(look),
            deployment=self.deployment,
            states=self.states,
        )

    def tell(self, found: list[Run]) -> dict[str, Any]:
        return {"table": Rows([row(run) for run in found[:PAGE]], more=len(found) > PAGE)}

    def _run_before(self, look: Look) -> Run | None:
        """Only its place counts, which never changes. A run pruned meanwhile: the newest page."""
        id = self.before
        if id is None:
            return None
        try:
            return look.seldom(("before", id), 600.0, lambda: look.store.run(id))
        except NotFound:
            return None


@dataclass(frozen=True, slots=True)
class Choice:
    """What the table can be filtered by."""

    def read(self, look: Look, before: Any) -> dict[str, Any]:
        counts = look.store.counts(most=MOST)
        return {
            "counts": {state.value: counts.get(state, 0) for state in STATES},
            "most": MOST,
            "deployments": look.store.deployment_names(),
        }

    def tell(self, found: dict[str, Any]) -> dict[str, Any]:
        return {"choice": found}


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "runs": Table.asked,
    "choice": lambda said: Choice(),
}
ACTS: dict[str, Act] = {}
