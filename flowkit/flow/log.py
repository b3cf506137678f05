"""The kernel's side of a run's event log: whole lines, appended before the function they tell of is called.

One ``write`` a node: what ended waits in memory until the same thread starts its next node or has none, which is
microseconds, and what started is written at once. So a kernel that is killed leaves the node it was in. ``O_APPEND``
makes each write whole beside those of other processes; nothing is fsynced, which matters only if the machine dies.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path

from flowkit.config import Config
from flowkit.errors import Unavailable
from flowkit.events import LOG, Event
from flowkit.flow.current import current_run
from flowkit.flow.secrets import REVEALED


class Log:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()  # appended to without the lock, so it is emptied and never replaced
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._unavailable(error) from error

    def add(self, event: Event) -> None:
        self._lines.append(REVEALED.event(event).to_json() + "\n")

    def flush(self) -> None:
        """Write what was added, by any thread, in that order; it is in the file when this returns."""
        # The lock is waited for even if there is nothing to write: another thread may just be writing our line.
        with self._lock:
            lines = []
            while self._lines:
                lines.append(self._lines.popleft())
            data = "".join(lines).encode("utf-8", "backslashreplace")
            try:
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError as error:
                raise self._unavailable(error) from error

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(f"cannot write the run's event log {self._path}: {error.strerror or error}")


def log_of_current_run() -> Log | None:
    """None outside of a worker's run: in the author's notebook nobody follows a log."""
    folder = Config.from_env().run_folder
    return Log(folder / LOG) if folder and current_run() else None
