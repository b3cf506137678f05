"""Lets the nodes of a run pass where they share a limit: they ask through the run folder, for kernels know no store.

Two named pipes: lines of JSON go to the worker by one and come back by the other, in well under a millisecond, where
the event log is looked at five times a second. Rates are counted on Redis where there is one, else in the store;
definitions and what is closed are always the store's.
"""

from __future__ import annotations

import json
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

from flowkit.config import ANSWERS, ASKS
from flowkit.errors import FlowkitError, Unavailable
from flowkit.model import Limit, Pass
from flowkit.rates import Rate
from flowkit.store import Store

log = logging.getLogger("flowkit.worker")

#: Seconds after which a node asks again, if the store did not answer.
UNANSWERED = 1.0

#: Characters of a question; a longer one is no kernel's of ours. A pipe keeps lines below this whole.
LONGEST = 4096


class Limiter:
    """Thread-safe; one for all runs of a worker."""

    def __init__(self, store: Store, pool: redis.ConnectionPool | None) -> None:
        """*pool*: of the Redis that counts; None: the store does."""
        self._store = store
        self._redis = None if pool is None else _Redis(pool)

    def answer(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """``{"limit": name}`` asks whether a call may begin; with ``known``, whether there is such a limit; with
        ``error`` it says how a call went, and is not answered. A ``rate`` is what the notebook declares.
        """
        name = str(question["limit"])
        if "error" in question:
            error = question["error"]
            self._store.tell(name, None if error is None else str(error)[:500], now=self._store.clock())
            return None
        found = self._find(name, question.get("rate"))
        if found is None:
            return {"unknown": True}
        if "known" in question:
            return {}
        passed = self._admit(found)
        if passed is None:  # removed at this moment
            return {"unknown": True}
        told = {field: getattr(passed, field) for field in Pass.__slots__}
        rate = Rate.parse(found.rate)
        return {field: value for field, value in told.items() if value} | {"gap": rate.seconds / rate.count}

    def _find(self, name: str, declared: str | None) -> Limit | None:
        found = next(iter(self._store.limits(name)), None)
        if declared is None or (found is not None and (not found.declared or found.rate == declared)):
            return found
        self._store.set_limit(Limit(name=name, rate=str(Rate.parse(declared)), declared=True))
        return next(iter(self._store.limits(name)), None)

    def _admit(self, limit: Limit) -> Pass | None:
        now = self._store.clock()
        if self._redis is None or (limit.closed is not None):
            return self._store.admit(limit.name, counting=True, now=now)
        try:
            wait = self._redis.take(limit.name, Rate.parse(limit.rate))
        except StorageError as error:
            log.warning("Redis does not count (%s); the store does", error)
            return self._store.admit(limit.name, counting=True, now=now)
        return Pass(failures=limit.failures) if wait is None else Pass(wait=wait)


class _Redis(RedisStorage):
    """Counts by the clock of Redis: the library's own takes that of whoever asks, and one wrong clock stops all."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        super().__init__("redis://", connection_pool=pool, key_prefix="flowkit.limit", wrap_exceptions=True)
        self._windows = MovingWindowRateLimiter(self)

    def take(self, name: str, rate: Rate) -> float | None:
        """None: it may pass. Else seconds until the next one may."""
        item = RateLimitItemPerSecond(rate.count, rate.seconds, namespace=name)
        if self._windows.hit(item):
            return None
        seconds, micros = self.storage.time()
        left: float = self._windows.get_window_stats(item).reset_time - (seconds + micros / 1e6)
        return max(0.0, left)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        seconds, micros = self.storage.time()
        at = seconds + micros / 1e6
        return bool(self.lua_acquire_moving_window([self.prefixed_key(key)], [at, limit, expiry, amount]))

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        seconds, micros = self.storage.time()
        at = seconds + micros / 1e6
        window = self.lua_moving_window([self.prefixed_key(key)], [at - expiry, limit])
        return (float(window[0]), window[1]) if window else (at, 0)


class Desk:
    """Answers what one run's kernel asks, in a thread of its own, within the ``with`` block."""

    def __init__(self, folder: Path, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        self._answer = answer
        self._paths = folder / ASKS, folder / ANSWERS
        self._thread = threading.Thread(target=self._serve, name="flowkit-desk", daemon=True)

    def __enter__(self) -> Desk:
        for path in self._paths:
            os.mkfifo(path, 0o600)
        # For both directions: a pipe whose other end is closed and opened again would end.
        self._asks, self._answers = (os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in self._paths)
        self._woken, self._wake = os.pipe()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._wake)
        self._thread.join()
        for end in (self._asks, self._answers, self._woken):
            os.close(end)

    def _serve(self) -> None:
        for line in self._lines():
            try:
                question = json.loads(line)
                answer = self._answer(question)
            except Unavailable as error:
                log.warning("%s", error)
                answer = {"wait": UNANSWERED}
            except FlowkitError as error:
                answer = {"refused": str(error)}
            except (ValueError, TypeError, KeyError, RecursionError):  # the author's code can write there, too
                continue
            if answer is not None:
                self._say(answer | {"id": question.get("id")})

    def _lines(self) -> Iterator[bytes]:
        poller = select.poll()
        poller.register(self._asks, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        begun = b""
        while True:
            if any(end == self._woken for end, _ in poller.poll()):
                return
            begun += os.read(self._asks, 65_536)
            *lines, begun = begun.split(b"\n")
            begun = begun[:LONGEST]
            yield from lines

    def _say(self, answer: dict[str, Any]) -> None:
        line = json.dumps(answer).encode() + b"\n"
        try:
            while line:  # a long secret is more than a pipe takes at once
                line = line[os.write(self._answers, line) :]
        except BlockingIOError:  # a kernel that does not listen asks again, if it ever does
            time.sleep(0.01)
