"""A worker for as long as a notebook is open, and flowkit's answers as Python values, for the notebooks beside it."""

import json
import subprocess
import sys
from typing import Any

FLOWKIT = [sys.executable, "-m", "flowkit"]


def worker() -> subprocess.Popen:
    """A worker that is ready; `terminate()` stops it, and so does the end of the kernel that started it."""
    started = subprocess.Popen([*FLOWKIT, "worker"], stderr=subprocess.DEVNULL)
    while started.poll() is None and not flowkit("workers"):
        pass
    return started


def flowkit(*arguments: object) -> Any:
    """What the command answers with `--json`: `flowkit("show", "weather:day")`."""
    done = subprocess.run([*FLOWKIT, *map(str, arguments), "--json"], capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)
