"""What people were told, and whether it arrives."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from flowkit.errors import UsageError
from flowkit.model import iso
from flowkit.server.api import examples
from flowkit.server.api.parts import Cursor, Limit, Parts, page, read, told
from flowkit.server.problems import Answer
from flowkit.store.alerts import After


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["alerts"], default_response_class=Answer)
    store, actions = parts.store, parts.actions

    @router.get("/alerts", responses=told(examples.NOTICE, paged=True))
    def list_alerts(
        deployment: Annotated[str | None, Query(max_length=200)] = None, limit: Limit = 100, cursor: Cursor = None
    ) -> Response:
        """What people were told, or are to be; the newest first. `state` is `waiting`, `trying`, `delivered` or
        `failed`: given up, `error` says why."""
        found = store.notices(deployment=deployment, before=_place(cursor), limit=limit + 1)
        some = found[:limit]
        last = [iso(some[-1].of), some[-1].alert, some[-1].run, some[-1].kind.value] if len(found) > limit else None
        return page([one.to_json() for one in some], last)

    @router.post("/deployments/{name}/test-alerts", status_code=202, responses=told([examples.NOTICE], status=202))
    def test_alerts(name: Annotated[str, Path(max_length=200)]) -> Response:
        """Have a message sent to each address that is told of it. Whether it arrived is in the list within seconds."""
        return Answer([one.to_json() for one in actions.test_alerts(name)], 202)

    return router


def _place(cursor: str | None) -> After | None:
    if cursor is None:
        return None
    of, alert, run, kind = read(cursor, str, str, str, str)
    with suppress(ValueError):
        at = datetime.fromisoformat(of)
        if at.tzinfo is not None:
            return After(at, alert, run, kind)
    raise UsageError("cursor is not one of this list's; take `next` of the page before, or leave it out")
