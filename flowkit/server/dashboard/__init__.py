"""The dashboard: a page that shows the store to any number of browsers."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from flowkit.artifacts import Artifacts
from flowkit.scene import BUNDLE
from flowkit.server.actions import Actions
from flowkit.server.dashboard import acts
from flowkit.server.dashboard.frame import ACTS, page
from flowkit.server.dashboard.mount import mount
from flowkit.server.dashboard.notebooks import Notebooks
from flowkit.server.dashboard.reading import Reader
from flowkit.server.pulse import Pulse
from flowkit.store import Store

__all__ = ["Dashboard"]


class Dashboard:
    """Its routes, in ``app``, and the one reader of the store behind all of its pages."""

    def __init__(self, store: Store, artifacts: Artifacts, actions: Actions) -> None:
        self._pulse = Pulse(store, actions)
        self._reader = Reader(store, artifacts, actions, self._pulse)
        self.app: FastAPI = mount(lambda role: page(self._reader, role, store=_in_words(store.shown)))
        self.app.router.routes[:0] = [
            *Notebooks(store, artifacts).routes(),
            Route("/graph.js", _bundle),
            acts.route(actions, ACTS),
        ]

    def close(self) -> None:
        self._reader.close()
        self._pulse.close()


async def _bundle(_: Request) -> Response:
    """The graph's front-end, from this machine as all else; its ETag spares the browser a second copy."""
    if not await run_in_threadpool(BUNDLE.exists):
        return Response(status_code=404)
    return FileResponse(BUNDLE, media_type="text/javascript; charset=utf-8", headers={"Cache-Control": "no-cache"})


def _in_words(url: str) -> str:
    kind, _, place = url.partition("://")
    return f"SQLite, {place.removeprefix('/')}" if kind == "sqlite" else f"PostgreSQL, {place}"
