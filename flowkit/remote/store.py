"""What the server's store says, asked over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flowkit import notebooks
from flowkit.errors import NotFound
from flowkit.events import Event
from flowkit.model import Act, Backfill, Deployment, Hook, Limit, Reason, Role, Run, Skip, State, Token, Wait, now
from flowkit.remote.nouns import at, made, to_backfill, to_deployment, to_run, to_token
from flowkit.remote.web import LONG, Web, part


class RemoteStore:
    """What the commands read of a store, and the little that they change there without a client."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def run(self, id: str, *, patience: float | None = None) -> Run:
        return to_run(self._web.ask("GET", f"runs/{part(id)}", patience=patience))

    def runs(self, *, limit: int, deployment: str | None = None, states: Sequence[State] = ()) -> list[Run]:
        return self._runs(limit, deployment=deployment, state=list(states))

    def page(
        self,
        *,
        offset: int,
        limit: int,
        deployment: str | None = None,
        notebook: str | None = None,
        states: Sequence[State] = (),
    ) -> tuple[list[Run], int]:
        found = self._runs(offset + limit, deployment=deployment, state=list(states), notebook=notebook)[offset:]
        return found, len(found)

    def search(
        self,
        *,
        limit: int,
        deployment: str | None,
        states: Sequence[State],
        parameters: Sequence[tuple[str, str]],
        error: str | None,
    ) -> list[Run]:
        pairs = [f"{name}={value}" for name, value in parameters]
        return self._runs(limit, deployment=deployment, state=list(states), parameter=pairs, error=error)

    def _runs(self, limit: int, **params: Any) -> list[Run]:
        return [to_run(one) for one in self._web.all("runs", limit=limit, **params)]

    def wait(self, run: Run, *, now: datetime) -> Wait | None:
        told = self._web.ask("GET", f"runs/{part(run.id)}")
        return Wait(told["waits_for"], at(told["waits_until"])) if told["waits_for"] else None

    def events(
        self, run: str, *, attempt: int | None = None, after: int = 0, output: bool | None = None
    ) -> tuple[int, list[Event]]:
        whole: list[Event] = []
        attempt = self.run(run).attempt if attempt is None else attempt
        while True:
            after, events, _ = self.piece(run, attempt, after, output)
            whole += events
            if not events:
                return after, whole

    def piece(self, run: str, attempt: int, after: int, output: bool | None) -> tuple[int, list[Event], State | None]:
        """Some of the events, not all. The state is the run's before they were read; None: there is a newer attempt."""
        params = {"attempt": attempt or None, "after": after, "output": output}
        told = self._web.ask("GET", f"runs/{part(run)}/events", params=params, patience=LONG)
        if told["attempt"] != attempt:  # before the first it was asked of none
            return after, [], None
        state = None if told["state"] == "over" else State(told["state"])
        return told["position"], [Event.from_json(one) for one in told["events"]], state

    def deployment(self, name: str) -> Deployment:
        return to_deployment(self._web.ask("GET", f"deployments/{part(name)}"))

    def named(self, name: str) -> Deployment:
        """The deployment of that name, where it might have been meant as a path."""
        try:
            return self.deployment(name)
        except NotFound as error:
            if Path(name).exists():
                notebooks.read(name)  # says what is wrong with the file or folder of that name
            raise NotFound(f"{error}; a notebook is named by its path, ending in .ipynb") from error

    def deployments(self) -> list[Deployment]:
        return [to_deployment(one) for one in self._web.all("deployments")]

    def snapshot(self, digest: str) -> str:
        return str(self._web.ask("GET", f"snapshots/{part(digest)}")["notebook"])

    def backfills(self, id: str | None = None) -> list[Backfill]:
        if id is not None:
            return [to_backfill(self._web.ask("GET", f"backfills/{part(id)}"))]
        found = [to_backfill(one) for one in self._web.all("backfills")]
        return sorted(found, key=lambda one: one.created, reverse=True)

    def backfill_runs(self, id: str) -> list[Run]:
        return [to_run(one) for one in self._web.all(f"backfills/{part(id)}/runs")]

    def cancel_backfill(self, id: str, *, now: datetime) -> int:
        return int(self._web.ask("POST", f"backfills/{part(id)}/cancel")["cancelled"])

    def skips(self, deployment: str, *, limit: int) -> list[Skip]:
        found = self._web.all(f"deployments/{part(deployment)}/skips", limit=limit)
        return [made(Skip, one, reason=Reason(one["reason"])) for one in found]

    def limits(self) -> list[Limit]:
        return [made(Limit, one, name=one["id"]) for one in self._web.all("limits")]

    def clock(self) -> datetime:
        return now()

    def remove_limit(self, name: str) -> None:
        self._web.ask("DELETE", f"limits/{part(name)}")

    def make_hook(self, deployment: str, *, rotate: bool = False, now: datetime) -> tuple[Hook, str]:
        told = self._web.ask("PUT", f"hooks/{part(deployment)}", params={"rotate": rotate})
        return made(Hook, told), told["secret"]

    def hooks(self) -> list[Hook]:
        return [made(Hook, one) for one in self._web.all("hooks")]

    def remove_hook(self, deployment: str) -> None:
        self._web.ask("DELETE", f"hooks/{part(deployment)}")

    def create_token(self, name: str, role: Role, *, expires: datetime, now: datetime) -> tuple[Token, str]:
        days = (expires - now) / timedelta(days=1)
        told = self._web.ask("POST", "tokens", {"name": name, "role": role, "days": days})
        return to_token(told), told["secret"]

    def tokens(self) -> list[Token]:
        return sorted((to_token(one) for one in self._web.all("tokens")), key=lambda one: one.created, reverse=True)

    def revoke_token(self, name: str) -> Token:
        found = next((one for one in self.tokens() if name in (one.id, one.name)), None)
        self._web.ask("DELETE", f"tokens/{part(found.id if found else name)}")
        assert found is not None  # or the server has said that there is none
        return found

    def acts(self, *, limit: int) -> list[Act]:
        return [made(Act, one) for one in self._web.all("acts", limit=limit)]
