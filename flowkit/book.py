"""A run as a notebook to go on with: its cells as they were, its parameters, and its results at hand.

Made of what the store has, without running, importing or unpickling anything: a server may do it for a browser.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowkit.errors import Unavailable, UsageError
from flowkit.events import fold
from flowkit.model import CurrentRun, NodeRun, Run, State
from flowkit.notebooks import parse
from flowkit.parameters import SCHEDULED_FOR

if TYPE_CHECKING:
    from flowkit.remote.store import RemoteStore
    from flowkit.store import Store

#: Ids of the cells that come with a book; those of an older one are replaced.
_FIRST, _GIVEN = "flowkit-run", "flowkit-parameters"


def write(store: Store | RemoteStore, run: Run, place: Path | None) -> Path:
    """Write the notebook of a run and return where it is.

    Args:
        place: None: beside the notebook the run was submitted from, where its data and modules lie; or here, if this
            machine has no such folder. A notebook of this run that is there is replaced, any other file is not.
    """
    if place is None:
        beside = Path(run.notebook).parent
        folder = beside if os.access(beside, os.W_OK) else Path()
        place = folder / name(run)
    text = made(store, run)
    try:
        if place.exists() and run.id not in place.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"{place} is there already, and not of this run; name another place with --output")
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unavailable(f"cannot write {place}: {error.strerror or error}") from error
    return place.absolute()


def name(run: Run) -> str:
    """Of its file."""
    return f"{run.id[:8]}.ipynb"


def made(store: Store | RemoteStore, run: Run) -> str:
    """The notebook's text. Raises UsageError if it is not Python, in which alone results can be loaded."""
    notebook = parse(store.snapshot(run.snapshot))
    if notebook.language != "python":
        raise UsageError(f"run {run.id[:8]} is in {notebook.language}; only a Python notebook can load a run's results")
    content = json.loads(notebook.text)
    cells = [
        cell
        for cell in content["cells"]
        if cell.get("id") not in (_FIRST, _GIVEN) and "injected-parameters" not in _tags(cell)
    ]
    if given := _assignments(run, {one.name for one in notebook.parameters or ()}):
        place = next((number for number, cell in enumerate(cells, 1) if "parameters" in _tags(cell)), 0)
        cells.insert(place, _code(given, _GIVEN, ["injected-parameters"]))
    events = store.events(run.id, attempt=run.attempt, output=False)[1]
    cells.insert(0, _code(_first_cell(run, fold(events, ended=run.state.final)), _FIRST, []))
    for cell in cells:
        if content["nbformat_minor"] < 5:
            cell.pop("id", None)
        cell["source"] = cell["source"].splitlines(keepends=True)
    spec = content["metadata"].setdefault("kernelspec", {"display_name": "Python 3", "language": "python"})
    spec["name"] = run.policy.kernel or notebook.kernel or "python3"
    text = json.dumps({**content, "cells": cells}, ensure_ascii=False, indent=1, sort_keys=True)
    return text.encode("utf-8", "replace").decode() + "\n"  # an error may have half a character in it


def _code(source: str, id: str, tags: list[str]) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": id,
        "metadata": {"tags": tags} if tags else {},
        "outputs": [],
        "source": source,
    }


def _tags(cell: Mapping[str, Any]) -> list[Any]:
    tags = cell["metadata"].get("tags")
    return tags if isinstance(tags, list) else []


def _first_cell(run: Run, nodes: list[NodeRun]) -> str:
    flow = [node for node in nodes if node.flow and "[" not in node.name]
    failed = next((node for node in flow if node.state is State.FAILED), None)
    about = f"Run {run.id} of {run.label}, attempt {run.attempt}: {run.state}\n{run.error or ''}"
    lines = [
        *(f"# {line}" for line in about.splitlines()),
        "import flowkit as fk",
        "",
        f"run = fk.load_run({run.id!r})",
        "results = run.results()  # of every node that has finished, by name",
    ]
    if failed is not None:
        lines.append(f"inputs = run.inputs({failed.name!r})  # what the node was given that failed")
    lines += ["run.resume()  # below, flow.run() takes these results and computes the rest", "run"]
    return "\n".join(lines)


def _assignments(run: Run, declared: set[str]) -> str:
    """Python that gives the run's parameters, and its firing if the notebook asks for it. Empty if there are none."""
    lines = [f"{name} = {_literal(value)}" for name, value in run.parameters.items()]
    at = CurrentRun.of(run).scheduled_for
    if at is not None and SCHEDULED_FOR in declared and SCHEDULED_FOR not in run.parameters:
        # One expression, as in the run: the notebook finds no name that it did not ask for.
        lines.append(
            f'{SCHEDULED_FOR} = __import__("datetime").datetime.fromisoformat({at.isoformat()!r})'
            f'.astimezone(__import__("zoneinfo").ZoneInfo({str(at.tzinfo)!r}))'
        )
    return "\n".join(["# Parameters", *lines]) if lines else ""


def _literal(value: Any) -> str:
    """Of what JSON can say, and of what floats there are beside."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)
