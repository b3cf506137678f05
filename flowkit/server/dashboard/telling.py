"""How the store's values become JSON on every page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowkit.model import Run

#: Characters of an error or of a parameter's value; the notebook and the command line have the rest.
SHOWN = 2_000


@dataclass(frozen=True)
class Rows:
    """Of a table: ``order`` has all their ids, ``rows`` those that were changed."""

    rows: Sequence[Mapping[str, Any]]  #: each with its ``id``
    more: bool = False  #: there are others after these

    def since(self, before: Rows | None) -> dict[str, Any] | None:
        known = {} if before is None else {row["id"]: row for row in before.rows}
        order = [row["id"] for row in self.rows]
        changed = [row for row in self.rows if known.get(row["id"]) != row]
        if before is not None and not changed and order == list(known) and self.more == before.more:
            return None
        return {"order": order, "more": self.more, "rows": changed}


def row(run: Run) -> dict[str, Any]:
    """A run as each table of runs has it."""
    return {
        "id": run.id,
        "label": run.label,
        "state": run.state.value,
        "cancelling": run.cancelling,
        "attempt": run.attempt,
        "scheduled": seconds(run.scheduled_for),
        "created": seconds(run.created),
        "started": seconds(run.started),
        "finished": seconds(run.finished),
        "error": (run.error or "").partition("\n")[0][:300],
    }


def text(value: Any, most: int = 500) -> str | None:
    """What a browser said, as a text of bounded length; None for nothing."""
    return None if value is None or value == "" else str(value)[:most]


def seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at else None


def cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text):,} characters)"
