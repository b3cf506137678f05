"""What happens to all runs, as it happens: server-sent events, or the same over a WebSocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, WebSocket
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocketDisconnect

from flowkit.errors import UsageError
from flowkit.server.api.parts import REFUSALS, Parts
from flowkit.server.api.runs import plain
from flowkit.server.feed import Feed
from flowkit.server.problems import Answer, problem
from flowkit.store.changes import Change, Position

#: Streams at once.
MOST = 200

_ABOUT = """
What happens to all runs, as server-sent events, or as messages `{id, event, data}` of a WebSocket at the same place. A
`run` has become what `state` says; `nodes` brings what an attempt recorded, without its output. Come back with the last
`id` as `Last-Event-ID` (or `after`), and nothing is missed: what is older than six hours is not known any more, which
the event `forgotten` says.
"""
_EXAMPLE = 'id: 0.7\nevent: run\ndata: {"run":"1a2b3c4d-…","deployment":"invoices","state":"running","attempt":1}\n\n'


def routes(parts: Parts, feed: Feed) -> APIRouter:
    router = APIRouter(tags=["events"], default_response_class=Answer)
    stream = {"description": "A stream.", "content": {"text/event-stream": {"example": _EXAMPLE}}}

    @router.get("/events", responses={200: stream, **REFUSALS}, description=_ABOUT)
    async def follow_events(
        last_event_id: Annotated[str | None, Header(max_length=50)] = None,
        after: Annotated[str | None, Query(max_length=50, description="As Last-Event-ID.")] = None,
        run: Annotated[str | None, Query(max_length=100, description="Of one run, by its whole id.")] = None,
        deployment: Annotated[str | None, Query(max_length=200)] = None,
    ) -> Response:
        if feed.followers >= MOST:
            return problem(429, f"{MOST} programs follow the events already", headers={"Retry-After": "30"})
        position = _position(last_event_id or after)

        async def written() -> AsyncIterator[str]:
            async for message in _messages(parts, feed, position, run, deployment):
                if message is None:
                    yield ": nothing new\n\n"
                else:
                    id, event, data = message
                    yield f"id: {id}\nevent: {event}\ndata: {json.dumps(data)}\n\n"

        # Proxies that gather an answer before they pass it on would gather this one for ever.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(written(), media_type="text/event-stream", headers=headers)

    @router.websocket("/events")
    async def follow_events_by_websocket(
        websocket: WebSocket, after: str | None = None, run: str | None = None, deployment: str | None = None
    ) -> None:
        try:
            position = _position(websocket.headers.get("last-event-id") or after)
        except UsageError as error:
            await websocket.close(1008, str(error))
            return
        if feed.followers >= MOST:
            await websocket.close(1013, "too many follow the events already")
            return
        await websocket.accept()
        try:
            async for message in _messages(parts, feed, position, run, deployment):
                told = None if message is None else dict(zip(("id", "event", "data"), message, strict=True))
                await websocket.send_text(json.dumps(told or {"event": "quiet"}))
        except (WebSocketDisconnect, RuntimeError):  # it has gone
            pass

    return router


async def _messages(
    parts: Parts, feed: Feed, after: Position | None, run: str | None, deployment: str | None
) -> AsyncIterator[tuple[str, str, dict[str, Any]] | None]:
    """None: no news for a while."""
    start = await feed.here() if after is None else after
    if after is not None and await run_in_threadpool(lambda: parts.store.changes_forgotten(after=after)):
        yield str(start), "forgotten", {"why": "events after this one are not known any more; read the runs anew"}
    else:
        yield str(start), "here", {}  # whoever is cut off before the first event comes back to this place
    async for changes in feed.follow(start):
        if not changes:
            yield None
        for change in changes:
            of = change.now.deployment if change.now else None
            if (run is None or change.run == run) and (deployment is None or of == deployment):
                yield str(change.position), "run" if change.state else "nodes", _told(change)


def _told(change: Change) -> dict[str, Any]:
    now = change.now
    told: dict[str, Any] = {
        "run": change.run,
        "deployment": now and now.deployment,
        "queue": now and now.policy.queue,
        "attempt": change.attempt,
    }
    if change.state is None:
        return told | {"position": change.seq, "events": [plain(event) for event in change.events]}
    return told | {"state": change.state.value}


def _position(text: str | None) -> Position | None:
    if not text:
        return None
    position = Position.parse(text)
    if position is None:
        raise UsageError("Last-Event-ID is not an id of this stream; leave it out to begin now")
    return position
