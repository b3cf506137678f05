"""The notebooks that papermill and nbclient test themselves with, executed here and by nbclient: the same outputs.

They are fetched from the sources of the versions installed, once, into pytest's cache.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from flowkit.worker.outputs import overwritten
from flowkit.worker.zygote import Zygotes
from tests.worker.execution import Execution

#: Where our outputs are not nbclient's, and why that is meant.
DIFFERENT = {
    "Autokill.ipynb": "its kernel dies: nbclient leaves the cell as it was, here it says that, as an error output",
}

#: Not executed, and why.
LEFT_OUT = {
    "Interrupt.ipynb": "runs until somebody interrupts it",
    "keyboard_interrupt.ipynb": "sleeps for a minute until somebody interrupts it",
    "Parallel Execute A.ipynb": "waits for its other half",
    "Parallel Execute B.ipynb": "waits for its other half",
    "gcs-simple_notebook.ipynb": "sleeps for 14 s, else it is s3-simple_notebook.ipynb",
}


def corpus(folder: Path) -> Iterator[Path]:
    for name in ("papermill", "nbclient"):
        wanted = f"{name}=={version(name)}"
        sources = folder / wanted
        if not sources.is_dir():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*command, "--no-binary", ":all:", "--dest", str(folder), wanted], check=True, timeout=150)
            (archive,) = folder.glob(f"{name}-*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(sources, filter="data")
        yield from sorted(sources.rglob("tests/**/*.ipynb"))


def by_nbclient(nb: Any, folder: Path) -> list[Any]:
    client = NotebookClient(nb, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, timeout=30)
    with contextlib.suppress(CellExecutionError, DeadKernelError):
        client.execute()
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def normalised(cells: list[Any]) -> list[Any]:
    """Outputs without ids, times and addresses; what one stream says without a break is one output."""
    known: dict[str, str] = {}
    found = []
    for cell in cells:
        joined: list[Any] = []
        for output in json.loads(json.dumps(cell["outputs"])):
            output = {**output, "text": "".join(output["text"])} if "text" in output else output
            last = joined[-1] if joined else {}
            if output["output_type"] == "stream" and last.get("name") == output["name"]:
                last["text"] += output["text"]
            else:
                joined.append(output)
        for output in joined:
            if "text" in output:
                output["text"] = overwritten(output["text"])
            for kind, data in output.get("data", {}).items():
                output["data"][kind] = "".join(data) if isinstance(data, list) else data
        found.append([joined, cell["execution_count"]])
    text = re.sub(r"ipykernel_\d+(/\d+\.py)?|0x[0-9a-f]{6,}|\d{4}-\d\d-\d\dT[\d:.]+Z", "X", json.dumps(found))
    return list(json.loads(re.sub(r"\b[0-9a-f]{32}\b", lambda one: known.setdefault(one[0], f"id{len(known)}"), text)))


@pytest.mark.timeout(600)  # of which half may go by until the sources are there
def test_outputs_are_nbclients_on_its_own_notebooks_and_on_papermills(
    tmp_path: Path, forked: Zygotes, request: pytest.FixtureRequest
) -> None:
    notebooks = list(corpus(request.config.cache.mkdir("corpus")))
    different, executed = {}, 0

    def execute(place: tuple[int, Path]) -> None:
        nonlocal executed
        number, path = place
        name = path.name
        if name in LEFT_OUT:
            return
        nb = nbformat.read(path, as_version=4)
        for cell in nb.cells:  # what it was saved with nbclient leaves in cells after an error
            cell.pop("outputs", None)
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        folder = tmp_path / str(number)
        folder.mkdir()
        execution = Execution(folder)
        execution.run(text=nbformat.writes(nb), kernel="python3", cwd=path.parent)
        ours = normalised(execution.cells)
        theirs = normalised(by_nbclient(nb, path.parent))
        executed += 1
        if ours != theirs:
            different[name] = next((a, b) for a, b in zip(ours, theirs, strict=True) if a != b)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(execute, enumerate(notebooks)))

    assert executed > 40
    assert {name: found for name, found in different.items() if name not in DIFFERENT} == {}
    assert set(DIFFERENT) <= set(different)
