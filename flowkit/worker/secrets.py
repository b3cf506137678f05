"""Hands secrets to one run's kernel, which asks for them by name through the run folder's pipes.

A kernel gets what its notebook speaks of: a package that somebody slipped into it cannot ask for all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flowkit import vault
from flowkit.errors import NotebookError, SecretError
from flowkit.notebooks import sources
from flowkit.redaction import Redaction


class Keeper:
    def __init__(
        self,
        notebook: str,
        parameters: Mapping[str, Any],
        redaction: Redaction,
        reveal: Callable[[str], str] = vault.reveal,
    ) -> None:
        """
        Args:
            notebook: the snapshot.
            redaction: is told of each value before the kernel is.
        """
        self._notebook, self._parameters = notebook, parameters
        self._redaction = redaction
        self._reveal = reveal

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """``{"secret": name}`` is answered with its ``value``. Raises SecretError."""
        name = vault.check_name(question["secret"])
        if not self._speaks_of(name):
            raise SecretError(
                f"the notebook does not name the secret {name!r}, so it does not get it; "
                f'write fk.secret("{name}") in one of its cells, or give the name as a parameter'
            )
        value = self._reveal(name)
        self._redaction.add(value)
        return {"value": value}

    def redacted(self, question: dict[str, Any]) -> dict[str, Any]:
        """What a kernel says of something else."""
        plain: dict[str, Any] = self._redaction.plain(question)
        return plain

    def _speaks_of(self, name: str) -> bool:
        if _has(self._parameters, name):
            return True
        try:
            code = sources(self._notebook)
        except NotebookError:
            return False
        return any(f"{mark}{name}{mark}" in source for source in code for mark in "\"'")


def _has(value: Any, name: str) -> bool:
    if isinstance(value, Mapping):
        return any(_has(item, name) for item in value.values())
    return any(_has(item, name) for item in value) if isinstance(value, list) else bool(value == name)
