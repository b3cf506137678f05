"""A short notebook's run beside papermill's, in turns: what makes runs slow shows on any machine, busy or not.

`python -m tests.bench.notebooks` tells what is reached. The margins here are wide, so that other work on the machine
makes no test red; a kernel that is started where one was parked would, as it costs what papermill costs.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path

from tests.bench import notebooks
from tests.notebooks_made import write


def test_a_run_takes_a_fraction_of_papermills_time_and_processor(home: Path, tmp_path: Path) -> None:
    notebook, output = write(tmp_path / "trivial.ipynb", "1 + 1"), tmp_path / "output.ipynb"
    with notebooks.idle(home, FLOWKIT_WARM="") as (client, pid):
        notebooks.await_parked(client, notebook)
        notebooks.by_papermill(notebook, output)  # imported

        ours, theirs = notebooks.measure(
            partial(notebooks.by_flowkit, client, notebook),
            partial(notebooks.by_papermill, notebook, output),
            until=time.monotonic(),
        )
        processor = notebooks.processor_of_flowkit(client, pid, notebook, runs=5)
        its = notebooks.processor_of_papermill(notebook, output, runs=1)

    assert statistics.median(theirs) > 3 * statistics.median(ours)
    assert its > 2.5 * processor
