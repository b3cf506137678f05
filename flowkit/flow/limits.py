"""The kernel's side of limits that nodes share: a call asks before it begins, and waits without a thread of its own.

In a worker's run the worker answers, see ``flowkit.worker.limits``. In the author's notebook there is nobody to ask:
there a limit holds that the notebook declares, for this one process.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from flowkit.config import Config
from flowkit.errors import LimitClosed, UsageError
from flowkit.flow.current import current_run
from flowkit.flow.desk import SHORTEST, Desk, at_hand
from flowkit.model import epoch
from flowkit.rates import Rate, check_name

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
        self._worker = Desk(folder) if folder and current_run() and at_hand(folder) else None
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
