"""One ASGI application: the guard, and behind it the API, the figures for machines, and the dashboard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Mount
from starlette.types import ASGIApp

from flowkit.artifacts import Artifacts
from flowkit.server import health
from flowkit.server.actions import Actions
from flowkit.server.api import make_api
from flowkit.server.dashboard import Dashboard
from flowkit.server.feed import Feed
from flowkit.server.guard import Doors, Guard
from flowkit.server.metrics import Metrics
from flowkit.server.sessions import Sessions
from flowkit.store import Store


class Application:
    def __init__(self, store: Store, artifacts: Artifacts, actions: Actions, sessions: Sessions, doors: Doors) -> None:
        self._dashboard = Dashboard(store, artifacts, actions)
        metrics = Metrics(store, actions)
        self._feed = Feed(store, metrics.count)
        self.api = make_api(store, artifacts, actions, self._feed, lifespan=self._lifespan)
        self.api.router.routes += health.routes(store, metrics)
        self.api.router.routes.append(Mount("/", self._dashboard.app))
        self.guarded: ASGIApp = Guard(self.api, store, sessions, doors)

    def close(self) -> None:
        self._dashboard.close()

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            # What is mounted is not told by itself that the server starts.
            inner = self._dashboard.app
            await stack.enter_async_context(inner.router.lifespan_context(inner))
            reading = asyncio.create_task(self._feed.run())
            yield
            reading.cancel()
