"""What only time shows: the queues' depth, Redis's figures and the store's latency, sampled while this server runs.

For the screen alone. It begins anew with its server and nothing depends on it, so that each server of a store may have
its own. In a thread of its own: a Redis that is gone makes nobody wait but this.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from flowkit.errors import FlowkitError, Unavailable
from flowkit.model import Finding, now
from flowkit.server.actions import Actions
from flowkit.store import Store

log = logging.getLogger("flowkit.server")

#: Seconds between two samples, and how many are kept: six hours.
EVERY, KEPT = 5.0, 4_320
#: Queues of which the depth is kept, those with most to do.
QUEUES = 50


@dataclass(frozen=True, slots=True)
class Sample:
    at: datetime
    waiting: Mapping[str, int]  #: runs, by queue, of those that have any
    running: int
    latency: float | None  #: seconds that the store took to answer; None: it did not
    redis: Mapping[str, float] | None  #: its figures; None: there is none, or it did not answer


class Pulse:
    """Feels it until closed."""

    def __init__(self, store: Store, actions: Actions, *, every: float = EVERY) -> None:
        self._store = store
        self._actions = actions
        self._every = every
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._closed = threading.Event()
        self.since = now()  #: when this server began to look
        self.remarks: Sequence[Finding] = ()  #: what the doctor would say
        self.silent: str | None = None  #: why Redis does not answer
        self._thread = threading.Thread(target=self._loop, name="flowkit-pulse", daemon=True)
        self._thread.start()

    @property
    def samples(self) -> list[Sample]:
        return list(self._samples)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while True:
            try:
                self._feel()
            except Exception:  # whatever it is, the next time may be better
                log.exception("the figures of the dashboard stand still")
            if self._closed.wait(self._every):
                return

    def _feel(self) -> None:
        at = now()
        try:
            began = monotonic()
            self._store.clock()
            queues = self._store.queues()
            latency: float | None = monotonic() - began
            self.remarks = self._actions.remarks()
        except Unavailable:  # which every page says by itself
            queues, latency = [], None
        redis = None
        try:
            redis = self._actions.redis()
            self.silent = None
        except FlowkitError as error:
            self.silent = str(error)
        busiest = sorted((queue for queue in queues if queue.waiting), key=lambda queue: -queue.waiting)[:QUEUES]
        waiting = {queue.name: queue.waiting for queue in busiest}
        self._samples.append(Sample(at, waiting, sum(queue.running for queue in queues), latency, redis))
