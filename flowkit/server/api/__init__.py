"""The API: the store's nouns as JSON, under ``/api/v1``. Who may is the guard's business, what is done the client's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI

from flowkit.artifacts import Artifacts
from flowkit.server.actions import Actions
from flowkit.server.api import access, alerts, backfills, deployments, events, hooks, runs, schedules, work
from flowkit.server.api.parts import Parts
from flowkit.server.feed import Feed
from flowkit.server.problems import tell_problems
from flowkit.store import Store

PREFIX = "/api/v1"

ABOUT = """
Send a token with every request: `Authorization: Bearer fk_…` (`flowkit token create NAME --role viewer`). A viewer
looks, an operator runs what is deployed, an admin deploys and says who may.

Lists come in pages: `next` of one is `cursor` for the following; it is null on the last. Errors are problem details
(RFC 9457), whose `detail` says what to do. Times are ISO 8601 in UTC.
"""


def make_api(
    store: Store,
    artifacts: Artifacts,
    actions: Actions,
    feed: Feed,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    app = FastAPI(
        title="flowkit",
        version="1",
        description=ABOUT,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # they load their parts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    tell_problems(app)
    parts = Parts(store, artifacts, actions)
    for noun in (deployments, schedules, runs, backfills, alerts, hooks, work, access):
        app.include_router(noun.routes(parts), prefix=PREFIX)
    app.include_router(events.routes(parts, feed), prefix=PREFIX)
    _describe_tokens(app)
    return app


def _describe_tokens(app: FastAPI) -> None:
    """The guard is no part of FastAPI's description by itself."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        told = plain()
        told.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        told["security"] = [{"token": []}]
        return told

    app.openapi = described  # type: ignore[method-assign]
