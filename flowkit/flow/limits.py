"""The kernel's side of limits that nodes share: a call asks before it begins, and waits without a thread of its own.

In a worker's run the worker answers, see ``flowkit.worker.limits``. In the author's notebook there is nobody to ask:
there a limit holds that the notebook declares, for this one process.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from flowkit.config import ANSWERS, ASKS, Config
from flowkit.errors import LimitClosed, Unavailable, UsageError
from flowkit.flow.current import current_run
from flowkit.model import epoch
from flowkit.rates import Rate, check_name

#: Seconds without an answer after which a question is asked again.
PATIENCE = 30.0

#: Seconds between two questions of a call at least.
SHORTEST = 0.01

_declared: dict[str, Rate] = {}
_starts: dict[str, deque[float]] = {}
_warned: set[str] = set()
_lock = threading.Lock()


def limit(name: str, rate: str) -> str:
    """Declare a limit that nodes name: ``fk.limit("crm-api", "30/minute")``. Returns its name.

    It holds in this notebook's process. A worker's runs share it, unless ``flowkit limit set`` has defined it
    otherwise: that counts there.
    """
    check_name(name)
    parsed = Rate.parse(rate)
    with _lock:
        if _declared.get(name) != parsed:
            _declared[name] = parsed
            _starts[name] = deque(maxlen=parsed.count)
    return name


class Gate:
    """Lets the calls of one run of a flow pass. From any thread."""

    def __init__(self, names: Iterable[str]) -> None:
        """Raises UsageError if one of the names is not defined, before any node has run."""
        folder = Config.from_env().run_folder
        self._worker = _Worker(folder) if folder and current_run() and (folder / ASKS).exists() else None
        self._next: dict[str, float] = {}  #: monotonic; when whoever comes now may ask
        self._gaps: dict[str, float] = {}  #: seconds between two calls that a limit lets pass
        self._tells: set[str] = set()
        for name in names:
            if self._worker is not None:
                self._ask(name, known=True)
            elif name not in _declared and name not in _warned:
                _warned.add(name)
                here = f'fk.limit({name!r}, "30/minute") declares it'
                warnings.warn(f"nothing limits {name!r} in this notebook; {here}", stacklevel=4)

    def ask(self, name: str, *, again: bool) -> float | None:
        """None: the call may begin. Else seconds after which to ask again.

        Args:
            again: it has waited before, and is not sent to the end of the line.

        Raises:
            LimitClosed: it is not to be called, and not to wait.
        """
        at = time.monotonic()
        with _lock:
            due = self._next.get(name, 0.0)
            if not again and due > at:  # others wait: their turn comes first, and nobody is asked for all of them
                self._next[name] = due + self._gaps[name]
                return due - at
        answer = self._ask(name) if self._worker is not None else _here(name)
        if "closed" in answer:
            raise LimitClosed(_closed(name, answer))
        if "wait" not in answer:
            if answer.get("failures"):
                self._tells.add(name)
            return None
        pause = max(SHORTEST, float(answer["wait"]))
        with _lock:
            self._gaps[name] = float(answer.get("gap", pause))
            self._next[name] = max(self._next.get(name, 0.0), at + pause + self._gaps[name])
        return pause

    def tell(self, name: str, error: str | None) -> None:
        """How a call went that was let pass."""
        if name in self._tells and self._worker is not None:
            self._worker.say({"limit": name, "error": error})

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def _ask(self, name: str, **more: Any) -> dict[str, Any]:
        assert self._worker is not None
        rate = _declared.get(name)
        answer = self._worker.ask({"limit": name, **({"rate": str(rate)} if rate else {}), **more})
        if "unknown" in answer:
            raise UsageError(
                f"nobody has defined the limit {name!r}; `flowkit limit set {name} 30/minute` does, "
                f'or fk.limit({name!r}, "30/minute") in the notebook'
            )
        if "refused" in answer:
            raise UsageError(str(answer["refused"]))
        return answer


class _Worker:
    """Asks by one pipe and hears by another, one question at a time."""

    def __init__(self, folder: Path) -> None:
        try:
            self._asks = os.open(folder / ASKS, os.O_WRONLY | os.O_NONBLOCK)
            self._answers = os.open(folder / ANSWERS, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            raise Unavailable(f"cannot ask the worker for limits in {folder}: {error.strerror}") from error
        self._lock = threading.Lock()
        self._count = 0
        self._heard = b""

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            while True:
                self._count += 1
                # The process is part of it: a fork of this one may ask, too.
                mine = f"{os.getpid()}.{id(self)}.{self._count}"
                self.say(question | {"id": mine})
                until = time.monotonic() + PATIENCE
                while time.monotonic() < until:
                    for answer in self._read(until - time.monotonic()):
                        if answer.get("id") == mine:
                            return answer

    def say(self, message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        while True:
            try:
                os.write(self._asks, line)
                return
            except BlockingIOError:
                time.sleep(SHORTEST)
            except OSError as error:
                raise Unavailable(f"cannot ask the worker for a limit: {error.strerror}") from error

    def _read(self, timeout: float) -> list[dict[str, Any]]:
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        if not poller.poll(max(0.0, timeout) * 1000):
            return []
        try:
            self._heard += os.read(self._answers, 65_536)
        except BlockingIOError:
            return []
        *lines, self._heard = self._heard.split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        with self._lock:
            ends = self._asks, self._answers
            self._asks = self._answers = -1  # a thread that is left behind must not write to what gets their numbers
            for end in ends:
                os.close(end)


def _here(name: str) -> dict[str, Any]:
    with _lock:
        rate = _declared.get(name)
        if rate is None:
            return {}
        starts, at = _starts[name], time.monotonic()
        if len(starts) == rate.count and at - starts[0] < rate.seconds:
            return {"wait": starts[0] + rate.seconds - at, "gap": rate.seconds / rate.count}
        starts.append(at)
        return {}


def _closed(name: str, answer: dict[str, Any]) -> str:
    until = datetime.fromtimestamp(epoch() + float(answer["closed"])).strftime("%H:%M:%S")
    many = answer.get("failures")
    after = f" after {many} failure{'' if many == 1 else 's'}" if many else ""
    while_trying = ", while one call tries it" if answer.get("trying") else ""
    last = f"; last: {answer['error']}" if answer.get("error") else ""
    return f"{name} is closed until {until}{after}{while_trying}{last}"
