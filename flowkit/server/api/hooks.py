"""Hooks: a program elsewhere runs a deployment by signing what it sends, with no token."""

from __future__ import annotations

import hmac
import json
import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from flowkit import trace
from flowkit.errors import UsageError
from flowkit.model import Role, Run, epoch, now
from flowkit.server.api import examples
from flowkit.server.api.parts import NOTHING, Cursor, Limit, Parts, page_of, told
from flowkit.server.problems import Answer, problem
from flowkit.server.sessions import Identity

#: Seconds by which the sender's clock may differ, or its message be late.
TOLERANCE = 300

HEADER = "Flowkit-Signature"

_SIGNED = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")

Name = Annotated[str, Path(max_length=200, description="The deployment's.")]

#: What is read by hand, as its bytes are what is signed.
_DESCRIBED: dict[str, Any] = {
    "security": [],
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": True,
            "schema": {"type": "string"},
            "example": "t=1372672800,v1=5f1d0c",
            "description": "`t=SECONDS,v1=HEX`: HMAC-SHA256 by the hook's secret of `SECONDS.BODY`.",
        },
        {
            "name": "traceparent",
            "in": "header",
            "schema": {"type": "string"},
            "example": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "description": "Of W3C Trace Context: the span it is submitted from.",
        },
    ],
    "requestBody": {"content": {"application/json": {"schema": {"type": "object"}, "example": {"day": "2013-07-01"}}}},
}


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["hooks"], default_response_class=Answer)
    store, actions = parts.store, parts.actions

    @router.post(
        "/hooks/{name}",
        status_code=202,
        responses=told({"run": "1a2b3c4d-…", "state": "pending"}, status=202),
        openapi_extra=_DESCRIBED,
    )
    async def call_hook(name: Name, request: Request) -> Response:
        """Run it, with the body's values laid over its parameters. Signed at most 5 minutes ago; the same again gives
        the same run."""
        body = await request.body()
        signature = request.headers.get(HEADER, "")
        if not await run_in_threadpool(_signed, name, signature, body):
            return problem(401, f"no hook of that name, or {HEADER} is not t=SECONDS,v1=HMAC of now and this body")
        # From here on it is on record who did it.
        request.state.identity = Identity(f"hook {name}"[:100], Role.OPERATOR)
        caller = trace.checked(request.headers.get("traceparent"))
        run = await run_in_threadpool(_submitted, name, signature, body, caller)
        return Answer({"run": run.id, "state": run.state.value}, 202)

    def _signed(name: str, signature: str, body: bytes) -> bool:
        secret = store.hook_secret(name) or ""
        found = _SIGNED.fullmatch(signature)
        if not secret or found is None or abs(epoch() - int(found[1])) > TOLERANCE:
            return False
        expected = hmac.new(secret.encode(), found[1].encode() + b"." + body, "sha256").hexdigest()
        return hmac.compare_digest(expected, found[2])

    def _submitted(name: str, signature: str, body: bytes, caller: str | None) -> Run:
        # The signature is of this body at this time: who sends it again is given the run that it has made.
        key = f"hook {name} {signature}"
        return actions.submit_deployment(name, parameters=_values(body), key=key, policy={}, traceparent=caller)

    @router.get("/hooks", responses=told(examples.HOOK, paged=True))
    def list_hooks(limit: Limit = 100, cursor: Cursor = None) -> Response:
        return page_of([one.to_json() for one in store.hooks()], limit=limit, cursor=cursor, key="deployment")

    @router.put("/hooks/{name}", status_code=201, responses=told(examples.HOOK | {"secret": "fkh_…"}, status=201))
    def make_hook(
        name: Name, rotate: Annotated[bool, Query(description="Another secret for the one that is there.")] = False
    ) -> Response:
        """`secret` is shown this once. Rotated, the one before is good no more."""
        hook, secret = store.make_hook(name, rotate=rotate, now=now())
        return Answer(hook.to_json() | {"secret": secret}, 201)

    @router.delete("/hooks/{name}", status_code=204, responses=NOTHING)
    def remove_hook(name: Name) -> Response:
        store.remove_hook(name)
        return Response(status_code=204)

    return router


def _values(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body, parse_constant=_refuse) if body.strip() else {}
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}"[:300]) from error
    if not isinstance(found, dict):
        raise UsageError("the body is to be an object of parameters' names and values")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is none of its numbers")
