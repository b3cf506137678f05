"""Answers: JSON that every client can read, and errors as RFC 9457 has them."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from flowkit.errors import Conflict, FlowkitError, NotFound, Unavailable


class Answer(JSONResponse):
    """Stored values may hold what JSON has not, or UTF-8: NaN, and half a character."""

    def render(self, content: Any) -> bytes:
        try:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
        except ValueError:
            return json.dumps(_finite(content), separators=(",", ":")).encode()


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> Response:
    """*detail*: one line, with the remedy."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return Answer(told, status, headers=headers, media_type="application/problem+json")


def status_of(error: FlowkitError) -> int:
    if isinstance(error, NotFound):
        return 404
    if isinstance(error, Conflict):
        return 409
    return 503 if isinstance(error, Unavailable) else 422


def tell_problems(app: FastAPI) -> None:
    """Have whatever goes wrong in *app* answered so."""

    @app.exception_handler(FlowkitError)
    def _refused(_: Request, error: FlowkitError) -> Response:
        status = status_of(error)
        return problem(status, str(error), headers={"Retry-After": "5"} if status == 503 else None)

    @app.exception_handler(RequestValidationError)
    def _malformed(_: Request, error: RequestValidationError) -> Response:
        errors = [{"where": ".".join(map(str, one["loc"])), "what": one["msg"]} for one in error.errors()]
        first = errors[0]
        return problem(422, f"{first['where']}: {first['what']}", errors=errors)

    @app.exception_handler(HTTPException)
    def _other(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
