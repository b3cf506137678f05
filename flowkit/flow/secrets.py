"""Secrets in a notebook: a name that is shown, and a value that is not.

In a worker's run the worker answers, through the run folder's pipes, and from then on keeps the value out of all that
the run leaves. In the author's notebook the value is looked for where the notebook runs.
"""

from __future__ import annotations

from typing import Any

from flowkit import vault
from flowkit.config import Config
from flowkit.errors import SecretError, explain
from flowkit.flow.current import current_run
from flowkit.flow.desk import Desk, at_hand
from flowkit.redaction import HIDDEN, Redaction

#: What this process has been told, for what it writes itself: its log, and what is kept of results.
REVEALED = Redaction()


class Secret:
    """The name of a secret. ``reveal()`` gives its value; everything else that shows it shows ``***``.

    A copy, and what is pickled of it, is its name: the value is asked for where it is needed.
    """

    __slots__ = ("_value", "name")

    def __init__(self, name: str) -> None:
        self.name = vault.check_name(name)
        self._value: str | None = None

    def reveal(self) -> str:
        if self._value is None:
            self._value = _ask(self.name)
            REVEALED.add(self._value)
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.name == other.name

    def __hash__(self) -> int:
        return hash((Secret, self.name))

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (self.name,)


def secret(name: str | Secret) -> Secret:
    """The secret of that name: ``fk.secret("crm").reveal()``. Raises SecretError at once if there is none."""
    found = name if isinstance(name, Secret) else Secret(name)
    found.reveal()
    return found


def untold(value: Any) -> str | None:
    """Why this must not be written to where others may read it; None if it may."""
    try:
        return "holds the value of a secret" if REVEALED.found_in(value) else None
    except Exception as error:  # pickling runs whatever the author's classes do
        return f"cannot be searched for the values of secrets ({explain(error)})"


def _ask(name: str) -> str:
    folder = Config.from_env().run_folder
    if folder is None or current_run() is None:
        return vault.reveal(name)
    if not at_hand(folder):
        raise SecretError(f"nobody answers for the secret {name!r} in this run; a worker of flowkit does")
    desk = Desk(folder)
    try:
        answer = desk.ask({"secret": name})
    finally:
        desk.close()
    if "value" not in answer:
        raise SecretError(str(answer.get("refused", f"the worker does not know of secrets, nor {name!r}; upgrade it")))
    return str(answer["value"])
