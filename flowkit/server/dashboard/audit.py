"""The page Audit: who did what. For admins, as the same is over the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flowkit.model import Act as Done
from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import Rows, seconds, text

#: Acts on one page.
PAGE = 200


@dataclass(frozen=True, slots=True)
class Acts:
    who: str | None = None  #: None for everybody
    before: int | None = None  #: the last of the page before

    @classmethod
    def asked(cls, said: Mapping[str, Any]) -> Acts:
        before = str(said.get("before") or "")
        return cls(text(said.get("who")), int(before) if before.isdecimal() and len(before) < 19 else None)

    def read(self, look: Look, before: Any) -> list[Done]:
        return look.store.acts(limit=PAGE + 1, before=self.before, who=self.who)

    def tell(self, found: list[Done]) -> dict[str, Any]:
        return {"acts": Rows([_told(act) for act in found[:PAGE]], more=len(found) > PAGE)}


@dataclass(frozen=True, slots=True)
class Actors:
    def read(self, look: Look, before: Any) -> list[str]:
        return look.store.actors()

    def tell(self, found: list[str]) -> dict[str, Any]:
        return {"names": found}


def _told(act: Done) -> dict[str, Any]:
    return {
        "id": str(act.id),
        "at": seconds(act.at),
        "who": act.who,
        "role": act.role,
        "what": act.what,
        "status": act.status,
        "address": act.address,
    }


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "acts": Acts.asked,
    "actors": lambda said: Actors(),
}

ACTS: dict[str, Act] = {}
