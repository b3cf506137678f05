"""A notebook executed for a test, with all that was told of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flowkit.events import Event, fold
from flowkit.model import CurrentRun, Ending
from flowkit.worker.kernel import Order, Stop, run_notebook

Source = str | tuple[str, str]  #: code, or code and its tag


def notebook(*cells: Source, kernel: str | None = None) -> str:
    made = []
    for index, cell in enumerate(cells):
        source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
        kind = "markdown" if source.startswith("# ") else "code"
        made.append({"id": f"c{index}", "cell_type": kind, "metadata": {"tags": tags}, "source": source})
        if kind == "code":
            made[-1] |= {"execution_count": None, "outputs": []}
    metadata = {"kernelspec": {"name": kernel, "display_name": kernel}} if kernel else {}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def current(**changes: Any) -> CurrentRun:
    known: dict[str, Any] = {"id": "r1", "key": "k1", "attempt": 1, "deployment": "late", "notebook": "/nb/late.ipynb"}
    return CurrentRun(**(known | changes))


@dataclass
class Execution:
    """``run`` executes; the rest is what came of it."""

    folder: Path
    events: list[Event] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    on_events: Callable[[Sequence[Event]], None] | None = None
    on_save: Callable[[str], None] | None = None
    on_growth: Callable[[bytes, bool], None] | None = None
    stop: Stop = field(default_factory=Stop)
    seconds: float = 0.0

    def run(
        self,
        *cells: Source,
        parameters: Mapping[str, Any] | None = None,
        kernel: str | None = None,
        timeout: float | None = 60.0,
        cell_timeout: float | None = None,
        memory: int | None = None,
        cwd: Path | None = None,
        at: datetime | None = None,
        text: str | None = None,
    ) -> Ending:
        order = Order(
            notebook=text or notebook(*cells),
            parameters=parameters or {},
            current=current(scheduled_for=at, zone=str(at.tzinfo) if at else "UTC"),
            kernel=kernel,
            timeout=timeout,
            cell_timeout=cell_timeout,
            memory=memory,
            cwd=cwd or self.folder,
            folder=self.folder,
        )
        began = time.monotonic()
        try:
            return run_notebook(
                order,
                on_events=self.on_events or self.events.extend,
                on_save=self.on_save or self.saved.append,
                on_growth=self.on_growth,
                stop=self.stop,
            )
        finally:
            self.seconds = time.monotonic() - began

    @property
    def document(self) -> dict[str, Any]:
        """The last one saved, as standard JSON."""
        return standard_json(self.saved[-1])

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The code cells of the document."""
        return [cell for cell in self.document["cells"] if cell["cell_type"] == "code"]

    @property
    def statuses(self) -> list[str]:
        return [cell["metadata"]["papermill"]["status"] for cell in self.cells]

    def shown(self, cell: int) -> str:
        """What code cell *cell*, from 0, shows."""
        return shown(self.cells[cell])

    def logged(self, name: str = "stdout") -> str:
        return "".join(event.data for event in self.events if event.kind == "output" and event.name == name)

    def nodes(self) -> dict[str, str]:
        return {node.name: str(node.state) for node in fold(self.events)}


def standard_json(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not standard JSON")

    text.encode()
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def shown(cell: Mapping[str, Any]) -> str:
    found = []
    for output in cell["outputs"]:
        parts = output.get("text") or output.get("data", {}).get("text/plain") or output.get("traceback", ())
        found.append("".join(parts))
    return re.sub(r"\x1b\[[\d;]*m", "", "".join(found))
