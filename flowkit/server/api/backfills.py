"""Backfills: a deployment's runs that differ in one parameter."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import Response

from flowkit.model import now
from flowkit.server.api import examples
from flowkit.server.api.parts import Body, Cursor, Limit, Parts, page, page_of, read, told
from flowkit.server.api.runs import whole
from flowkit.server.problems import Answer

Id = Annotated[str, Path(max_length=400, description="`DEPLOYMENT:PARAMETER`.")]


class BackfillBody(Body):
    deployment: str = Field(max_length=200, examples=["flight_delays"])
    parameter: str = Field(max_length=200, examples=["day"])
    values: list[Annotated[str, Field(max_length=1_000)]] = Field(
        min_length=1, max_length=1_000, description="In this order; read as the command line reads them."
    )
    concurrency: int = Field(1, ge=1, le=1_000)
    only_failed: bool = False


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["backfills"], default_response_class=Answer)
    store, actions = parts.store, parts.actions

    @router.get("/backfills", responses=told(examples.BACKFILL, paged=True))
    def list_backfills(limit: Limit = 100, cursor: Cursor = None) -> Response:
        found = sorted((one.to_json() for one in store.backfills()), key=lambda one: str(one["id"]))
        return page_of(found, limit=limit, cursor=cursor)

    @router.post("/backfills", status_code=202, responses=told(examples.BACKFILL, status=202))
    def backfill(body: BackfillBody) -> Response:
        """One run for each value. The same again makes only what is missing or was cancelled."""
        made = actions.backfill(
            body.deployment, body.parameter, body.values, concurrency=body.concurrency, only_failed=body.only_failed
        )
        return Answer(made.to_json(), 202)

    @router.get("/backfills/{id}", responses=told(examples.BACKFILL))
    def get_backfill(id: Id) -> Response:
        [found] = store.backfills(id)
        return Answer(found.to_json())

    @router.get("/backfills/{id}/runs", responses=told(examples.RUN, paged=True))
    def list_backfill_runs(id: Id, limit: Limit = 100, cursor: Cursor = None) -> Response:
        """In the order in which they were made."""
        store.backfills(id)
        found = store.backfill_runs(id)
        if cursor is not None:
            last = tuple(read(cursor, float, str))
            found = [run for run in found if (run.created.timestamp(), run.id) > last]
        some = found[:limit]
        more = [some[-1].created.timestamp(), some[-1].id] if len(found) > limit else None
        return page([whole(run) for run in some], more)

    @router.post(
        "/backfills/{id}/cancel", status_code=202, responses=told(examples.BACKFILL | {"cancelled": 2}, status=202)
    )
    def cancel_backfill(id: Id) -> Response:
        """All of its runs that have not ended."""
        store.backfills(id)
        count = store.cancel_backfill(id, now=now())
        return Answer(store.backfills(id)[0].to_json() | {"cancelled": count}, 202)

    return router
