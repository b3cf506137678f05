"""A run as a notebook to go on with: its cells as they were, its parameters, and its results at hand."""

from __future__ import annotations

import os
from pathlib import Path

from flowkit.client import Client
from flowkit.errors import Unavailable, UsageError
from flowkit.model import CurrentRun, NodeRun, Run, State
from flowkit.worker.executed import as_it_was


def write(client: Client, run: Run, place: Path | None) -> Path:
    """Write the notebook of a run and return where it is.

    Args:
        place: None: beside the notebook the run was submitted from, where its data and modules lie; or here, if this
            machine has no such folder. A notebook of this run that is there is replaced, any other file is not.
    """
    if place is None:
        beside = Path(run.notebook).parent
        folder = beside if os.access(beside, os.W_OK) else Path()
        place = folder / f"{run.id[:8]}.ipynb"
    text = as_it_was(
        client.store.snapshot(run.snapshot),
        CurrentRun.of(run),
        parameters=run.parameters,
        kernel=run.policy.kernel,
        first=_first_cell(run, client.nodes(run)),
    )
    try:
        if place.exists() and run.id not in place.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"{place} is there already, and not of this run; name another place with --output")
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"cannot write {place}: {error.strerror or error}") from error
    return place.absolute()


def _first_cell(run: Run, nodes: list[NodeRun]) -> str:
    flow = [node for node in nodes if node.flow and "[" not in node.name]
    failed = next((node for node in flow if node.state is State.FAILED), None)
    lines = [
        f"# Run {run.id} of {run.label}, attempt {run.attempt}: {run.state}",
        *(f"# {line}" for line in (run.error or "").splitlines()),
        "import flowkit as fk",
        "",
        f"run = fk.load_run({run.id!r})",
        "results = run.results()  # of every node that has finished, by name",
    ]
    if failed is not None:
        lines.append(f"inputs = run.inputs({failed.name!r})  # what the node was given that failed")
    lines += ["run.resume()  # below, flow.run() takes these results and computes the rest", "run"]
    return "\n".join(lines)
