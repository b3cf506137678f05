"""Whether it lives, whether it can answer, and its figures: for what watches it."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flowkit.errors import FlowkitError
from flowkit.server.metrics import Metrics
from flowkit.store import Store


def routes(store: Store, metrics: Metrics) -> list[Route]:
    async def live(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        try:
            await run_in_threadpool(store.clock)
            await run_in_threadpool(store.here)
        except FlowkitError:  # which is not for everybody to read
            return PlainTextResponse("the store does not answer\n", 503, headers={"Retry-After": "5"})
        return PlainTextResponse("ok\n")

    async def figures(_: Request) -> Response:
        return Response(await run_in_threadpool(metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/healthz", live), Route("/readyz", ready), Route("/metrics", figures)]
