"""A worker process: Huey's consumer, whose threads look for runs when they are rung, or when a sweep found some."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from typing import Any

from huey.api import Huey
from huey.consumer import Consumer, Scheduler
from huey.consumer import Worker as Listener

from flowkit.errors import StoreGone, Unavailable
from flowkit.model import Worker, now
from flowkit.worker.alerts import Alerter
from flowkit.worker.broker import POLL, UNHEARD, Broker, Dropped
from flowkit.worker.dispatch import Dispatcher

log = logging.getLogger("flowkit.worker")

#: Seconds between two beats of the worker's own row, which is for people only.
SEEN = 5.0
#: Seconds that kernels which were told to stop may take.
STOPPING = 15.0
#: Seconds between two looks for runs beyond their retention.
PRUNE = 60.0


def identity(queues: Sequence[str], concurrency: int, *, at: datetime) -> Worker:
    host = socket.gethostname()
    return Worker(
        id=f"{host}-{os.getpid()}-{secrets.token_hex(3)}",
        host=host,
        pid=os.getpid(),
        queues=tuple(queues),
        concurrency=concurrency,
        started=at,
        seen=at,
    )


def serve(
    dispatcher: Dispatcher, broker: Broker, *, concurrency: int, grace: float, alerter: Alerter | None = None
) -> None:
    """Work until SIGINT or SIGTERM. Returns when every run has ended or was handed back.

    The first signal claims no more and waits up to *grace* seconds for the runs under way; a second one, or the end
    of the grace, stops their kernels and hands them back to other workers.

    Raises:
        StoreGone: kernels were stopped, and nobody told; there is nobody.
    """
    bell = _Bell()
    huey = broker.listen(dispatcher.worker.queues, dispatcher.look)
    pulse = threading.Thread(target=_pulse, args=(dispatcher,), name="pulse", daemon=True)
    parts = {"dispatcher": dispatcher, "broker": broker, "bell": bell}
    consumer = _Consumer(huey, parts, workers=concurrency, grace=grace)
    pulse.start()
    threading.Thread(target=_fence, args=(dispatcher,), name="fence", daemon=True).start()
    if alerter is not None:
        threading.Thread(target=alerter.serve, args=(dispatcher.left,), name="alerts", daemon=True).start()
    consumer.run()
    dispatcher.hand_back()
    dispatcher.wait(STOPPING)
    if dispatcher.gone is not None:
        raise dispatcher.gone
    dispatcher.leave()


def _pulse(dispatcher: Dispatcher) -> None:
    """Beats from a thread of its own, so that no slow tick or full disk makes healthy runs look dead."""
    while not dispatcher.left.wait(1.0):
        try:
            dispatcher.pulse()
        except StoreGone as error:
            dispatcher.abandon(error)
        except Unavailable as error:
            log.warning("%s", error)
        except Exception:  # without a pulse, every run of this worker would be taken from it
            log.exception("the pulse goes on")


def _fence(dispatcher: Dispatcher) -> None:
    while not dispatcher.left.wait(0.5):
        dispatcher.fence()


class _Bell:
    """Rung by the sweep for threads of this process: as many look as there are runs to be had."""

    def __init__(self) -> None:
        self._calls = 0
        self._lock = threading.Lock()

    def ring(self, times: int) -> None:
        with self._lock:
            self._calls = times

    def answered(self) -> bool:
        """True for the one caller that is to look."""
        with self._lock:
            if self._calls == 0:
                return False
            self._calls -= 1
            return True


class _Listener(Listener):
    """Hears a message, or the sweep's bell, and looks."""

    bell: _Bell
    broker: Broker
    dispatcher: Dispatcher

    def loop(self, now: Any = None) -> None:
        message, quiet = None, False
        try:
            message = self.huey.dequeue()
            quiet = message is None
        except Dropped as forged:  # however many there are, the sweep's bell is answered in between
            self.broker.drop(forged)
        except UNHEARD as error:  # the sweep goes on
            log.warning("cannot hear the broker: %s", error)
            self.stop_flag.wait(1.0)
        if message is not None:
            self.huey.execute(message)
        if self.bell.answered():
            self.dispatcher.look()
        if quiet and not self.huey.storage.blocking:
            self.broker.await_ring(POLL)


class _Sweeper(Scheduler):
    """Once a second: firings that are due, runs of dead workers, runs nobody was rung for, runs to forget.

    Huey's own scheduler is not used: its periodic tasks fire once per consumer, and its delays depend on the host's
    time zone.
    """

    bell: _Bell
    broker: Broker
    dispatcher: Dispatcher

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seen = self._pruned = monotonic()

    def loop(self, now_: Any = None) -> None:
        began = monotonic()
        try:
            self._sweep(began)
        except StoreGone as error:
            self.dispatcher.abandon(error)
            os.kill(os.getpid(), signal.SIGTERM)
            self.stop_flag.wait(STOPPING)
        except Unavailable as error:
            log.warning("%s", error)
        except Exception:
            log.exception("the sweep goes on")
        self.stop_flag.wait(max(0.0, began + 1.0 - monotonic()))

    def _sweep(self, at: float) -> None:
        self.dispatcher.rescue()
        self.dispatcher.wake()
        self.dispatcher.tick(now())
        self.bell.ring(self.dispatcher.ready(now()))
        if at - self._seen >= SEEN:
            self._seen = at
            self.dispatcher.seen(now(), dropped=self.broker.dropped)
        if at - self._pruned >= PRUNE:
            self._pruned = at
            self.dispatcher.prune()


class _Consumer(Consumer):
    def __init__(self, huey: Huey, parts: dict[str, Any], *, workers: int, grace: float) -> None:
        """*parts*: what its threads know, whom Huey makes."""
        self._dispatcher: Dispatcher = parts["dispatcher"]
        self.worker_class = type("Listener", (_Listener,), parts)
        self.scheduler_class = type("Sweeper", (_Sweeper,), parts)
        super().__init__(huey, workers=workers, periodic=False, shutdown_timeout=grace)
        # Ctrl-C, a service manager's stop and a closed terminal mean the same here; `nohup` ignores the last.
        ending = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            ending.append(signal.SIGHUP)
        self._signal_actions = dict.fromkeys(ending, (False, True))

    def stop(self, graceful: bool = False) -> None:
        self._dispatcher.stopping.set()
        if graceful:
            log.info(
                "stopping: no new runs; waiting up to %g s for %d under way (again to stop at once)",
                self.shutdown_timeout,
                self._dispatcher.under_way,
            )
        super().stop(graceful)
