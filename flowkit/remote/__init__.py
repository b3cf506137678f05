"""A server elsewhere, asked over HTTP for what ``client.Client`` does here. Loads neither store nor broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import sleep
from typing import Any

from flowkit import notebooks, trace
from flowkit.changes import Change, Comparison
from flowkit.commit import commit_of
from flowkit.config import Config
from flowkit.errors import UsageError
from flowkit.events import Event, Usage, usage
from flowkit.model import (
    KEEP_FAILED,
    KEEP_SUCCEEDED,
    Backfill,
    Deployment,
    Limit,
    Policy,
    Queue,
    Run,
    Schedule,
    State,
    Worker,
    new_id,
)
from flowkit.remote.nouns import made, to_backfill, to_deployment, to_run
from flowkit.remote.store import RemoteStore
from flowkit.remote.web import LONG, PAGE, Web, part
from flowkit.worker import cron

#: Seconds between two looks of somebody who follows a run.
FOLLOW = 0.5


class Remote:
    """What commands do, done by the server at ``FLOWKIT_API_URL``. A context manager."""

    def __init__(self, config: Config) -> None:
        """Raises UsageError if the settings cannot be meant so. Nothing is asked yet."""
        self.config = config
        self._web = Web(config)
        self.store = RemoteStore(self._web)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._web.close()

    # -- deployments --------------------------------------------------------------------------------------------------

    def deploy(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        schedule: Schedule | None = None,
        policy: Policy | None = None,
        keep_succeeded: int = KEEP_SUCCEEDED,
        keep_failed: int = KEEP_FAILED,
    ) -> tuple[Deployment, bool]:
        body = {
            **_file(path),
            "name": name,
            "parameters": dict(parameters or {}),
            "schedule": None if schedule is None else _schedule_body(schedule),
            "policy": _policy_body(policy or Policy()),
            "keep_succeeded": keep_succeeded,
            "keep_failed": keep_failed,
        }
        # The same again changes nothing.
        told = self._web.ask("POST", "deployments", body, again=True)
        return to_deployment(told), told["new"]

    def delete(self, name: str, *, cancel: bool = False) -> None:
        self._web.ask("DELETE", f"deployments/{part(name)}", params={"cancel": cancel})

    def pause(self, name: str) -> Deployment:
        return to_deployment(self._web.ask("POST", f"deployments/{part(name)}/pause", again=True))

    def resume(self, name: str) -> Deployment:
        return to_deployment(self._web.ask("POST", f"deployments/{part(name)}/resume", again=True))

    def upcoming(self, target: str, *, tz: str | None, count: int) -> tuple[Schedule, list[datetime]]:
        if len(target.split()) > 1 or target.startswith("@"):
            schedule = cron.validate(Schedule(cron=target, zone=tz or "UTC"))
            path, params = "firings", {"cron": target, "zone": schedule.zone}
        else:
            found = self.store.deployment(target).schedule
            if found is None:
                raise UsageError(f"{target} has no schedule; deploy it with --cron or --every")
            if tz is not None:
                raise UsageError(f"the schedule of {target} has a zone, {found.zone}; leave --tz out")
            schedule, path, params = found, f"deployments/{part(target)}/firings", {}
        if count > PAGE:
            raise UsageError(f"a server tells at most {PAGE} firings at once, not {count}; ask for fewer")
        told = self._web.ask("GET", path, params={**params, "limit": count})
        return schedule, [datetime.fromisoformat(one["utc"]) for one in told]

    # -- runs ---------------------------------------------------------------------------------------------------------

    def submit(
        self,
        target: str | Path,
        *,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        policy: Mapping[str, Any] | None = None,
        traceparent: str | None = None,
    ) -> Run:
        """As ``Client.submit``. With no key of the caller's it has one of its own, so that it can be asked again."""
        body = {"parameters": dict(parameters or {}), "policy": dict(policy or {})}
        if shared := sorted({"hosts", "max_concurrent", "rate"} & body["policy"].keys()):
            raise UsageError(f"{shared[0]} holds for all runs of a deployment; deploy it with that, or leave it out")
        headers = {"Idempotency-Key": key or new_id(), **trace.header(traceparent)}
        if notebooks.is_path(target):
            return to_run(self._web.ask("POST", "notebook-runs", _file(target) | body, again=True, headers=headers))
        deployed = {"deployment": self.store.named(str(target)).name}
        return to_run(self._web.ask("POST", "runs", deployed | body, again=True, headers=headers))

    def retry(self, run: str, *, forget: str | None = None) -> Run:
        return to_run(self._web.ask("POST", f"runs/{part(run)}/retry", {"node": forget}))

    def cancel(self, run: str) -> Run:
        return to_run(self._web.ask("POST", f"runs/{part(run)}/cancel"))

    def backfill(
        self, name: str, parameter: str, values: Sequence[str], *, concurrency: int, only_failed: bool = False
    ) -> Backfill:
        body = {
            "deployment": name,
            "parameter": parameter,
            "values": list(values),
            "concurrency": concurrency,
            "only_failed": only_failed,
        }
        # The same again makes only what is missing; but what has failed meanwhile is not tried over and over.
        return to_backfill(self._web.ask("POST", "backfills", body, again=not only_failed))

    def follow_backfill(self, id: str, on_change: Callable[[Backfill], None]) -> Backfill:
        while True:
            seen = to_backfill(self._web.ask("GET", f"backfills/{part(id)}", patience=LONG))
            on_change(seen)
            if seen.ended == seen.total:
                return seen
            sleep(FOLLOW)

    def values(self, target: str | Path, pairs: Mapping[str, str]) -> dict[str, Any]:
        if not pairs:
            return {}
        if notebooks.is_path(target):
            return notebooks.read(target).from_text(pairs)
        deployment = self.store.named(str(target))
        snapshot = self.store.snapshot(deployment.snapshot)
        return notebooks.parse(snapshot, name=Path(deployment.notebook).name).from_text(pairs)

    def children(self, run: Run) -> list[Run]:
        """Nobody asks the server for them: each node of the run tells which run it is."""
        return []

    def recorded(self, run: Run) -> list[Event]:
        return self.store.events(run.id, attempt=run.attempt, output=False)[1]

    def search(
        self,
        *,
        limit: int,
        deployment: str | None = None,
        states: Sequence[State] = (),
        parameters: Sequence[tuple[str, str]] = (),
        error: str | None = None,
    ) -> list[Run]:
        return self.store.search(limit=limit, deployment=deployment, states=states, parameters=parameters, error=error)

    def busy(self) -> dict[str, list[tuple[Run, Usage | None]]]:
        found: dict[str, list[tuple[Run, Usage | None]]] = {}
        for run in self.store.runs(states=[State.RUNNING], limit=1_000):
            found.setdefault(run.worker or "", []).append((run, usage(self.recorded(run))))
        return found

    def follow(
        self, run: str, on_events: Callable[[Run, Sequence[Event]], None], *, output: bool | None = False
    ) -> Run:
        """As ``Client.follow``. A server that does not answer is waited for, a minute long."""
        seen = self.store.run(run, patience=LONG)
        attempt, after = seen.attempt, 0
        if seen.state is State.PENDING:  # what an attempt before this retry did is an old story
            after, _ = self.store.events(seen.id, attempt=attempt, output=output)
        while True:
            after, events, state = self.store.piece(seen.id, attempt, after, output)
            if state != seen.state:  # or that attempt is over: there is another
                seen = self.store.run(seen.id, patience=LONG)
            on_events(seen, events)
            if seen.attempt != attempt:
                attempt, after = seen.attempt, 0
            elif not events and state == seen.state and seen.state.final:
                return seen
            elif not events:
                sleep(FOLLOW)

    # -- where the work is --------------------------------------------------------------------------------------------

    def workers(self, queue: str | None = None) -> list[Worker]:
        found = [made(Worker, one, queues=tuple(one["queues"])) for one in self._web.all("workers")]
        return [worker for worker in found if queue is None or queue in worker.queues]

    def queues(self) -> list[Queue]:
        return [made(Queue, one, name=one["id"]) for one in self._web.all("queues")]

    def limit_queue(self, name: str, at_once: int | None) -> None:
        self._web.ask("PUT", f"queues/{part(name)}", {"max_concurrent": at_once}, again=True)

    def set_limit(self, name: str, rate: str, *, failures: int | None, within: float, close_for: float) -> Limit:
        body = {"rate": rate, "failures": failures, "within": within, "close_for": close_for}
        told = self._web.ask("PUT", f"limits/{part(name)}", body, again=True)
        return made(Limit, told, name=told["id"])

    def diff(self, run: str, other: str | None = None) -> Comparison:
        told = self._web.ask("GET", f"runs/{part(run)}/diff", params={"other": other})
        return Comparison(
            before=self.store.run(told["before"]["id"]),
            after=self.store.run(told["after"]["id"]),
            changes=tuple(made(Change, one, lines=tuple(one["lines"])) for one in told["changes"]),
            same=tuple(told["same"]),
            unknown=tuple(told["unknown"]),
        )


def _file(path: str | Path) -> dict[str, Any]:
    place = Path(path).absolute()
    return {"notebook": notebooks.read(path).text, "path": str(place), "commit": commit_of(place)}


def _schedule_body(schedule: Schedule) -> dict[str, Any]:
    # An end without a zone has one by now; what is left out is the store's to say.
    return {name: value for name, value in schedule.to_json().items() if name != "next"}


def _policy_body(policy: Policy) -> dict[str, Any]:
    return {name: getattr(policy, name) for name in Policy.__slots__}
