"""The nouns every process shares, as frozen data, and the table of what may become what."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

#: Seconds since 1970 as a float: the cheap clock that events carry.
epoch = time.time


def now() -> datetime:
    """The wall clock, aware, in UTC. Nobody else reads it: time comes in as an argument."""
    return datetime.now(UTC)


def new_id() -> str:
    return str(uuid.uuid4())


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # nodes only: something they depend on did not succeed

    @property
    def final(self) -> bool:
        return self not in (State.PENDING, State.RUNNING)


#: What a run may become. A store's every change of state is ``UPDATE … WHERE state IN (sources of the target)``.
#: running -> pending is a retry, a rescue from a dead worker or a drain; failed -> pending is a person's retry.
MOVES: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.PENDING, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.PENDING}),
    State.CANCELLED: frozenset({State.PENDING}),
}


def sources(target: State) -> frozenset[State]:
    """The states that may become *target*."""
    return frozenset(state for state, targets in MOVES.items() if target in targets)


class Cause(StrEnum):
    """Why a run failed."""

    NOTEBOOK = "notebook"  # its own code raised
    CRASHED = "crashed"  # its kernel or its worker died
    TIMEOUT = "timeout"  # it ran longer than its deployment allows
    SETUP = "setup"  # it could not begin: kernel, parameters


#: What the command line returns for a run that ended so.
EXIT_CODES: Mapping[Cause, int] = {Cause.NOTEBOOK: 1, Cause.SETUP: 2, Cause.CRASHED: 3, Cause.TIMEOUT: 4}


#: How many runs a deployment keeps if it does not say.
KEEP_SUCCEEDED, KEEP_FAILED = 50, 20


@dataclass(frozen=True, slots=True)
class Ending:
    """How one attempt of a run ended."""

    state: State
    cause: Cause | None = None
    error: str | None = None  #: one line; None if it succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a run is to be executed. A deployment has one; each run keeps the one it was submitted with."""

    queue: str = "default"
    priority: int = 0  #: higher first, within a queue
    retries: int = 0  #: attempts after the first
    backoff: float = 2.0  #: seconds before the first retry; doubles each time
    timeout: float | None = None  #: seconds for the whole run; None: no limit
    kernel: str | None = None  #: kernel name; None: what the notebook names, or the default


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a deployment fires: by cron or at an interval, never both."""

    cron: str | None = None  #: five fields
    every: float | None = None  #: seconds, counted from ``anchor``
    zone: str = "UTC"  #: IANA name; cron is read in it, ``scheduled_for`` is given in it
    anchor: datetime | None = None  #: UTC; when an interval began to count, None for cron
    next: datetime | None = None  #: UTC; the first firing not yet a run; None while paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A snapshot of a notebook with its parameters and policy, under a name."""

    name: str
    notebook: str  #: absolute path it was deployed from; its folder is the runs' working folder where it exists
    snapshot: str  #: digest of the notebook's content, see ``notebook.Notebook.digest``
    parameters: Mapping[str, Any] = field(default_factory=dict)  #: only those that differ from the notebook's own
    policy: Policy = field(default_factory=Policy)
    schedule: Schedule | None = None
    keep_succeeded: int = KEEP_SUCCEEDED  #: newest runs kept; older ones go with their artifacts
    keep_failed: int = KEEP_FAILED  #: failed and cancelled ones
    version: int = 0  #: counts from 1; grows when snapshot, parameters or policy change
    paused: bool = False  #: fires nothing; runs submitted by hand still run
    created: datetime | None = None  #: UTC; set by the store
    updated: datetime | None = None  #: UTC; when this version was deployed

    def to_json(self) -> dict[str, Any]:
        """The stable keys that ``--json`` prints; a deployment's id is its name."""
        schedule = self.schedule
        return {
            "id": self.name,
            "deployment": self.name,
            "version": self.version,
            "notebook": self.notebook,
            "snapshot": self.snapshot,
            "parameters": dict(self.parameters),
            "schedule": schedule
            and {"cron": schedule.cron, "every": schedule.every, "zone": schedule.zone, "next": _iso(schedule.next)},
            "queue": self.policy.queue,
            "priority": self.policy.priority,
            "retries": self.policy.retries,
            "backoff": self.policy.backoff,
            "timeout": self.policy.timeout,
            "kernel": self.policy.kernel,
            "keep_succeeded": self.keep_succeeded,
            "keep_failed": self.keep_failed,
            "paused": self.paused,
            "created": _iso(self.created),
            "updated": _iso(self.updated),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a notebook, as the store has it."""

    id: str
    key: str  #: the same over all attempts; submitting a key again gives the same run
    deployment: str | None  #: None for a notebook run by hand
    version: int | None  #: of the deployment, when submitted
    notebook: str  #: absolute path it was submitted from; never read again, the snapshot is what runs
    snapshot: str
    parameters: Mapping[str, Any]
    policy: Policy
    created: datetime
    scheduled_for: datetime | None = None  #: UTC; the firing it belongs to, kept by every attempt
    zone: str = "UTC"  #: in which the notebook is given ``scheduled_for``
    state: State = State.PENDING
    cause: Cause | None = None  #: of the last failed attempt; None again when a later one succeeds
    error: str | None = None
    attempt: int = 0  #: grows at each claim; every write of a worker carries it as its fencing token
    last_attempt: int = 1  #: a failure of this attempt is final
    crashes: int = 0  #: attempts lost with their worker
    worker: str | None = None  #: who has claimed it, or had it last
    available: datetime | None = None  #: UTC; not to be claimed before, None: at once
    started: datetime | None = None  #: UTC; of the newest attempt, None until claimed
    finished: datetime | None = None  #: UTC; None until it has ended for good
    output: str | None = None  #: executed notebook of the newest attempt: a path here, or a URL

    @classmethod
    def of(
        cls,
        deployment: Deployment,
        *,
        now: datetime,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        scheduled_for: datetime | None = None,
    ) -> Run:
        """A run of *deployment*, not yet stored. *parameters* are laid over the deployment's own.

        A firing's key is the firing itself, so that it can become one run only.
        """
        run = new_id()
        if scheduled_for is not None:
            key = f"{deployment.name}@{_iso(scheduled_for)}"
        return cls(
            id=run,
            key=key or run,
            deployment=deployment.name if deployment.version else None,
            version=deployment.version or None,
            notebook=deployment.notebook,
            snapshot=deployment.snapshot,
            parameters={**deployment.parameters, **(parameters or {})},
            policy=deployment.policy,
            created=now,
            scheduled_for=scheduled_for,
            zone=deployment.schedule.zone if deployment.schedule else "UTC",
            last_attempt=1 + deployment.policy.retries,
        )

    @property
    def label(self) -> str:
        """What people call it: its deployment, or the notebook it was run from."""
        return self.deployment or Path(self.notebook).name

    def to_json(self, nodes: list[NodeRun] | None = None) -> dict[str, Any]:
        """The stable keys that ``--json`` prints. Times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "deployment": self.deployment,
            "version": self.version,
            "notebook": self.notebook,
            "state": self.state.value,
            "cause": self.cause and self.cause.value,
            "attempt": self.attempt,
            "queue": self.policy.queue,
            "parameters": dict(self.parameters),
            "scheduled_for": _iso(self.scheduled_for),
            "created": _iso(self.created),
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "error": self.error,
            "output": self.output,
        } | ({"nodes": [node.to_json() for node in nodes]} if nodes is not None else {})


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One execution of one node (or, in a notebook without a flow, of one code cell) in one attempt."""

    name: str  #: ``late``; ``report[3]`` is the fourth item of a mapped node
    flow: str = ""  #: empty for a cell
    state: State = State.PENDING
    started: datetime | None = None
    finished: datetime | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state.value,
            "started": _iso(self.started),
            "finished": _iso(self.finished),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentRun:
    """What a kernel is told of the run it executes: the file ``run.json`` in its run folder."""

    id: str
    key: str  #: stays the same over all attempts, so outside effects can be made idempotent with it
    attempt: int
    deployment: str | None
    notebook: str
    scheduled_for: datetime | None = None  #: aware, in the schedule's zone
    zone: str = "UTC"

    @classmethod
    def of(cls, run: Run) -> CurrentRun:
        return cls(
            id=run.id,
            key=run.key,
            attempt=run.attempt,
            deployment=run.deployment,
            notebook=run.notebook,
            scheduled_for=run.scheduled_for and run.scheduled_for.astimezone(ZoneInfo(run.zone)),
            zone=run.zone,
        )

    def to_json(self) -> str:
        names = ("id", "key", "attempt", "deployment", "notebook", "zone")
        return json.dumps({name: getattr(self, name) for name in names} | {"scheduled_for": _iso(self.scheduled_for)})

    @classmethod
    def from_json(cls, text: str) -> CurrentRun:
        pairs = json.loads(text)
        at = pairs.pop("scheduled_for")
        return cls(scheduled_for=at and datetime.fromisoformat(at).astimezone(ZoneInfo(pairs["zone"])), **pairs)


#: How long after its last sign of life a worker is believed to be there.
LIVE = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that claims runs."""

    id: str  #: host, pid and a random part
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    started: datetime
    seen: datetime  #: UTC; when it last said it lives. For people only: leases never read a wall clock

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "host": self.host,
            "pid": self.pid,
            "queues": list(self.queues),
            "concurrency": self.concurrency,
            "started": _iso(self.started),
            "seen": _iso(self.seen),
        }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
