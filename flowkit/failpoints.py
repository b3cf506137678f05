"""Places where a test makes this process fail, as disks and networks do.

``artifact.rename:enospc@3,store.finish:drop-after@1``: a rule is a place, what happens there, and at which passing
of it (each, if that is left out). Without a rule a place costs one look at an empty list.
"""

from __future__ import annotations

import errno
import os
import threading

from flowkit.config import failpoints
from flowkit.errors import Unavailable, UsageError

ACTIONS = ("enospc", "eio", "drop-before", "drop-after")


class _Rule:
    def __init__(self, text: str) -> None:
        self.place, _, action = text.partition(":")
        self.action, _, at = action.partition("@")
        self.at, self.passed = int(at or 0), 0
        if self.action not in ACTIONS:
            raise UsageError(f"FLOWKIT_FAILPOINTS has {text!r}; what happens is one of {', '.join(ACTIONS)}")


_lock = threading.Lock()
_rules: list[_Rule] = []


def arm(text: str) -> None:
    """Replace all rules; an empty text takes them away."""
    with _lock:
        _rules[:] = [_Rule(rule) for rule in text.split(",") if rule]


def armed() -> bool:
    return bool(_rules)


def passing(place: str, *, before: bool | None = None) -> None:
    """Here something may fail. *before*: the commit, or after it; None: it is no commit."""
    if not _rules:
        return
    with _lock:
        for rule in _rules:
            dropping = rule.action.startswith("drop")
            if rule.place != place or dropping is (before is None) or (dropping and (rule.action[-1] == "e") != before):
                continue
            rule.passed += 1
            if rule.at in (0, rule.passed):
                if dropping:
                    raise Unavailable(f"cannot use the database: the connection was dropped at {place}")
                code = getattr(errno, rule.action.upper())
                raise OSError(code, os.strerror(code))


arm(failpoints())
