"""The page Now: what is broken, since when, why; what runs, what waits, who works, what comes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flowkit.events import Point
from flowkit.model import LIVE, Deployment, Finding, Limit, Queue, State, Worker
from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import cut, seconds
from flowkit.store.figures import Brief, Rate, percentiles

#: So many runs of a state are counted at each look; of more, the page says that there are more.
MOST = 10_000

STATES = [state for state in State if state is not State.SKIPPED]

#: Of what failed within so long is told; no more failures are read than that, the newest.
LATELY, FAILURES = timedelta(hours=24), 2_000
#: What is shown at most: groups of failures, runs under way, queues, workers, next firings.
GROUPS, UNDER_WAY, QUEUES, WORKERS, FIRINGS = 50, 50, 50, 50, 8
#: Over which runs are counted that come and end; no more than that of each.
WINDOW, COUNTED = timedelta(minutes=5), 5_000
#: How long a worker is shown that has fallen silent.
SILENT = timedelta(minutes=30)
#: Successes from which is known how long a deployment's runs usually take; fewer than the least tell nothing.
USUAL, LEAST = 50, 3


@dataclass(frozen=True, slots=True)
class Usual:
    """How long a deployment's runs take that succeed."""

    median: float  #: seconds
    high: float  #: the 95th percentile

    @classmethod
    def of(cls, runs: Iterable[Brief]) -> Usual | None:
        took = [run.took for run in runs if run.state is State.SUCCEEDED and run.took is not None]
        return cls(*percentiles(took, 0.5, 0.95)) if len(took) >= LEAST else None


@dataclass(frozen=True, slots=True)
class Going:
    """A run under way."""

    run: Brief
    usual: Usual | None
    uses: Point | None


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed in the same way."""

    newest: Brief
    first: datetime  #: when the oldest of them ended
    last: datetime
    count: int
    recovered: datetime | None  #: when a later run of the deployment succeeded


@dataclass(frozen=True, slots=True)
class Standing:
    counts: dict[State, int]  #: no state's is more than ``MOST``
    deployments: list[str]  #: names, the first few
    going: list[Going]  #: the longest first; one more than is shown, if there are more
    workers: list[Worker]  #: also those that have fallen silent
    failures: list[Failure]
    more_failures: bool  #: than are read
    firings: list[Deployment]
    closed: list[Limit]  #: limits that nodes share, after too many failures
    remarks: Sequence[Finding]


@dataclass(frozen=True, slots=True)
class Now:
    def read(self, look: Look, before: Any) -> Standing:
        store, at = look.store, look.at
        failures, more = look.sparingly("failures", lambda: _failures(look))
        return Standing(
            counts=store.counts(most=MOST),
            deployments=[one.name for one in store.deployments(limit=1)],
            going=[_going(look, run) for run in store.under_way(limit=UNDER_WAY + 1)],
            workers=store.workers(since=at - SILENT),
            failures=failures,
            more_failures=more,
            firings=store.due(now=at + timedelta(days=3_660), limit=FIRINGS),
            closed=[limit for limit in store.limits() if limit.closed],
            remarks=look.pulse.remarks if look.pulse else (),
        )

    def tell(self, found: Standing) -> dict[str, Any]:
        alive = [seconds(worker.seen) for worker in found.workers]
        return {
            "counts": {
                "of": {state.value: found.counts.get(state, 0) for state in STATES},
                "most": MOST,
                "deployments": found.deployments,
            },
            "going": {"runs": [_told(one) for one in found.going[:UNDER_WAY]], "more": len(found.going) > UNDER_WAY},
            "workers": {
                "shown": [_worker(worker) for worker in found.workers[:WORKERS]],
                "all": len(alive),
                "live": LIVE.total_seconds(),
            },
            "failures": {
                "groups": [_failure(group) for group in found.failures[:GROUPS]],
                "all": len(found.failures),
                "broken": sum(1 for group in found.failures if group.recovered is None),
                "more": found.more_failures,
            },
            "firings": [[one.name, seconds(one.schedule.next)] for one in found.firings if one.schedule],
            "closed": [[limit.name, seconds(limit.closed), cut(limit.error or "")] for limit in found.closed],
            "remarks": [
                [one.subject, one.health.value, cut(one.found), cut(one.remedy or "")] for one in found.remarks
            ],
        }


@dataclass(frozen=True, slots=True)
class Lane:
    queue: Queue
    rate: Rate
    served: int  #: workers alive there


@dataclass(frozen=True, slots=True)
class Lanes:
    """The queues, as both pages show them."""

    def read(self, look: Look, before: Any) -> list[Lane]:
        store, at = look.store, look.at
        rates = store.rates(since=at - WINDOW, now=at, limit=COUNTED)
        workers = store.workers(since=at - LIVE)
        queues = {queue.name: queue for queue in store.queues()}
        for name in (*rates, *(name for worker in workers for name in worker.queues)):
            queues.setdefault(name, Queue(name=name, waiting=0, running=0, max_concurrent=None, oldest=None))
        lanes = [
            Lane(queue, rates.get(name, Rate(0, 0)), sum(name in worker.queues for worker in workers))
            for name, queue in sorted(queues.items())
        ]
        return sorted(lanes, key=lambda lane: (lane.served > 0 or not lane.queue.waiting, -lane.queue.waiting))

    def tell(self, found: list[Lane]) -> dict[str, Any]:
        return {"lanes": {"shown": [_lane(lane) for lane in found[:QUEUES]], "all": len(found)}}


def usual(look: Look, deployment: str) -> Usual | None:
    """Which changes slowly: it is asked twice a minute."""

    def read() -> Usual | None:
        return Usual.of(look.store.lately([deployment], limits={State.SUCCEEDED: USUAL})[deployment])

    return look.seldom(("usual", deployment), 30.0, read)


def _going(look: Look, run: Brief) -> Going:
    uses = look.seldom(("uses", run.id, run.attempt), 2.0, lambda: look.store.uses(run.id, run.attempt))
    return Going(run, usual(look, run.deployment) if run.deployment else None, uses)


def _failures(look: Look) -> tuple[list[Failure], bool]:
    failed = look.store.ended(since=look.at - LATELY, states=[State.FAILED], limit=FAILURES)
    return _grouped(look, failed), len(failed) == FAILURES


def _grouped(look: Look, failed: Iterable[Brief]) -> list[Failure]:
    """Those first that nothing has succeeded after, and of these the newest."""
    groups: dict[tuple[str, str], list[Brief]] = {}
    for run in failed:  # the last to end first
        groups.setdefault((run.deployment or run.label, normalised(run.error or "")), []).append(run)
    some = list(groups.values())[: 2 * GROUPS]
    successes = look.store.last_successes(runs[0].deployment for runs in some if runs[0].deployment)
    found = []
    for runs in some:
        ends = [run.finished or run.created for run in runs]
        success = successes.get(runs[0].deployment or "")
        recovered = success.finished if success and success.created > runs[0].created else None
        found.append(Failure(runs[0], min(ends), max(ends), len(runs), recovered))
    return sorted(found, key=lambda one: (one.recovered is None, one.last), reverse=True)


#: What differs between two failures of the same kind, and what stands in its place.
_DIFFERS = (
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "…"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "…"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,}\b", re.IGNORECASE), "…"),
    (re.compile(r"\d+(?:[.:,-]\d+)*"), "…"),
)


def normalised(error: str) -> str:
    """An error's first line without its numbers, dates and ids: equal for failures that only they tell apart."""
    line = error.strip().partition("\n")[0]
    for pattern, sign in _DIFFERS:
        line = pattern.sub(sign, line)
    return line


def brief(run: Brief) -> dict[str, Any]:
    return {
        "id": run.id,
        "label": run.label,
        "deployment": run.deployment,
        "state": run.state.value,
        "cancelling": run.cancelling,
        "created": seconds(run.created),
        "started": seconds(run.started),
        "finished": seconds(run.finished),
        "error": (run.error or "").strip().partition("\n")[0],
    }


def _told(one: Going) -> dict[str, Any]:
    return brief(one.run) | {
        "attempt": one.run.attempt,
        "queue": one.run.queue,
        "worker": one.run.worker,
        "usual": one.usual and [one.usual.median, one.usual.high],
        "uses": one.uses and [one.uses.cpu, one.uses.memory],
    }


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "queues": list(worker.queues),
        "concurrency": worker.concurrency,
        "started": seconds(worker.started),
        "seen": seconds(worker.seen),
    }


def _failure(group: Failure) -> dict[str, Any]:
    return brief(group.newest) | {
        "first": seconds(group.first),
        "last": seconds(group.last),
        "count": group.count,
        "recovered": seconds(group.recovered),
    }


def _lane(lane: Lane) -> dict[str, Any]:
    return {
        "name": lane.queue.name,
        "waiting": lane.queue.waiting,
        "running": lane.queue.running,
        "limit": lane.queue.max_concurrent,
        "oldest": seconds(lane.queue.oldest),
        "served": lane.served,
        "rate": [round(60 * lane.rate.come, 1), round(60 * lane.rate.ended, 1)],
    }


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "now": lambda said: Now(),
    "lanes": lambda said: Lanes(),
}

ACTS: dict[str, Act] = {}
