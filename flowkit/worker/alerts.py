"""Tells people what goes wrong with deployments, and that it is over. The only module here that imports Apprise."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from importlib.util import find_spec
from urllib.parse import urlencode

from flowkit import vault
from flowkit.artifacts import Artifacts
from flowkit.config import public_url
from flowkit.errors import FlowkitError, SetupError, Unavailable
from flowkit.events import fold
from flowkit.history import changed
from flowkit.model import Notice, Run, State, Tells, now
from flowkit.store import Store
from flowkit.worker.watch import Watcher

log = logging.getLogger("flowkit.worker")

#: How long a message may take before another worker tries it.
LEASE = timedelta(minutes=2)

#: Seconds between two looks.
EVERY = 2.0

#: Lines of a cell, and changes, in a message.
_LINES, _CHANGES = 30, 5

_TITLES = {
    Tells.FAILURE: "{} failed",
    Tells.RECOVERY: "{} has recovered",
    Tells.LATE: "{} is late",
    Tells.STARTED: "{} is not late any more",
    Tells.LONG: "{} takes too long",
    Tells.ENDED: "{} has ended",
    Tells.STUCK: "queue {} is stuck",
    Tells.MOVING: "queue {} is not stuck any more",
    Tells.SKIPPED: "{} was skipped",
    Tells.TEST: "flowkit: a test",
}


class Alerter:
    """What one process does for alerts; every worker may, and the server."""

    def __init__(self, store: Store, artifacts: Artifacts, *, stands_in: bool = False) -> None:
        """*stands_in*: send only what this process has the address of, as others may have it."""
        self._store, self._artifacts, self._stands_in = store, artifacts, stands_in
        self._watcher = Watcher(store)

    def serve(self, left: threading.Event) -> None:
        """In a thread of its own: whoever is told may take their time."""
        while not left.wait(EVERY):
            try:
                self.look(now())
            except Unavailable as error:
                log.warning("%s", error)
            except Exception:
                log.exception("alerts go on")

    def look(self, at: datetime) -> None:
        """Find what is to be told, and tell what is due."""
        if not self._store.has_alerts():
            return
        self._watcher.look(at)
        addresses = self._known(at) if self._stands_in else None
        while told := self._store.take_notices(now=at, lease=LEASE, addresses=addresses):
            try:
                send(vault.reveal(told[0].secret), *self._message(told), called=f"in the secret {told[0].secret!r}")
            except Exception as error:  # an address, a server or a library that is not as it should be
                said = str(error) if isinstance(error, FlowkitError) else type(error).__name__
                log.warning("%s of %s was not sent: %s", told[0].kind, told[0].subject, said)
                self._store.notices_failed(told, said, now=at)
            else:
                self._store.notices_sent(told, now=at)

    def _known(self, at: datetime) -> set[str]:
        """Of the addresses to which something is to be sent, those that this process has."""
        found = set()
        for name in self._store.due_addresses(now=at) if find_spec("apprise") else ():
            with suppress(FlowkitError):
                vault.reveal(name)
                found.add(name)
        return found

    def _message(self, told: list[Notice]) -> tuple[str, str]:
        first = told[0]
        if len(told) > 1:
            title = f"{len(told)} times: " + _TITLES[first.kind].format("…")
            each = [f"{one.subject}: {one.said}" + "".join(f" {link}" for link in _link(one)) for one in told]
            remedies = dict.fromkeys(one.remedy for one in told if one.remedy)
            return title, "\n\n".join(["\n".join(each), *remedies])
        if first.kind is Tells.TEST:
            return _TITLES[first.kind], f"alerts of {first.subject} arrive here"
        if first.kind is Tells.FAILURE:
            return self._failure(first)
        title = _TITLES[first.kind].format(first.subject)
        if first.kind is Tells.RECOVERY:
            return title, "\n\n".join([f"run {first.run[:8]} succeeded", *_link(first)])
        which = f"run {first.of_run[:8]} " if first.of_run else ""
        return title, "\n\n".join([f"{which}{first.said}", *_link(first), *filter(None, [first.remedy])])

    def _failure(self, notice: Notice) -> tuple[str, str]:
        run = self._store.run(notice.run)
        parts = [f"run {run.id[:8]}, attempt {run.attempt}: {run.error}", *_link(notice), *self._cell(run)]
        with suppress(FlowkitError):
            differing = changed(self._store, self._artifacts, run).changes[:_CHANGES]
            told = [f"{one.kind} {one.name}" for one in differing]
            parts.append("changed since the last success: " + (", ".join(told) or "nothing that flowkit knows of"))
        parts.append(f"stand where it failed: flowkit open {run.id[:8]}")
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


def send(address: str, title: str, body: str, *, called: str) -> None:
    """Raises FlowkitError, which does not tell the address but what it is *called*."""
    try:
        import apprise
    except ImportError:
        raise SetupError('alerts need Apprise; pip install "flowkit[notify]" for the worker') from None
    notifier = apprise.Apprise()
    if not notifier.add(address):
        raise SetupError(f"the address {called} is none that Apprise knows; see its list of services")
    if not notifier.notify(title=title, body=body):
        raise SetupError(f"the address {called} did not take the message")


def _link(notice: Notice) -> list[str]:
    url = public_url()
    if url is None or notice.kind is Tells.TEST:
        return []
    if notice.of_run:
        return [f"{url}/?run={notice.of_run}"]
    page = {"page": "queue"} if notice.about_queue else {"page": "deployments", "name": notice.subject}
    return [f"{url}/?{urlencode(page)}"]
