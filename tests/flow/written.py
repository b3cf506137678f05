"""Code that is run as a notebook's cell is: its functions know their source, and belong to ``__main__``."""

from __future__ import annotations

import itertools
import linecache
from typing import Any

_numbers = itertools.count()


def run(source: str, namespace: dict[str, Any] | None = None, *, file: str = "") -> dict[str, Any]:
    """The namespace it leaves. A notebook's next cell is given the namespace of the one before."""
    file = file or f"<cell {next(_numbers)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = {"__name__": "__main__"} if namespace is None else namespace
    exec(compile(source, file, "exec", dont_inherit=True), namespace)
    return namespace
