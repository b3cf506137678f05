"""What every noun's routes are made of: pages, cursors, and how answers are described."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict

from flowkit.artifacts import Artifacts
from flowkit.errors import UsageError
from flowkit.server.actions import Actions
from flowkit.server.problems import Answer
from flowkit.store import Store

#: Things on one page.
MOST = 500

Limit = Annotated[int, Query(ge=1, le=MOST, description="Things on a page.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next` of the page before.")]


@dataclass(frozen=True, slots=True)
class Parts:
    store: Store
    artifacts: Artifacts
    actions: Actions


class Body(BaseModel):
    """Of a request: what is not known is refused, lest a typo be a default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def page(items: Sequence[Any], next: list[Any] | None) -> Answer:
    return Answer({"items": list(items), "next": None if next is None else _written(next)})


def page_of(
    everything: Sequence[dict[str, Any]], *, limit: int, cursor: str | None, key: str = "id", descending: bool = False
) -> Answer:
    """A page of what is few enough to be read as a whole, ordered by *key*. Others may come and go between pages."""
    start = 0
    if cursor is not None and everything:
        [last] = read(cursor, type(everything[0][key]))
        start = sum(1 for one in everything if (one[key] >= last if descending else one[key] <= last))
    some = everything[start : start + limit]
    return page(some, [some[-1][key]] if len(everything) > start + limit else None)


def read(cursor: str, *kinds: type) -> list[Any]:
    """What a cursor was made of. Raises: UsageError."""
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
        if isinstance(found, list) and [type(one) for one in found] == list(kinds):
            return found
    except (ValueError, RecursionError):
        pass
    raise UsageError("cursor is not one of this list's; take `next` of the page before, or leave it out")


def _written(place: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def told(
    example: Any, *, status: int = 200, kind: str = "application/json", paged: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The description of an answer, made from an example of it; and of a refusal."""
    whole = {"items": [example], "next": None} if paged else example
    schema = _schema(whole)
    if paged:
        schema["properties"]["next"] = {"type": ["string", "null"]}
    good = {"description": "Done.", "content": {kind: {"schema": schema, "example": whole}}}
    return {status: good, **REFUSALS}


def file(kind: str = "application/octet-stream", example: Any = None) -> dict[int | str, dict[str, Any]]:
    """The description of a file; of one that is JSON if there is an example of it."""
    content = {"schema": {"type": "string"}} if example is None else {"schema": _schema(example), "example": example}
    return {200: {"description": "The file.", "content": {kind: content}}, **REFUSALS}


NOTHING: dict[int | str, dict[str, Any]] = {}

_PROBLEM = {
    "type": "about:blank",
    "title": "Not Found",
    "status": 404,
    "detail": "no run begins with '1a2b3c4d'; flowkit runs lists them",
}


def _schema(example: Any) -> dict[str, Any]:
    """Every key of it is always there; what it has as null may be anything, and anything may be null."""
    if example is None:
        return {}
    if isinstance(example, dict):
        each = {name: _schema(value) for name, value in example.items()}
        return {"type": ["object", "null"], "properties": each, "required": list(example)}
    if isinstance(example, list):
        return {"type": ["array", "null"], "items": _schema(example[0]) if example else {}}
    kinds: dict[type, Literal["boolean", "integer", "number", "string"]]
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    kind = kinds[type(example)]
    return {"type": ["number" if kind == "integer" else kind, "null"]}


REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "Refused: `detail` says why, and what to do.",
        "content": {"application/problem+json": {"schema": _schema(_PROBLEM), "example": _PROBLEM}},
    },
    "503": {
        "description": "The store does not answer; try again after `Retry-After` seconds.",
        "content": {"application/problem+json": {"schema": _schema(_PROBLEM)}},
    },
}
NOTHING |= {204: {"description": "Done."}, **REFUSALS}
