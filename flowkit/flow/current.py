"""What is going on in this kernel: the run, as its worker told it, and the node that is being called."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from flowkit.config import Config
from flowkit.model import CurrentRun

if TYPE_CHECKING:
    from flowkit.flow.lines import Lines
    from flowkit.flow.progress import Step

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


class Call:
    """One call of a node, or of an item of a mapped one."""

    __slots__ = ("_told", "cancelled", "heard", "late", "name")

    def __init__(
        self, name: str, heard: tuple[Lines, Step] | None = None, cancelled: Callable[[], bool] | None = None
    ) -> None:
        outer = CALLED.get()
        #: ``late``, ``late[3]``, ``outer/late``
        self.name: str = name if outer is None else f"{outer.name}/{name}"
        self.heard = heard  #: who keeps what it writes, and as whose
        self.cancelled = cancelled  #: whether its flow is
        self.late = False  #: it is out of time, and nobody waits for what it does
        self._told: dict[str, int] | None = None  # what was done -> how often in this call

    def key(self, what: str) -> str | None:
        """The same for the same thing done in any attempt of the run and the node; None outside of a worker's run.

        A thing that is done twice in one call has two keys, in the order in which it is done.
        """
        run = current_run()
        if run is None:
            return None
        from hashlib import sha256  # late: few nodes need it

        self._told = told = self._told or {}
        told[what] = told.get(what, 0) + 1
        return sha256("\0".join((run.key, self.name, what, str(told[what]))).encode()).hexdigest()[:32]


def given_up() -> bool:
    """Whether nobody waits any more for what the node in this thread does, which Python cannot stop."""
    call = CALLED.get()
    return call is not None and (call.late or (call.cancelled is not None and call.cancelled()))


#: Set around each call of a node, in whichever thread it runs.
CALLED: ContextVar[Call | None] = ContextVar("flowkit_called", default=None)
