"""How often something may happen: ``30/minute``. Within any minute, not within each minute of the clock."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from flowkit.errors import UsageError

_UNITS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86_400.0}
_SHORT = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day"}
_FORM = r"\s*(\d+)\s*/\s*(\d+)?\s*([a-zA-Z]+?)\s*"  # compiled when it is needed: every kernel loads this

#: Each of so many is remembered until its time is over.
MOST = 100_000


@dataclass(frozen=True, slots=True)
class Rate:
    count: int
    seconds: int  #: in any span of so many seconds

    @classmethod
    def parse(cls, text: str) -> Rate:
        """``30/minute``, ``5/s`` or ``100/10 minutes``."""
        found = re.fullmatch(_FORM, text) if isinstance(text, str) else None
        unit = found and _unit(found[3].lower())
        if not found or not unit:
            raise UsageError(f"{text!r} is no rate; write it as 30/minute, 5/second or 100/10m")
        count, seconds = int(found[1]), int(found[2] or 1) * int(_UNITS[unit])
        if not 1 <= count <= MOST or not 1 <= seconds <= 31 * 86_400:
            raise UsageError(f"{text!r} is out of range; a rate is 1 to {MOST} in one second to 31 days")
        return cls(count, seconds)

    def __str__(self) -> str:
        unit = max((name for name in _UNITS if self.seconds % _UNITS[name] == 0), key=_UNITS.__getitem__)
        many = int(self.seconds // _UNITS[unit])
        return f"{self.count}/{unit}" if many == 1 else f"{self.count}/{many} {unit}s"


def check_name(name: Any) -> None:
    """Raises UsageError if a limit cannot be called so."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name):
        raise UsageError(f"{name!r} cannot be a limit's name; use letters, digits, '.', '-' and '_'")


def _unit(word: str) -> str | None:
    word = _SHORT.get(word, word.removesuffix("s"))
    return word if word in _UNITS else None
