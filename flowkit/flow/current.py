"""The run this kernel executes, as its worker told it."""

from __future__ import annotations

from flowkit.config import Config
from flowkit.model import CurrentRun

#: In the run folder, written by the worker before the kernel starts.
FILE = "run.json"


def current_run() -> CurrentRun | None:
    """The run a worker is executing this notebook for; None in the author's own notebook."""
    folder = Config.from_env().run_folder
    if folder is None:
        return None
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return CurrentRun.from_json(text)
