"""Runs: submitted, looked at, cancelled, tried again; what they said and left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

from fastapi import APIRouter, Header, Path, Query
from pydantic import AwareDatetime, Field
from starlette.responses import Response, StreamingResponse

from flowkit import book, trace
from flowkit.errors import NotFound, UsageError
from flowkit.events import Event, fold, kernel, usage, with_children
from flowkit.history import changed
from flowkit.model import Policy, Run, State, iso, now
from flowkit.server.api import examples
from flowkit.server.api.deployments import PolicyBody
from flowkit.server.api.parts import Body, Cursor, Limit, Parts, file, page, page_of, read, told
from flowkit.server.files import folders, pieces, printed
from flowkit.server.files import opened as open_file
from flowkit.server.problems import Answer
from flowkit.store.runs import Place

Id = Annotated[str, Path(max_length=100, description="Of a run: its id, or the beginning of it.")]
Attempt = Annotated[int | None, Query(ge=1, lt=2**31, description="The newest, if none is given.")]
Key = Annotated[str | None, Header(max_length=200, description="The same key again gives the same run.")]
Caller = Annotated[
    str | None,
    Header(
        max_length=500,
        description="Of W3C Trace Context: the span it is submitted from.",
        examples=["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    ),
]
StateName = Annotated[str, Field(pattern="^(pending|running|succeeded|failed|cancelled)$")]

#: Characters of output in one answer of events, about.
CHUNKS = 500


class RunBody(Body):
    deployment: str = Field(max_length=200, examples=["flight_delays"])
    parameters: dict[str, Any] = Field({}, description="Laid over the deployment's own.")
    policy: Annotated[PolicyBody, Field(description="What differs from the deployment's.")] = PolicyBody()


class NotebookRunBody(Body):
    notebook: str = Field(description="The notebook's file, as text.", examples=['{"cells": [], "metadata": {}}'])
    path: str = Field(max_length=4096, description="Where it is on the machine it comes from.", examples=["a.ipynb"])
    commit: Annotated[str | None, Field(max_length=100, description="Of git, that its folder is at.")] = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    policy: PolicyBody = PolicyBody()


class RetryBody(Body):
    node: str | None = Field(None, max_length=500, description="Compute it again, and what depends on it.")


class _Common(TypedDict):
    """What runs are listed and searched by."""

    limit: int
    before: Place | None
    deployment: str | None
    states: list[State]
    queue: str | None
    since: datetime | None
    until: datetime | None


def routes(parts: Parts) -> APIRouter:
    router = APIRouter(tags=["runs"], default_response_class=Answer)
    store, artifacts, actions = parts.store, parts.artifacts, parts.actions

    @router.get("/runs", responses=told(examples.RUN, paged=True))
    def list_runs(
        deployment: Annotated[str | None, Query(max_length=200)] = None,
        state: Annotated[list[StateName] | None, Query(max_length=5)] = None,
        queue: Annotated[str | None, Query(max_length=100)] = None,
        notebook: Annotated[str | None, Query(max_length=4096, description="Path it was submitted from.")] = None,
        since: Annotated[AwareDatetime | None, Query(description="Submitted then or later.")] = None,
        until: Annotated[AwareDatetime | None, Query(description="Submitted before.")] = None,
        parameter: Annotated[
            list[str] | None,
            Query(
                max_length=10, description="All of these values, each as `NAME=VALUE`.", examples=[["day=2013-07-01"]]
            ),
        ] = None,
        error: Annotated[
            str | None, Query(min_length=1, max_length=500, description="A part of it.", examples=["Timeout"])
        ] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """Newest first. With `parameter` or `error` a page looks at so many runs at most: it may be short, or empty,
        while `next` goes on."""
        common: _Common = {
            "limit": limit + 1,
            "before": None if cursor is None else _place(cursor),
            "deployment": deployment,
            "states": [State(one) for one in state or ()],
            "queue": queue,
            "since": since,
            "until": until,
        }
        if not parameter and error is None:
            return _page(store.runs(**common, notebook=notebook), limit)
        if notebook is not None:
            raise UsageError("notebook goes with neither parameter nor error; leave it out, or name the deployment")
        found = store.search(**common, parameters=[_pair(one) for one in parameter or ()], error=error)
        return _page(found.runs, limit, found.scanned)

    @router.post("/runs", status_code=202, responses=told(examples.RUN, status=202))
    def submit_run(body: RunBody, idempotency_key: Key = None, traceparent: Caller = None) -> Response:
        """Run a deployment. It is stored when this is answered."""
        return _accepted(
            actions.submit_deployment(
                body.deployment,
                parameters=body.parameters,
                key=idempotency_key or None,
                policy=body.policy.model_dump(exclude_unset=True),
                traceparent=trace.checked(traceparent),
            )
        )

    @router.post("/notebook-runs", status_code=202, responses=told(examples.RUN, status=202))
    def submit_notebook(body: NotebookRunBody, idempotency_key: Key = None, traceparent: Caller = None) -> Response:
        """Run a notebook that is not deployed."""
        return _accepted(
            actions.submit_text(
                body.notebook,
                body.path,
                commit=body.commit,
                parameters=body.parameters,
                key=idempotency_key or None,
                policy=body.policy.model_dump(exclude_unset=True),
                traceparent=trace.checked(traceparent),
            )
        )

    @router.get("/runs/{id}", responses=told(examples.RUN | {"nodes": [examples.NODE], "kernel": None, "usage": None}))
    def get_run(id: Id) -> Response:
        run = store.run(id)
        _, events = store.events(run.id, attempt=run.attempt, output=False)
        used, wait = usage(events), store.wait(run, now=now())
        more = {
            "kernel": kernel(events),
            "usage": used and used.to_json(),
            "waits_for": wait and wait.reason,
            "waits_until": wait and iso(wait.until),
        }
        nodes = with_children(fold(events, ended=run.state.final), store.children(run.id) if run.family else ())
        return Answer(whole(run) | {"nodes": [node.to_json() for node in nodes]} | more)

    @router.post("/runs/{id}/cancel", status_code=202, responses=told(examples.RUN, status=202))
    def cancel(id: Id) -> Response:
        """At once if it waits; one that runs is `cancelling` until its kernel has ended, within seconds."""
        return Answer(whole(actions.cancel(id)), 202)

    @router.post("/runs/{id}/retry", status_code=202, responses=told(examples.RUN, status=202))
    def retry(id: Id, body: RetryBody | None = None) -> Response:
        """Another attempt of a failed or cancelled run. Nodes that have finished keep their results."""
        return Answer(whole(actions.retry(id, forget=None if body is None else body.node)), 202)

    @router.get("/runs/{id}/nodes", responses=told([examples.NODE]))
    def list_nodes(id: Id, attempt: Attempt = None) -> Response:
        """Node runs of an attempt."""
        run, number = _attempt(id, attempt)
        _, events = store.events(run.id, attempt=number, output=False)
        ended = run.state.final or number < run.attempt
        children = store.children(run.id) if run.family and number == run.attempt else ()
        return Answer([node.to_json() for node in with_children(fold(events, ended=ended), children)])

    @router.get("/runs/{id}/events", responses=told(examples.EVENTS))
    def list_events(
        id: Id,
        attempt: Attempt = None,
        after: Annotated[int, Query(ge=0, lt=2**31, description="`position` of the answer before.")] = 0,
        output: Annotated[bool | None, Query(description="What it printed alone; or all else.")] = None,
    ) -> Response:
        """What an attempt recorded, in order. Ask again from `position` on until `state` is final and none comes."""
        run, number = _attempt(id, attempt)  # before its events: none of a run that has ended is missed
        position, events = store.events(run.id, attempt=number, after=after, output=output, limit=CHUNKS)
        state = run.state.value if number == run.attempt else "over"
        told_of = [plain(event) for event in events]
        return Answer({"attempt": number, "position": position, "state": state, "events": told_of})

    @router.get("/runs/{id}/log", responses=file("text/plain"))
    def get_log(id: Id, attempt: Attempt = None) -> Response:
        """What an attempt printed, as text: its last 10 MB."""
        run, number = _attempt(id, attempt)
        return Response(printed(store, run, number), media_type="text/plain; charset=utf-8")

    @router.get("/runs/{id}/book", responses=file("application/x-ipynb+json", examples.BOOK))
    def get_book(id: Id) -> Response:
        """The run as a notebook to go on with, as `flowkit open` writes it: its first cell loads its results."""
        run = store.run(id)
        saved = {"Content-Disposition": f'attachment; filename="{book.name(run)}"'}
        return Response(book.made(store, run), headers=saved, media_type="application/x-ipynb+json")

    @router.get("/runs/{id}/diff", responses=told(examples.COMPARISON))
    def compare(
        id: Id,
        other: Annotated[str | None, Query(max_length=100, description="A run; the last success before it.")] = None,
    ) -> Response:
        """How it differs from another, what most likely broke it first."""
        before = None if other is None else store.run(other)
        return Answer(changed(store, artifacts, store.run(id), before).to_json())

    @router.get("/runs/{id}/artifacts", responses=told(examples.ARTIFACT, paged=True))
    def list_artifacts(id: Id, limit: Limit = 100, cursor: Cursor = None) -> Response:
        """The files it left: of each attempt, and the results of its nodes (`kept`)."""
        run = store.run(id)
        found = [
            {"path": f"{folder}/{name}", "bytes": size}
            for folder, place in folders(run).items()
            for name, size in artifacts.sizes(place).items()
        ]
        found.sort(key=lambda one: str(one["path"]))
        return page_of(found, limit=limit, cursor=cursor, key="path")

    @router.get("/runs/{id}/artifacts/{folder}/{name}", responses=file())
    def get_artifact(
        id: Id,
        folder: Annotated[str, Path(pattern="^([0-9]{1,9}|kept)$")],
        name: Annotated[str, Path(max_length=300)],
    ) -> Response:
        opened = open_file(artifacts, store.run(id), folder, name)
        saved = {"Content-Disposition": 'attachment; filename="artifact"'}
        return StreamingResponse(pieces(opened), media_type="application/octet-stream", headers=saved)

    def _attempt(id: str, attempt: int | None) -> tuple[Run, int]:
        run = store.run(id)
        if attempt is not None and attempt > run.attempt:
            raise NotFound(f"run {run.id[:8]} has no attempt {attempt}; its newest is {run.attempt}")
        return run, attempt or run.attempt

    return router


def _accepted(run: Run) -> Response:
    return Answer(whole(run), 202, headers={"Location": f"/api/v1/runs/{run.id}"})


def _page(found: Sequence[Run], limit: int, scanned: Place | None = None) -> Answer:
    """*found*: one more than the page holds, if there are more; *scanned*: else the next one begins there."""
    some = found[:limit]
    last = some[-1] if len(found) > limit else scanned
    return page([whole(one) for one in some], None if last is None else [last.created.timestamp(), last.id])


def _pair(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not (name and equals):
        raise UsageError(f"parameter {given!r} is no NAME=VALUE")
    return name, value


def _place(cursor: str) -> Place:
    created, id = read(cursor, float, str)
    return Place(datetime.fromtimestamp(min(max(created, 0.0), 1e11), UTC), id)


def whole(run: Run) -> dict[str, Any]:
    """With what an operator wants to know besides what ``--json`` prints."""
    return run.to_json() | {
        "key": run.key,
        "worker": run.worker,
        "last_attempt": run.last_attempt,
        "trace": trace.of_run(run.id, run.traceparent).trace,
        "available": iso(run.available),
        "policy": {name: getattr(run.policy, name) for name in Policy.__slots__},
    }


def plain(event: Event) -> dict[str, Any]:
    told = {name: getattr(event, name) for name in ("kind", "at", "name", "flow", "state", "error", "attempt", "data")}
    return {name: value for name, value in told.items() if value not in (None, "")}
