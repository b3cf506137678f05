"""The route by which a page acts: ``POST act/<name>`` with a JSON object, from a page of ours alone.

The guard sees to who it is, that the page is one of this server, to their role, and to the record; what a page may do
is in its module's ``ACTS``. It is answered with one line: what was done, or what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowkit.errors import FlowkitError, NotFound, UsageError
from flowkit.server.actions import Actions
from flowkit.server.problems import Answer, problem, status_of


@dataclass(frozen=True, slots=True)
class Done:
    said: str  #: one line, for who pressed the button
    about: str = ""  #: for the record: to what it was done
    more: Mapping[str, Any] = field(default_factory=dict)  #: for the page


#: Does what the object asks for. A ``FlowkitError`` is told in one line.
Act = Callable[[Actions, Mapping[str, Any]], Done]


def route(actions: Actions, acts: Mapping[str, Act]) -> Route:
    async def act(request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(_do, request, body)

    def _do(request: Request, body: bytes) -> Response:
        name = request.path_params["name"]
        try:
            if name not in acts:
                raise NotFound(f"no page can do {name!r}")
            done = acts[name](actions, _object(body))
        except FlowkitError as error:
            return problem(status_of(error), str(error))
        request.state.about = done.about
        return Answer({"said": done.said, **done.more})

    return Route("/act/{name}", act, methods=["POST"])


def given(said: Mapping[str, Any], name: str, kind: type, most: int = 1_000) -> Any:
    """What was said under that name. Raises: UsageError if it is no *kind*, or longer than that."""
    value = said.get(name)
    if not isinstance(value, kind) or (isinstance(value, str | list | dict) and len(value) > most):
        raise UsageError(f"{name} is to be a {kind.__name__} of at most {most}")
    return value


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError as error:
        raise UsageError(f"what to do is said as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError("what to do is said as a JSON object")
    return found
