"""Tells people that a deployment fails, and that it has recovered. The only module that imports Apprise."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import datetime, timedelta

from flowkit import vault
from flowkit.artifacts import Artifacts
from flowkit.config import public_url
from flowkit.errors import FlowkitError, SetupError
from flowkit.events import fold
from flowkit.history import changed
from flowkit.model import Notice, Run, State, Tells
from flowkit.store import Store

log = logging.getLogger("flowkit.worker")

#: How long a message may take before another worker tries it.
LEASE = timedelta(minutes=2)

#: Lines of a cell, and changes, in a message.
_LINES, _CHANGES = 30, 5


class Alerter:
    """What one worker does for alerts; every worker may."""

    def __init__(self, store: Store, artifacts: Artifacts) -> None:
        self._store, self._artifacts = store, artifacts

    def look(self, at: datetime) -> None:
        """Find what is to be told, and tell what is due."""
        secrets = {}
        for alert in self._store.alerts():
            secrets[alert.id] = alert.secret
            self._store.notice_due(alert, now=at)
        while secrets and (notice := self._store.take_notice(now=at, lease=LEASE)) is not None:
            try:
                send(secrets[notice.alert], *self._message(notice))
            except Exception as error:  # an address, a server or a library that is not as it should be
                said = str(error) if isinstance(error, FlowkitError) else type(error).__name__
                log.warning("alert %s of %s was not sent: %s", notice.alert, notice.deployment, said)
                self._store.notice_failed(notice, said, now=at)
            else:
                self._store.notice_sent(notice, now=at)

    def _message(self, notice: Notice) -> tuple[str, str]:
        run = self._store.run(notice.run)
        if notice.kind is Tells.RECOVERY:
            return f"{run.label} has recovered", "\n\n".join([f"run {run.id[:8]} succeeded", *_link(run)])
        parts = [f"run {run.id[:8]}, attempt {run.attempt}: {run.error}", *_link(run), *self._cell(run)]
        with suppress(FlowkitError):
            differing = changed(self._store, self._artifacts, run).changes[:_CHANGES]
            told = [f"{one.kind} {one.name}" for one in differing]
            parts.append("changed since the last success: " + (", ".join(told) or "nothing that flowkit knows of"))
        return f"{run.label} failed: {run.error}"[:200], "\n\n".join(parts)

    def _cell(self, run: Run) -> list[str]:
        """The source of the cell in which it failed."""
        events = self._store.events(run.id, attempt=run.attempt, output=False)[1]
        cells = [event for event in events if event.kind == "cell"]
        place = next((node.name for node in fold(cells, ended=True) if node.state is State.FAILED), None)
        if place is None:
            return []
        ran = [
            "".join(cell["source"])
            for cell in json.loads(self._store.snapshot(run.snapshot))["cells"]
            if cell["cell_type"] == "code"
            and "".join(cell["source"]).strip()
            and "skip-execution" not in cell["metadata"].get("tags", ())
        ]
        injected = len({event.name for event in cells}) - len(ran)  # the parameters of this run
        number = int(place.split()[-1]) - injected
        if not 0 < number <= len(ran):
            return []
        return [f"{place}:\n" + "\n".join(ran[number - 1].splitlines()[:_LINES])]


def send(secret: str, title: str, body: str) -> None:
    """To the address that is the secret's value. Raises FlowkitError, which does not tell it."""
    try:
        import apprise
    except ImportError:
        raise SetupError('alerts need Apprise; pip install "flowkit[notify]" for the worker') from None
    notifier = apprise.Apprise()
    if not notifier.add(vault.reveal(secret)):
        raise SetupError(f"the secret {secret!r} is no address that Apprise knows; see its list of services")
    if not notifier.notify(title=title, body=body):
        raise SetupError(f"the address in the secret {secret!r} did not take the message")


def _link(run: Run) -> list[str]:
    return [f"{url}/?run={run.id}"] if (url := public_url()) else []
