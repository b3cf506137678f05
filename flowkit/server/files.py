"""What a run left behind, as whoever may look at it is given it: its files and what it printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from flowkit.artifacts import Artifacts
from flowkit.errors import NotFound
from flowkit.model import Run
from flowkit.shelf import kept_path
from flowkit.store import Store

#: Bytes of a log as text: its end.
LOG = 10_000_000


def folders(run: Run) -> dict[str, str]:
    """Those of its attempts by their numbers, and that of its nodes' results, ``kept``; and where they are."""
    numbers = map(str, range(1, run.attempt + 1))
    return {number: f"runs/{run.id}/{number}" for number in numbers} | {"kept": kept_path(run.id)}


def opened(artifacts: Artifacts, run: Run, folder: str, name: str) -> IO[bytes]:
    """Raises NotFound: there is none, or it does not lie in the folder itself."""
    found = folders(run).get(folder)
    # Only what lies in the folder itself has a name there: none leads elsewhere.
    if found is None or name not in artifacts.sizes(found) or not artifacts.holds(f"{found}/{name}"):
        raise NotFound(f"run {run.id[:8]} left no {folder}/{name}; its artifacts are listed without a name")
    file = artifacts.open(f"{found}/{name}")
    if file is None:
        raise NotFound(f"{folder}/{name} of run {run.id[:8]} is gone")
    return file


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(1 << 16):
            yield piece


def printed(store: Store, run: Run, attempt: int) -> bytes:
    """What an attempt printed: its last 10 MB, as UTF-8."""
    _, events = store.events(run.id, attempt=attempt, output=True)
    return "".join(str(event.data) for event in events)[-LOG:].encode("utf-8", "replace")
