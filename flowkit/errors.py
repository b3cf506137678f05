"""Every error flowkit raises on purpose, one tree; each message is one line: the thing, the expectation, the remedy.

    FlowkitError
    ├── UsageError            what the caller gave cannot be used; nothing was changed
    │   ├── GraphError        the flow does not fit together (raised before any node starts)
    │   ├── ParameterError    an unknown parameter, or a value of the wrong type
    │   ├── NotebookError     no such notebook, or a file that is not one
    │   ├── ScheduleError     a bad cron expression, interval or zone
    │   ├── AddressRefused    a node of a worker may not connect there
    │   ├── SecretError       no such secret, or one that cannot be handed out
    │   ├── ExpressionError   a text over columns that cannot be read; the message shows where
    │   ├── NotFound          no such run or deployment
    │   └── Conflict          the run or deployment is in a state that does not allow it
    ├── Unavailable           a server, folder or file that should answer does not
    │   └── StoreGone         the database's file was deleted or replaced
    ├── SetupError            a run that could not begin: its kernel, its parameters
    ├── NodeFailed            a node's own function raised; the author's exception is ``__cause__``
    ├── ChildFailed           a notebook that is a node did not succeed
    └── FlowCancelled         somebody pressed Cancel on the graph while the flow ran

``exit_code`` is what the command line returns for it: 2 for everything that is not the notebook's own failure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowkit.flow.outcome import Outcome


class FlowkitError(Exception):
    exit_code = 2


class UsageError(FlowkitError):
    pass


class GraphError(UsageError):
    pass


class ParameterError(UsageError):
    pass


class NotebookError(UsageError):
    pass


class ScheduleError(UsageError):
    pass


class AddressRefused(UsageError):
    pass


class SecretError(UsageError):
    """Its message never holds the value."""


class ExpressionError(UsageError):
    pass


class NotFound(UsageError):
    pass


class Conflict(UsageError):
    pass


class Unavailable(FlowkitError):
    pass


class StoreGone(Unavailable):
    """The database's file is not the one that was opened: no waiting brings it back."""


class SetupError(FlowkitError):
    pass


class LimitClosed(FlowkitError):
    """A node was not called: calls like it have failed lately, and are given a rest."""


class ChildFailed(FlowkitError):
    """A child run did not succeed."""

    exit_code = 1


class NodeFailed(FlowkitError):
    """One or more nodes failed. ``outcome`` still holds every result there is."""

    exit_code = 1

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


class FlowCancelled(FlowkitError):
    """No other node started, and those that ran were left behind. ``outcome`` holds every result there is."""

    exit_code = 130

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'orders'?`` for the nearest known name, or an empty string if none is near."""
    import difflib  # late: only mistakes need it

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def explain(error: BaseException) -> str:
    """``ValueError: bad day``, on one line."""
    try:
        text = str(error).strip()
    except Exception:  # the author's own exception may not even print
        text = ""
    first, *more = text.splitlines() or [""]
    first = first[:500] + "…" if more or len(first) > 500 else first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
