"""Where the work is: queues, workers, and the limits that nodes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from flowkit.model import LIVE, now
from flowkit.server.api import examples
from flowkit.server.api.parts import NOTHING, Body, Cursor, Limit, Parts, page_of, told
from flowkit.server.problems import Answer

Name = Annotated[str, Path(max_length=200)]


class QueueBody(Body):
    max_concurrent: int | None = Field(None, ge=1, le=100_000, description="Of its runs at once; null: no limit.")


class LimitBody(Body):
    rate: str = Field(max_length=50, examples=["30/minute"])
    failures: int | None = Field(None, ge=1, le=10_000, description="Close it after so many failed calls.")
    within: float = Field(60.0, description="Seconds in which that many fail.")
    close_for: float = Field(60.0, description="Seconds.")


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["work"], default_response_class=Answer)
    store, actions = parts.store, parts.actions

    @router.get("/queues", responses=told(examples.QUEUE, paged=True))
    def list_queues(limit: Limit = 100, cursor: Cursor = None) -> Response:
        return page_of([one.to_json() for one in actions.queues()], limit=limit, cursor=cursor)

    @router.put("/queues/{name}", status_code=204, responses=NOTHING)
    def limit_queue(name: Name, body: QueueBody) -> Response:
        """From now on, over all workers; what runs already goes on."""
        actions.limit_queue(name, body.max_concurrent)
        return Response(status_code=204)

    @router.get("/workers", responses=told(examples.WORKER, paged=True))
    def list_workers(limit: Limit = 100, cursor: Cursor = None) -> Response:
        """Those that are alive."""
        found = sorted((one.to_json() for one in store.workers(since=now() - LIVE)), key=lambda one: str(one["id"]))
        return page_of(found, limit=limit, cursor=cursor)

    @router.get("/limits", responses=told(examples.LIMIT, paged=True))
    def list_limits(limit: Limit = 100, cursor: Cursor = None) -> Response:
        return page_of([one.to_json() for one in store.limits()], limit=limit, cursor=cursor)

    @router.put("/limits/{name}", responses=told(examples.LIMIT))
    def set_limit(name: Name, body: LimitBody) -> Response:
        """What nodes share that name it; it is open then."""
        made = actions.set_limit(name, body.rate, failures=body.failures, within=body.within, close_for=body.close_for)
        return Answer(made.to_json())

    @router.delete("/limits/{name}", status_code=204, responses=NOTHING)
    def remove_limit(name: Name) -> Response:
        store.remove_limit(name)
        return Response(status_code=204)

    return router
