"""Small notebooks, made where a test needs one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def notebook(*cells: str, parameters: str | None = None, kernel: str | None = "python3") -> str:
    """nbformat 4.5 text: the parameters cell, if any, then a code cell for each source."""
    sources = ([parameters] if parameters is not None else []) + list(cells)
    content: dict[str, Any] = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}} if kernel else {},
        "cells": [
            {
                "id": f"c{index}",
                "cell_type": "code",
                "metadata": {"tags": ["parameters"]} if parameters is not None and index == 0 else {},
                "source": source,
                "execution_count": None,
                "outputs": [],
            }
            for index, source in enumerate(sources)
        ],
    }
    return json.dumps(content)


def write(path: Path, *cells: str, parameters: str | None = None, kernel: str | None = "python3") -> Path:
    path.write_text(notebook(*cells, parameters=parameters, kernel=kernel))
    return path


def outputs(executed: str | Path) -> str:
    """All text an executed notebook shows, without the colours of tracebacks."""
    content = json.loads(Path(executed).read_text())
    found = []
    for cell in content["cells"]:
        for output in cell.get("outputs", ()):
            text = (
                output.get("text") or output.get("data", {}).get("text/plain") or "\n".join(output.get("traceback", ()))
            )
            found.append("".join(text))
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(found))
