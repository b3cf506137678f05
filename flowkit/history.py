"""What runs have left behind, brought together: the record of one, and how it differs from another."""

from __future__ import annotations

from contextlib import suppress

from flowkit.artifacts import Artifacts, notebook_path
from flowkit.changes import Comparison, Record, compare
from flowkit.errors import NotFound, Unavailable, UsageError
from flowkit.events import fold, kernel
from flowkit.model import Run, State
from flowkit.store import Store

#: Bytes of an executed notebook; the outputs of a larger one are not compared.
LARGEST = 20_000_000


def changed(store: Store, artifacts: Artifacts, run: Run, other: Run | None = None) -> Comparison:
    """How *run* differs from *other*; from the last run that succeeded before it if none is given."""
    if not run.attempt:
        raise UsageError(f"run {run.id[:8]} has not started yet; there is nothing to compare")
    before = other or last_success(store, run)
    return compare(record(store, artifacts, before), record(store, artifacts, run))


def last_success(store: Store, run: Run) -> Run:
    """Of its deployment, or of its notebook if it was run by hand. Raises NotFound."""
    states = [State.SUCCEEDED]
    if run.deployment is not None:
        found = store.runs(limit=1, before=run, deployment=run.deployment, states=states)
    else:
        listed, _ = store.page(offset=0, limit=50, notebook=run.notebook, states=states)
        found = [one for one in listed if (one.created, one.id) < (run.created, run.id)]
    if not found:
        raise NotFound(
            f"no run of {run.label} succeeded before {run.id[:8]}; name the one to compare with: "
            f"flowkit diff {run.id[:8]} OTHER"
        )
    return found[0]


def record(store: Store, artifacts: Artifacts, run: Run) -> Record:
    events = store.events(run.id, attempt=run.attempt, output=False)[1]
    told = next((event for event in events if event.kind == "packages"), None)
    where = kernel(events)
    reads: dict[str, list[str]] = {}
    for event in events:
        if event.kind == "flow":
            reads |= event.data["nodes"]
    outputs = None
    with suppress(Unavailable, UnicodeDecodeError):
        data = artifacts.read(notebook_path(run.id, run.attempt))
        outputs = data.decode() if data is not None and len(data) <= LARGEST else None
    return Record(
        run=run,
        notebook=store.snapshot(run.snapshot),
        nodes=fold(events, ended=run.state.final),
        reads=reads,
        host=where["host"] if where else None,
        python=told.data.get("python") if told else None,
        packages=(store.packages(told.name) or None) if told else None,
        outputs=outputs,
    )
