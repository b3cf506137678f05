"""Alerts: whether what people are told arrives."""

from __future__ import annotations

from flowkit.client.connection import Connection
from flowkit.errors import UsageError
from flowkit.model import Notice, now


class Alerts(Connection):
    def test_alerts(self, name: str) -> list[Notice]:
        """Have whoever sends send a message by each alert of *name*: a deployment, or an alert's id."""
        chosen = [one for one in self.store.alerts() if one.id == name]
        if not chosen:
            self.store.deployment(name)
            chosen = self.store.alerts_for([name])
        if not chosen:
            raise UsageError(f"no alert tells of {name!r}; add one: flowkit alert add {name} secret:NAME")
        return self.store.test_alerts(chosen, now=now())
