"""What happens to all runs, read from the store once and handed to everybody who follows it."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.concurrency import run_in_threadpool

from flowkit.errors import Unavailable
from flowkit.store import Store
from flowkit.store.changes import Change, Position

log = logging.getLogger("flowkit.server")

#: Seconds between two looks, and after the store did not answer.
EVERY, LATER = 0.25, 2.0
#: Changes that are kept for those who are a little behind; whoever is further asks the store.
KEPT = 5_000
#: Changes in one look.
BATCH = 500
#: Seconds without news, after which a follower is told that there are none: so both ends see that the other lives.
QUIET = 15.0


class Feed:
    def __init__(self, store: Store, on_changes: Callable[[Sequence[Change]], None]) -> None:
        self._store = store
        self._on_changes = on_changes
        self._recent: deque[Change] = deque(maxlen=KEPT)
        self._floor: Position | None = None  #: all that came after it is in ``_recent``; None: not known yet
        self._news = asyncio.Event()
        self.followers = 0

    async def run(self) -> None:
        """Until cancelled."""
        position: Position | None = None
        while True:
            found: list[Change] = []
            wait = EVERY
            try:
                if position is None:
                    self._floor = position = await run_in_threadpool(self._store.here)
                found = await run_in_threadpool(lambda after: self._store.changes(after=after, limit=BATCH), position)
            except Unavailable as error:
                log.warning("the events stand still: %s", error)
                wait = LATER
            if found:
                position = found[-1].position
                self._add(found)
                self._on_changes(found)
            if len(found) < BATCH:
                await asyncio.sleep(wait)

    def _add(self, found: Sequence[Change]) -> None:
        for change in found:
            if len(self._recent) == KEPT:
                self._floor = self._recent[0].position
            self._recent.append(change)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def here(self) -> Position:
        return self._recent[-1].position if self._recent else await run_in_threadpool(self._store.here)

    async def follow(self, after: Position) -> AsyncIterator[Sequence[Change]]:
        """All that happens after that, in order, none twice and none left out. Empty: there is no news."""
        self.followers += 1
        try:
            while True:
                news = self._news  # before looking: what comes meanwhile sets this one
                found = await self._after(after)
                if found:
                    after = found[-1].position
                    yield found
                    continue
                try:
                    await asyncio.wait_for(news.wait(), QUIET)
                except TimeoutError:
                    yield []
        finally:
            self.followers -= 1

    async def _after(self, after: Position) -> Sequence[Change]:
        if self._floor is not None and after >= self._floor:
            recent = list(self._recent)
            return recent[bisect_right(recent, after, key=lambda change: change.position) :][:BATCH]
        try:
            return await run_in_threadpool(lambda: self._store.changes(after=after, limit=BATCH))
        except Unavailable:
            await asyncio.sleep(LATER)
            return []
