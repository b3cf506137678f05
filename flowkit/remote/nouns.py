"""The nouns of ``flowkit.model``, made from what a server says of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from flowkit.model import Backfill, CatchUp, Cause, Deployment, Overlap, Policy, Role, Run, Schedule, State, Token

#: Fields of the nouns that are times.
_TIMES = frozenset(
    ("created", "updated", "started", "finished", "scheduled_for", "available", "seen", "oldest", "closed", "expires")
) | frozenset(("at", "first", "last", "start", "end", "next"))

Noun = TypeVar("Noun")


def at(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def made(kind: type[Noun], told: Mapping[str, Any], **more: Any) -> Noun:
    """What a newer server says besides is left out."""
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]
    known = {name: at(told[name]) if name in _TIMES else told[name] for name in names if name in told}
    return kind(**known | more)


def to_run(told: Mapping[str, Any]) -> Run:
    return made(
        Run,
        told,
        key=told.get("key") or told["id"],
        policy=made(Policy, told.get("policy") or {"queue": told["queue"]}),
        state=State(told["state"]),
        cause=told["cause"] and Cause(told["cause"]),
        digest=told["sha256"],
    )


def to_deployment(told: Mapping[str, Any]) -> Deployment:
    schedule = told["schedule"] and _schedule(told["schedule"])
    return made(Deployment, told, name=told["id"], policy=made(Policy, told), schedule=schedule)


def _schedule(told: Mapping[str, Any]) -> Schedule:
    return made(Schedule, told, catch_up=CatchUp(told["catch_up"]), overlap=Overlap(told["overlap"]))


def to_backfill(told: Mapping[str, Any]) -> Backfill:
    return made(Backfill, told, counts={State(name): count for name, count in told["counts"].items()})


def to_token(told: Mapping[str, Any]) -> Token:
    return made(Token, told, role=Role(told["role"]))
