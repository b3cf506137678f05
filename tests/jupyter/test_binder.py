"""What Binder makes of ``binder/``, as far as that can be seen without Docker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

from tests.jupyter.conftest import TOKEN, Lab
from tests.processes import eventually

ROOT = Path(__file__).parent.parent.parent


def test_repo2docker_reads_it() -> None:
    command = [str(Path(sys.executable).with_name("jupyter-repo2docker")), "--no-build", "--debug", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert 'pip install --no-cache-dir -r "binder/requirements.txt"' in said
    assert 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"' in said
    assert "python=3.12" in said


def test_its_start_brings_up_the_example_a_worker_the_dashboard_and_the_scheduler(lab: Lab) -> None:
    opened = urlopen(Request(f"{lab.url}/", headers={"Authorization": f"token {TOKEN}"}), timeout=60)
    dashboard, page = lab.ask("flowkit/")

    assert opened.url.endswith("/lab/tree/notebooks/flight_delays.ipynb")
    assert (dashboard, "<title>flowkit</title>" in page) == (200, True)
    assert [one["name"] for one in lab.ask("scheduler/runtime_environments")[1]] == ["flowkit"]
    assert eventually(lab.client.workers)
    # That it leaves nothing behind is seen when the fixture ends it.
