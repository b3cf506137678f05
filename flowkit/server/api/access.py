"""Who may, and who did."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import Response

from flowkit.model import Role, now
from flowkit.server.api import examples
from flowkit.server.api.parts import NOTHING, Body, Cursor, Limit, Parts, page, page_of, read, told
from flowkit.server.problems import Answer


class TokenBody(Body):
    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w][\w .@-]*$", examples=["ci"])
    role: Role = Role.VIEWER
    days: float = Field(90, gt=0, le=3_660, description="Until it expires.")


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["access"], default_response_class=Answer)
    store = parts.store

    @router.get("/me", responses=told({"name": "ci", "role": "operator"}))
    def get_me(request: Request) -> Response:
        """Whose token this is."""
        identity = request.state.identity
        return Answer({"name": identity.name, "role": identity.role.value})

    @router.get("/tokens", responses=told(examples.TOKEN, paged=True))
    def list_tokens(limit: Limit = 100, cursor: Cursor = None) -> Response:
        found = sorted((one.to_json() for one in store.tokens()), key=lambda one: str(one["id"]))
        return page_of(found, limit=limit, cursor=cursor)

    @router.post("/tokens", status_code=201, responses=told(examples.TOKEN | {"secret": "fk_…"}, status=201))
    def create_token(body: TokenBody) -> Response:
        """`secret` is shown this once."""
        at = now()
        token, secret = store.create_token(body.name, body.role, expires=at + timedelta(days=body.days), now=at)
        return Answer(token.to_json() | {"secret": secret}, 201)

    @router.delete("/tokens/{id}", status_code=204, responses=NOTHING)
    def revoke_token(id: Annotated[str, Path(max_length=100)]) -> Response:
        """Nobody gets in with it from now on, nor with a login that was made with it."""
        store.revoke_token(id)
        return Response(status_code=204)

    @router.get("/acts", responses=told(examples.ACT, paged=True))
    def list_acts(limit: Limit = 100, cursor: Cursor = None) -> Response:
        """What was done, and by whom; the newest first."""
        found = store.acts(limit=limit + 1, before=None if cursor is None else read(cursor, int)[0])
        some = found[:limit]
        return page([one.to_json() for one in some], [some[-1].id] if len(found) > limit else None)

    return router
