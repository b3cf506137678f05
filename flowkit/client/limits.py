"""Limits: how many runs a queue has at once, and how often nodes do what they share."""

from __future__ import annotations

from flowkit.client.connection import Connection
from flowkit.client.targets import NAME, NAMING
from flowkit.errors import UsageError
from flowkit.model import Limit
from flowkit.rates import Rate, check_name


class Limits(Connection):
    def limit_queue(self, name: str, at_once: int | None) -> None:
        if not NAME.fullmatch(name):
            raise UsageError(f"a queue cannot be named {name!r}; {NAMING}")
        self.store.limit_queue(name, at_once)

    def set_limit(self, name: str, rate: str, *, failures: int | None, within: float, close_for: float) -> Limit:
        """Define what nodes share that name it, or define it anew: then it is open."""
        check_name(name)
        for option, given in (("within", within), ("close-for", close_for)):
            if not 0 < given <= 366 * 86_400:
                raise UsageError(f"{option} cannot be {given:g}; it is a number of seconds above 0")
        limit = Limit(name=name, rate=str(Rate.parse(rate)), failures=failures, within=within, close_for=close_for)
        self.store.set_limit(limit)
        return limit
