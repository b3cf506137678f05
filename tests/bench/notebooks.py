"""One run of a notebook, submitted until recorded, beside papermill on the same notebook.

Interleaved repeats, medians, with the machine's load. flowkit: a worker that idles, on the embedded default, from
``submit`` until the store says succeeded. papermill: ``execute_notebook`` in this process, already imported, and its
command line.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import papermill

from flowkit.client import Client
from flowkit.config import Config
from flowkit.model import State
from tests.notebooks_made import write
from tests.processes import worker

REPEATS = 7

NOTEBOOKS = {
    "trivial": ("1 + 1",),
    "import pandas": ("import pandas",),
    "50 cells": ("1 + 1",) * 50,
    "10 MB of prints": ("for _ in range(10): print('x' * 1_000_000)",),
}


def main() -> None:
    print(f"\nOne run of a notebook, ms, median of {REPEATS} (load {os.getloadavg()[0]:.1f})\n")
    print(f"{'':18}{'flowkit':>10}{'papermill':>12}{'its CLI':>10}{'ratio':>9}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"FLOWKIT_HOME": folder}
        place = Path(folder)
        with worker(), Client(Config.from_env()) as client:
            for name, cells in NOTEBOOKS.items():
                notebook = write(place / "notebook.ipynb", *cells)
                by_flowkit(client, notebook)
                figures = measure(
                    lambda notebook=notebook: by_flowkit(client, notebook),
                    lambda notebook=notebook: by_papermill(notebook, place / "out.ipynb"),
                    lambda notebook=notebook: by_its_cli(notebook, place / "out.ipynb"),
                )
                ours, theirs, cli = (1000 * figure for figure in figures)
                print(f"{name:18}{ours:>10.0f}{theirs:>12.0f}{cli:>10.0f}{theirs / ours:>8.1f}x")


def measure(*ways: Callable[[], None]) -> list[float]:
    """Median seconds of each way, taken in turns so that a change of the machine's load meets all of them."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(REPEATS):
        for way, taken in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def by_flowkit(client: Client, notebook: Path) -> None:
    run = client.submit(notebook)
    while not (run := client.store.run(run.id)).state.final:
        time.sleep(0.002)
    assert run.state is State.SUCCEEDED


def by_papermill(notebook: Path, output: Path) -> None:
    with silent():
        papermill.execute_notebook(str(notebook), str(output), progress_bar=False)


def by_its_cli(notebook: Path, output: Path) -> None:
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(output)]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def silent() -> Iterator[None]:
    """Without what a kernel writes on this process's own stderr, such as that it listens on a port."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    main()
