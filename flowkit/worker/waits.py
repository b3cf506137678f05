"""Tells one run's kernel how a run of another deployment stands: it asks through the run folder, and knows no store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flowkit.model import Run, State, iso
from flowkit.store import Store

#: Of a deployment's runs, the newest that are looked at.
MOST = 1000

#: Characters of an error; a pipe keeps an answer below 4096 bytes whole.
LONGEST = 300


def answer(store: Store, question: Mapping[str, Any]) -> dict[str, Any]:
    """``{"awaited": deployment}`` with ``since``, ``firing`` or ``values``: the newest run that fits and has succeeded,
    as ``run``, else ``newest``, how the newest that fits stands, if there is one. Raises NotFound."""
    deployment = store.deployment(str(question["awaited"]))
    since, firing = (at and datetime.fromisoformat(at) for at in (question["since"], question["firing"]))
    values = dict(question["values"])

    def fits(run: Run) -> bool:
        given = run.parameters
        return (firing is None or run.scheduled_for == firing) and all(
            name in given and given[name] == value for name, value in values.items()
        )

    fitting = [run for run in store.runs(deployment=deployment.name, since=since, limit=MOST) if fits(run)]
    for run in fitting:
        if run.state is State.SUCCEEDED:
            told = {"id": run.id, "scheduled_for": iso(run.scheduled_for), "finished": iso(run.finished)}
            return {"run": told}
    if not fitting:
        return {}
    newest = fitting[0]
    how = f"failed: {(newest.error or '')[:LONGEST]}" if newest.state is State.FAILED else f"is {newest.state}"
    return {"newest": f"the newest, run {newest.id[:8]}, {how}"}
