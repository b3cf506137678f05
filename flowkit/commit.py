"""Which commit of git a notebook was taken from."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flowkit.config import whole_environment

#: Seconds after which a repository is too large, or too far away, to say so by the way.
_PATIENCE = 5.0


def commit_of(notebook: Path) -> str | None:
    """The commit of the notebook's folder; None if that is not under git, or there is no git to ask.

    It ends with ``-dirty`` if a file in the folder, or below it, has been changed since. The notebook itself does not
    count: its snapshot says what it was, and running it changes its outputs.
    """
    if not _may_be_in_a_repository(notebook.parent):
        return None  # to have git say so takes as long as to submit a run
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch"]
    command += ["--untracked-files=no", "--", ".", f":(exclude,literal){notebook.name}"]
    try:
        done = subprocess.run(command, cwd=notebook.parent, capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return None
    return commit if all(line.startswith("#") for line in lines) else f"{commit}-dirty"


def _may_be_in_a_repository(folder: Path) -> bool:
    """Whether git would look for more; not whether it would find any good."""
    if "GIT_DIR" in whole_environment():
        return True
    here = folder.resolve()
    return any((one / ".git").exists() for one in (here, *here.parents))
