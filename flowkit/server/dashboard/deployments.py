"""The page Deployments: all of them, or one with its versions, its year and its backfills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flowkit.changes import Change, notebook_changes
from flowkit.errors import NotebookError, NotFound
from flowkit.model import Backfill, Deployment, Policy, State
from flowkit.parameters import shown
from flowkit.server.actions import Actions
from flowkit.server.dashboard.acts import Act, Done, given
from flowkit.server.dashboard.now import STATES, USUAL, Usual, brief
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import Rows, cut, seconds, text
from flowkit.store.figures import Brief

#: Deployments on one page of the list.
PAGE = 50
#: Newest runs that are shown as dots.
DOTS = 20
#: Of one deployment: days, next firings, versions, backfills, changes of a version and lines of each.
DAYS, FIRINGS, VERSIONS, BACKFILLS, CHANGES, LINES = 365, 5, 50, 20, 60, 80

#: What is read of a deployment: its newest successes tell how long it takes, the dots how they ended.
LIMITS = {State.SUCCEEDED: USUAL} | dict.fromkeys((State.FAILED, State.CANCELLED, State.RUNNING, State.PENDING), DOTS)


@dataclass(frozen=True, slots=True)
class Shelf:
    """One page of the list."""

    like: str | None = None  #: what stands in their names
    after: str | None = None  #: the last of the page before

    @classmethod
    def asked(cls, said: Mapping[str, Any]) -> Shelf:
        return cls(text(said.get("like")), text(said.get("after")))

    def read(self, look: Look, before: Any) -> tuple[list[tuple[Deployment, list[Brief]]], bool]:
        found = look.store.deployments(like=self.like, after=self.after, limit=PAGE + 1)
        shown = found[:PAGE]
        runs = look.sparingly(
            ("lately", tuple(one.name for one in shown)),
            lambda: look.store.lately([one.name for one in shown], limits=LIMITS),
        )
        return [(one, runs[one.name]) for one in shown], len(found) > PAGE

    def tell(self, found: tuple[list[tuple[Deployment, list[Brief]]], bool]) -> dict[str, Any]:
        rows, more = found
        return {"shelf": Rows([_row(one, runs) for one, runs in rows], more=more)}


@dataclass(frozen=True, slots=True)
class One:
    deployment: Deployment
    runs: list[Brief]
    firings: list[datetime]
    versions: list[Deployment]
    backfills: list[Backfill]
    year: Mapping[date, Mapping[State, int]]
    today: date  #: in its zone
    parameters: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Single:
    """One deployment."""

    name: str

    def read(self, look: Look, before: Any) -> One:
        store = look.store
        one = store.deployment(self.name)
        zone = one.schedule.zone if one.schedule else "UTC"
        since = look.at - timedelta(days=DAYS)
        return One(
            deployment=one,
            runs=look.sparingly(("lately", one.name), lambda: store.lately([one.name], limits=LIMITS)[one.name]),
            firings=look.seldom(("firings", one.name, one.schedule), 5.0, lambda: _firings(look, one)),
            versions=store.versions(one.name)[:VERSIONS],
            backfills=look.sparingly(("backfills", one.name), lambda: store.backfills(deployment=one.name)[:BACKFILLS]),
            year=look.sparingly(("year", one.name, zone), lambda: store.year(one.name, zone, since=since)),
            today=look.at.astimezone(ZoneInfo(zone)).date(),
            parameters=look.seldom(("parameters", one.name, one.version), 600.0, lambda: _takes(look, one.name)),
        )

    def tell(self, found: One) -> dict[str, Any]:
        one = found.deployment
        return {
            "about": _row(one, found.runs)
            | {
                "notebook": one.notebook,
                "commit": one.commit,
                "created": seconds(one.created),
                "policy": _policy(one),
                "parameters": _parameters(one),
                "keeps": [one.keep_succeeded, one.keep_failed],
            },
            "firings": [seconds(at) for at in found.firings],
            "versions": [
                {
                    "version": version.version,
                    "at": seconds(version.updated),
                    "commit": version.commit,
                    "current": version.version == one.version,
                }
                for version in found.versions
            ],
            "backfills": [_backfill(one) for one in found.backfills],
            "year": {
                "today": found.today.isoformat(),
                "days": {
                    day.isoformat(): [counts.get(State.SUCCEEDED, 0), counts.get(State.FAILED, 0), sum(counts.values())]
                    for day, counts in found.year.items()
                },
            },
            "form": [
                {name: cut(str(value)) if isinstance(value, str) else value for name, value in parameter.items()}
                for parameter in found.parameters
            ],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    cells: tuple[Change, ...]
    others: list[tuple[str, str, str]]  #: what, before, after


@dataclass(frozen=True, slots=True)
class Versions:
    """What one version of a deployment has otherwise than the one before it."""

    name: str
    version: int

    @classmethod
    def asked(cls, said: Mapping[str, Any]) -> Versions:
        return cls(str(said["name"])[:500], int(said["version"]))

    def read(self, look: Look, before: Any) -> Difference:
        if before is not None:  # neither changes any more
            return before  # type: ignore[no-any-return]
        known = look.store.versions(self.name)
        after = next((one for one in known if one.version == self.version), None)
        was = next((one for one in known if one.version < self.version), None)
        if after is None or was is None:
            raise NotFound(f"there is nothing before version {self.version} of {self.name}")
        cells: tuple[Change, ...] = ()
        if was.snapshot != after.snapshot:
            cells = notebook_changes(look.store.snapshot(was.snapshot), look.store.snapshot(after.snapshot))
        old, new = _settings(was), _settings(after)
        names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
        return Difference(cells, [(name, old.get(name, "none"), new.get(name, "none")) for name in names])

    def tell(self, found: Difference) -> dict[str, Any]:
        return {
            "difference": {
                "cells": [
                    change.to_json()
                    | {
                        "lines": list(change.lines[:LINES]),
                        "before": change.before is not None,
                        "after": change.after is not None,
                    }
                    for change in found.cells[:CHANGES]
                ],
                "unshown": max(0, len(found.cells) - CHANGES),
                "others": [[name, cut(was), cut(now)] for name, was, now in found.others[:CHANGES]],
            }
        }


def _takes(look: Look, name: str) -> list[dict[str, Any]]:
    """Nothing, of a snapshot that is no notebook: its runs say so."""
    try:
        return look.actions.parameters(name)
    except NotebookError:
        return []


def _firings(look: Look, one: Deployment) -> list[datetime]:
    return look.actions.upcoming(one.name, tz=None, count=FIRINGS)[1] if one.schedule else []


def _row(one: Deployment, runs: Sequence[Brief]) -> dict[str, Any]:
    ended = [run for run in runs if run.state.final][:DOTS]
    took = [run.took for run in runs if run.state is State.SUCCEEDED and run.took is not None]
    usual = Usual.of(runs)
    schedule = one.schedule
    return {
        "id": one.name,
        "paused": one.paused,
        "version": one.version,
        "queue": one.policy.queue,
        "schedule": schedule and (schedule.cron or _every(schedule.every or 0)),
        "zone": schedule and schedule.zone,
        "next": seconds(schedule.next) if schedule else None,
        "dots": [brief(run) for run in runs if run.state is not State.PENDING][:DOTS][::-1],
        "waiting": sum(run.state is State.PENDING for run in runs),
        "succeeded": [sum(run.state is State.SUCCEEDED for run in ended), len(ended)],
        "usual": usual and [usual.median, usual.high],
        "took": [round(seconds, 3) for seconds in took[::-1]],
    }


def _every(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"every {seconds / size:g} {unit}"
    return f"every {seconds:g} s"


def _policy(one: Deployment) -> dict[str, str]:
    """What it has otherwise than others."""
    usual = asdict(Policy())
    found = {name: value for name, value in asdict(one.policy).items() if value != usual[name] and name != "queue"}
    return {name: f"{value:g} s" if isinstance(value, float) else str(value) for name, value in found.items()}


def _parameters(one: Deployment) -> dict[str, str]:
    return {name: cut(shown(value, 300)) for name, value in list(one.parameters.items())[:100]}


def _settings(one: Deployment) -> dict[str, str]:
    """All but the notebook, as texts."""
    policy = {name: str(value) for name, value in asdict(one.policy).items()}
    parameters = {f"parameter {name}": repr(value) for name, value in one.parameters.items()}
    keeps = {"keep succeeded": str(one.keep_succeeded), "keep failed": str(one.keep_failed)}
    return parameters | policy | keeps


def _backfill(one: Backfill) -> dict[str, Any]:
    return {
        "id": one.id,
        "parameter": one.parameter,
        "created": seconds(one.created),
        "concurrency": one.concurrency,
        "counts": {state.value: one.counts.get(state, 0) for state in STATES},
        "total": one.total,
        "ended": one.ended,
    }


def _pause(actions: Actions, said: Mapping[str, Any]) -> Done:
    one = actions.pause(given(said, "name", str))
    return Done(f"{one.name} is paused: it fires nothing until it is resumed", one.name)


def _resume(actions: Actions, said: Mapping[str, Any]) -> Done:
    one = actions.resume(given(said, "name", str))
    return Done(f"{one.name} fires again", one.name)


def _run(actions: Actions, said: Mapping[str, Any]) -> Done:
    name = given(said, "name", str)
    values = {str(key): str(value) for key, value in given(said, "values", dict).items()}
    key = given(said, "key", str, 100)  # of the form, so that pressing twice is one run
    parameters = actions.typed(name, values)
    run = actions.submit_deployment(name, parameters=parameters, key=key, policy={})
    return Done(f"run {run.id[:8]} of {name} waits for a worker", f"{name} {run.id}", {"run": run.id})


def _cancel_backfill(actions: Actions, said: Mapping[str, Any]) -> Done:
    one = actions.cancel_backfill(given(said, "id", str))
    return Done(f"the backfill {one.id} is cancelled, {one.ended} of {one.total} runs have ended", one.id)


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "shelf": Shelf.asked,
    "deployment": lambda said: Single(str(said["name"])[:500]),
    "version": Versions.asked,
}

ACTS: dict[str, Act] = {
    "pause": _pause,
    "resume": _resume,
    "run": _run,
    "cancel-backfill": _cancel_backfill,
}
