"""Where the work is: queues, workers, and the limits that nodes share."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from flowkit.model import LIVE, now
from flowkit.server.api import examples
from flowkit.server.api.parts import Cursor, Limit, Parts, page_of, told
from flowkit.server.problems import Answer


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["work"], default_response_class=Answer)
    store, actions = parts.store, parts.actions

    @router.get("/queues", responses=told(examples.QUEUE, paged=True))
    def list_queues(limit: Limit = 100, cursor: Cursor = None) -> Response:
        return page_of([one.to_json() for one in actions.queues()], limit=limit, cursor=cursor)

    @router.get("/workers", responses=told(examples.WORKER, paged=True))
    def list_workers(limit: Limit = 100, cursor: Cursor = None) -> Response:
        """Those that are alive."""
        found = sorted((one.to_json() for one in store.workers(since=now() - LIVE)), key=lambda one: str(one["id"]))
        return page_of(found, limit=limit, cursor=cursor)

    @router.get("/limits", responses=told(examples.LIMIT, paged=True))
    def list_limits(limit: Limit = 100, cursor: Cursor = None) -> Response:
        return page_of([one.to_json() for one in store.limits()], limit=limit, cursor=cursor)

    return router
