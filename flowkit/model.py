"""The nouns every process shares, as frozen data, and the table of what may become what."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

#: Seconds since 1970 as a float: the cheap clock that events carry.
epoch = time.time


def now() -> datetime:
    """The wall clock, aware, in UTC. Nobody else reads it: time comes in as an argument."""
    return datetime.now(UTC)


def new_id() -> str:
    import uuid  # late: it asks the platform about itself, and kernels make no ids

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
#: running -> pending is a retry, a rescue from a dead worker, a drain, or that it waits for its children;
#: failed -> pending is a person's retry, or that of its parent. A running run that is cancelled stays running
#: (``Run.cancelling``) until nothing of its kernel lives.
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
    MEMORY = "memory"  # it held more memory than its deployment allows, or than there was
    SETUP = "setup"  # it could not begin: kernel, parameters


#: What the command line returns for a run that ended so.
EXIT_CODES: Mapping[Cause, int] = {
    Cause.NOTEBOOK: 1,
    Cause.SETUP: 2,
    Cause.CRASHED: 3,
    Cause.TIMEOUT: 4,
    Cause.MEMORY: 5,
}


class CatchUp(StrEnum):
    """Which of the firings run that were missed, because no worker was there."""

    SKIP = "skip"  # none
    LATEST = "latest"  # the newest, unless it is older than the grace
    ALL = "all"  # in order, the newest up to a limit


class Overlap(StrEnum):
    """What a firing does while an earlier run of its schedule waits or runs."""

    SKIP = "skip"  # it does not run
    QUEUE = "queue"  # it waits until the earlier ones have ended
    CANCEL_RUNNING = "cancel-running"  # the earlier ones are cancelled; it waits until they have ended
    ALLOW = "allow"  # both run


class Reason(StrEnum):
    """Why a firing did not become a run."""

    MISSED = "missed"  # nobody was there when it was time, and the schedule does not catch up on it
    LIMIT = "limit"  # more were missed than the schedule catches up on
    OVERLAP = "overlap"  # an earlier run of the schedule had not ended
    REPLACED = "replaced"  # a later firing was due as well, and would have cancelled it


#: How many runs a deployment keeps if it does not say.
KEEP_SUCCEEDED, KEEP_FAILED = 50, 20


@dataclass(frozen=True, slots=True)
class Ending:
    """How one attempt of a run ended."""

    state: State  #: pending: it has nothing left to do but wait for its children
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
    cell_timeout: float | None = None  #: seconds for each cell
    memory: int | None = None  #: bytes that the kernel and all it starts may hold together
    kernel: str | None = None  #: kernel name; None: what the notebook names, or the default
    max_concurrent: int | None = None  #: of the deployment's runs at once, as its newest version says; None: any number
    rate: str | None = None  #: of the deployment's runs that start, such as ``30/minute``; likewise
    hosts: str | None = (
        None  #: of what the worker's FLOWKIT_HTTP_ALLOW names, HTTP nodes reach no more; None: all of it
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a deployment fires: by cron or at an interval, never both."""

    cron: str | None = None  #: five fields
    every: float | None = None  #: seconds, counted from ``anchor``
    zone: str = "UTC"  #: IANA name; cron is read in it, ``scheduled_for`` is given in it
    anchor: datetime | None = None  #: UTC; when an interval began to count, None for cron
    start: datetime | None = None  #: UTC; the first instant at which it may fire
    end: datetime | None = None  #: UTC; the last one
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_limit: int = 100  #: of ``CatchUp.ALL``
    grace: float = 3600.0  #: seconds after which ``CatchUp.LATEST`` takes no missed firing any more
    overlap: Overlap = Overlap.SKIP
    jitter: float = 0.0  #: seconds; its runs wait for a part of it that depends on the deployment's name alone
    next: datetime | None = None  #: UTC; the first firing not yet a run or a skip; None while paused, or at the end

    def to_json(self) -> dict[str, Any]:
        return {
            "cron": self.cron,
            "every": self.every,
            "zone": self.zone,
            "start": iso(self.start),
            "end": iso(self.end),
            "catch_up": self.catch_up.value,
            "catch_up_limit": self.catch_up_limit,
            "grace": self.grace,
            "overlap": self.overlap.value,
            "jitter": self.jitter,
            "next": iso(self.next),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Firings in a row that did not become runs."""

    deployment: str
    first: datetime  #: UTC
    last: datetime  #: UTC; the same as *first* if it is only one
    count: int
    reason: Reason
    at: datetime  #: UTC; when that was decided

    def to_json(self) -> dict[str, Any]:
        return {
            "deployment": self.deployment,
            "first": iso(self.first),
            "last": iso(self.last),
            "count": self.count,
            "reason": self.reason.value,
            "at": iso(self.at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes of all firings of a schedule that are due."""

    runs: tuple[Run, ...]  #: in the order of their firings
    skips: tuple[Skip, ...]
    next: datetime | None  #: the first firing that is not due


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A snapshot of a notebook with its parameters and policy, under a name."""

    name: str
    notebook: str  #: absolute path it was deployed from; its folder is the runs' working folder where it exists
    snapshot: str  #: digest of the notebook's content, see ``notebooks.Notebook.digest``
    parameters: Mapping[str, Any] = field(default_factory=dict)  #: only those that differ from the notebook's own
    policy: Policy = field(default_factory=Policy)
    schedule: Schedule | None = None
    keep_succeeded: int = KEEP_SUCCEEDED  #: newest runs kept; older ones go with their artifacts
    keep_failed: int = KEEP_FAILED  #: failed and cancelled ones
    commit: str | None = None  #: of git, that the notebook's folder was at, see ``commit``; None: it is not under git
    family: str | None = None  #: digest of its child notebooks, see ``family``; None: it has none
    version: int = 0  #: counts from 1; grows when snapshot, parameters or policy change
    paused: bool = False  #: fires nothing; runs submitted by hand still run
    created: datetime | None = None  #: UTC; set by the store
    updated: datetime | None = None  #: UTC; when this version was deployed

    def to_json(self) -> dict[str, Any]:
        """The stable keys that ``--json`` prints; a deployment's id is its name."""
        return {
            "id": self.name,
            "deployment": self.name,
            "version": self.version,
            "notebook": self.notebook,
            "snapshot": self.snapshot,
            "commit": self.commit,
            "parameters": dict(self.parameters),
            "schedule": self.schedule and self.schedule.to_json(),
            "queue": self.policy.queue,
            "priority": self.policy.priority,
            "retries": self.policy.retries,
            "backoff": self.policy.backoff,
            "timeout": self.policy.timeout,
            "cell_timeout": self.policy.cell_timeout,
            "memory": self.policy.memory,
            "kernel": self.policy.kernel,
            "max_concurrent": self.policy.max_concurrent,
            "rate": self.policy.rate,
            "hosts": self.policy.hosts,
            "keep_succeeded": self.keep_succeeded,
            "keep_failed": self.keep_failed,
            "paused": self.paused,
            "created": iso(self.created),
            "updated": iso(self.updated),
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
    commit: str | None = (
        None  #: of git, that the notebook's folder was at; ends with ``-dirty`` if it was not quite that
    )
    series: str | None = None  #: runs of one series take turns
    name: str | None = None  #: given by who submitted it; None: it is called by its deployment or notebook
    family: str | None = None  #: digest of its child notebooks, see ``family``; None: it has none
    parent: str | None = None  #: id of the run a node of which it is; None: nobody waits for it
    traceparent: str | None = None  #: the span it was submitted from, see ``trace``; None: none is known
    state: State = State.PENDING
    cause: Cause | None = None  #: of the last failed attempt; None again when a later one succeeds
    error: str | None = None
    attempt: int = 0  #: grows at each claim; every write of a worker carries it as its fencing token
    last_attempt: int = 1  #: a failure of this attempt is final
    crashes: int = 0  #: attempts lost with their worker
    waits: bool = False  #: pending until its children have ended, without a kernel
    cancelling: bool = False  #: somebody has cancelled it, and it runs until its kernel is gone: it will be cancelled
    worker: str | None = None  #: who has claimed it, or had it last
    available: datetime | None = None  #: UTC; not to be claimed before, None: at once
    started: datetime | None = None  #: UTC; of the newest attempt, None until claimed
    finished: datetime | None = None  #: UTC; None until it has ended for good
    output: str | None = None  #: executed notebook of the newest attempt: a path here, or a URL
    digest: str | None = None  #: SHA-256 of it, as it was saved last

    @classmethod
    def of(
        cls,
        deployment: Deployment,
        *,
        now: datetime,
        parameters: Mapping[str, Any] | None = None,
        key: str | None = None,
        scheduled_for: datetime | None = None,
        name: str | None = None,
        traceparent: str | None = None,
    ) -> Run:
        """A run of *deployment*, not yet stored. *parameters* are laid over the deployment's own.

        A firing's key is the firing itself, so that it can become one run only.
        """
        run = new_id()
        if scheduled_for is not None:
            key = f"{deployment.name}@{iso(scheduled_for)}"
        return cls(
            id=run,
            key=key or run,
            deployment=deployment.name if deployment.version else None,
            version=deployment.version or None,
            notebook=deployment.notebook,
            snapshot=deployment.snapshot,
            commit=deployment.commit,
            family=deployment.family,
            parameters={**deployment.parameters, **(parameters or {})},
            policy=deployment.policy,
            created=now,
            scheduled_for=scheduled_for,
            zone=deployment.schedule.zone if deployment.schedule else "UTC",
            name=name,
            traceparent=traceparent,
            last_attempt=1 + deployment.policy.retries,
        )

    @property
    def label(self) -> str:
        """What people call it: the name it was given, else its deployment, or the notebook it was run from."""
        return self.name or self.deployment or Path(self.notebook).name

    def to_json(self, nodes: list[NodeRun] | None = None) -> dict[str, Any]:
        """The stable keys that ``--json`` prints. Times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "name": self.name,
            "parent": self.parent,
            "deployment": self.deployment,
            "version": self.version,
            "notebook": self.notebook,
            "snapshot": self.snapshot,
            "commit": self.commit,
            "state": self.state.value,
            "waits": self.waits,
            "cancelling": self.cancelling,
            "cause": self.cause and self.cause.value,
            "attempt": self.attempt,
            "queue": self.policy.queue,
            "parameters": dict(self.parameters),
            "scheduled_for": iso(self.scheduled_for),
            "created": iso(self.created),
            "started": iso(self.started),
            "finished": iso(self.finished),
            "error": self.error,
            "output": self.output,
            "sha256": self.digest,
        } | ({"nodes": [node.to_json() for node in nodes]} if nodes is not None else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """Runs of a deployment that differ in one parameter. The deployment and the parameter are its identity."""

    id: str  #: ``DEPLOYMENT:PARAMETER``
    deployment: str
    parameter: str
    concurrency: int  #: how many of its runs may wait for a worker or run at once
    created: datetime
    counts: Mapping[State, int]  #: of its runs, zeros left out

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def ended(self) -> int:
        return sum(count for state, count in self.counts.items() if state.final)

    def to_json(self, runs: list[Run] | None = None) -> dict[str, Any]:
        return {
            "id": self.id,
            "deployment": self.deployment,
            "parameter": self.parameter,
            "concurrency": self.concurrency,
            "created": iso(self.created),
            "counts": {state.value: count for state, count in self.counts.items()},
        } | ({"runs": [run.to_json() for run in runs]} if runs is not None else {})


@dataclass(frozen=True, slots=True)
class NodeRun:
    """One execution of one node (or, in a notebook without a flow, of one code cell) in one attempt."""

    name: str  #: ``late``; ``report[3]`` is the fourth item of a mapped node
    flow: str = ""  #: empty for a cell
    state: State = State.PENDING
    started: datetime | None = None
    finished: datetime | None = None
    error: str | None = None
    kept: str | None = None  #: under which name its result is kept, see ``shelf``; None: it is not
    profile: Mapping[str, Any] | None = None  #: of its result, see ``formats.profile``; None: nothing is known of it
    misfits: Mapping[str, Any] | None = (
        None  #: rows of it that do not fit its schema: ``columns``, ``values``, ``more``
    )
    reused: str | None = None  #: whose result it took instead of computing one: ``attempt 1``, ``run 1a2b3c4d``
    limit: str | None = None  #: for which it waits
    until: datetime | None = None  #: at least so long
    child: str | None = None  #: id of the run that it is

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state.value,
            "started": iso(self.started),
            "finished": iso(self.finished),
            "error": self.error,
            "kept": self.kept,
            "profile": self.profile,
            "misfits": self.misfits,
            "reused": self.reused,
            "limit": self.limit,
            "until": iso(self.until),
            "child": self.child,
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
    hosts: str | None = None  #: as its policy has it
    span: str | None = None  #: of this attempt, as a ``traceparent``; None: its worker traces nothing

    @classmethod
    def of(cls, run: Run, *, span: str | None = None) -> CurrentRun:
        return cls(
            id=run.id,
            key=run.key,
            attempt=run.attempt,
            deployment=run.deployment,
            notebook=run.notebook,
            scheduled_for=run.scheduled_for and _in_zone(run.scheduled_for, run.zone),
            zone=run.zone,
            hosts=run.policy.hosts,
            span=span,
        )

    def to_json(self) -> str:
        names = ["id", "key", "attempt", "deployment", "notebook", "zone"]
        # Which an older flowkit of the kernel's does not know.
        names += [name for name in ("hosts", "span") if getattr(self, name) is not None]
        return json.dumps({name: getattr(self, name) for name in names} | {"scheduled_for": iso(self.scheduled_for)})

    @classmethod
    def from_json(cls, text: str) -> CurrentRun:
        pairs = json.loads(text)
        at = pairs.pop("scheduled_for")
        return cls(scheduled_for=at and _in_zone(datetime.fromisoformat(at), pairs["zone"]), **pairs)


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
    dropped: int = 0  #: messages it heard since it started that no flowkit of this store has sent

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "host": self.host,
            "pid": self.pid,
            "queues": list(self.queues),
            "concurrency": self.concurrency,
            "started": iso(self.started),
            "seen": iso(self.seen),
            "dropped": self.dropped,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    name: str
    waiting: int
    running: int
    max_concurrent: int | None  #: of its runs at once, over all workers; None: as many as there are workers for
    oldest: datetime | None  #: UTC; when the run was submitted that waits longest

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "waiting": self.waiting,
            "running": self.running,
            "max_concurrent": self.max_concurrent,
            "oldest": iso(self.oldest),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What nodes share that name it: how often they are called, and a pause after failures."""

    name: str
    rate: str  #: as ``Rate`` writes it
    failures: int | None = None  #: of its nodes' calls, after which it closes; None: it never does
    within: float = 60.0  #: seconds; in which that many must fail
    close_for: float = 60.0  #: seconds; then one call may try it
    closed: datetime | None = None  #: UTC; until then; in the past: the next call tries it. None: open
    error: str | None = None  #: of the newest failure, while it is closed
    declared: bool = False  #: by a notebook, whose next rate replaces it; else by ``flowkit limit set``

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "rate": self.rate,
            "failures": self.failures,
            "within": self.within,
            "close_for": self.close_for,
            "closed": iso(self.closed),
            "error": self.error,
            "declared": self.declared,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What a node that names a limit is told: go, wait, or give up."""

    wait: float | None = None  #: seconds until it may ask again
    closed: float | None = None  #: seconds for which the limit is closed; it is not to wait
    trying: bool = False  #: closed only until one call, under way now, has told how it went
    failures: int | None = None  #: after which it was closed; or of which it wants to be told
    error: str | None = None  #: of the newest of them


class Role(StrEnum):
    """What somebody may do over HTTP; each may also what those before it may."""

    VIEWER = "viewer"  # look at everything
    OPERATOR = "operator"  # run what is deployed, cancel, retry, pause
    ADMIN = "admin"  # deploy notebooks, which is to run any code; webhooks; who may what

    def covers(self, other: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Lets a program or a browser in. Its secret is shown once, when it is made; the store has a digest of it."""

    id: str
    name: str  #: whose it is, or what for
    role: Role
    created: datetime
    expires: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role.value,
            "created": iso(self.created),
            "expires": iso(self.expires),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """Lets programs that know its secret run a deployment."""

    deployment: str
    created: datetime  #: UTC; when its secret was made

    def to_json(self) -> dict[str, Any]:
        return {"deployment": self.deployment, "created": iso(self.created)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that somebody did, or tried to do, over HTTP."""

    id: int = 0  #: grows; set by the store
    at: datetime
    who: str  #: the token's name
    role: str | None  #: None: nobody was let in
    what: str  #: method and path
    status: int  #: of the answer
    address: str  #: from where

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("id", "who", "role", "what", "status", "address")} | {
            "at": iso(self.at)
        }


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a run is not claimed, though nothing is wrong with it."""

    reason: str
    until: datetime | None = None  #: UTC; None: nobody knows


class Health(StrEnum):
    GOOD = "good"
    WARNING = "warning"  # it works, but not as well or as safely as it could
    PROBLEM = "problem"  # runs will fail, be late or not start


@dataclass(frozen=True, slots=True)
class Finding:
    """What the doctor has to say about one thing."""

    subject: str
    health: Health
    found: str
    remedy: str | None = None  #: what to do; None if it is good

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def size(amount: float) -> str:
    """Bytes, for people: ``2.1 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} GB"


def iso(at: datetime | None) -> str | None:
    """In UTC, as JSON has it everywhere."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _in_zone(at: datetime, zone: str) -> datetime:
    from zoneinfo import ZoneInfo

    return at.astimezone(ZoneInfo(zone))


class Tells(StrEnum):
    """What an alert tells."""

    FAILURE = "failure"
    RECOVERY = "recovery"  # of whatever else it tells
    LATE = "late"
    LONG = "long"
    STUCK = "stuck"
    SKIPPED = "skipped"
    # What nobody asks for by name: how those that last have ended, and a message that tells nothing.
    STARTED = "started"
    ENDED = "ended"
    MOVING = "moving"
    FIRED = "fired"
    TEST = "test"


#: How what lasts ends, which is told as a recovery, but for the last.
ENDS: Mapping[Tells, Tells] = {
    Tells.LATE: Tells.STARTED,
    Tells.LONG: Tells.ENDED,
    Tells.STUCK: Tells.MOVING,
    Tells.SKIPPED: Tells.FIRED,
}

#: What an alert may be asked to tell, and from when on if nothing is said.
ASKED: Mapping[Tells, str] = {
    Tells.FAILURE: "",
    Tells.RECOVERY: "",
    Tells.LATE: "10m",
    Tells.LONG: "3x",
    Tells.STUCK: "5m",
    Tells.SKIPPED: "",
}

#: Seconds; nothing is late or too long before.
LEAST_WATCH = 10.0

_WATCH_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Watch:
    """One thing that an alert tells, and from when on."""

    kind: Tells
    after: str = ""  #: as it was given: ``10m``; of the usual duration ``3x``; empty: at once

    def __str__(self) -> str:
        return f"{self.kind}:{self.after}" if self.after else self.kind.value

    @property
    def seconds(self) -> float | None:
        """None: that depends on the usual duration."""
        return None if self.times else _amount(self.after) * _WATCH_UNITS.get(self.after[-1:], 1.0)

    @property
    def times(self) -> float | None:
        """Of the usual duration; None: it is a fixed time."""
        return _amount(self.after) if self.after.endswith("x") else None


def watches(text: str) -> tuple[Watch, ...]:
    """What ``failure,late:10m,long:3x`` asks for. Raises ValueError with what is expected."""
    found = []
    for one in filter(None, (part.strip() for part in text.split(","))):
        name, _, after = one.partition(":")
        if name not in ASKED:
            raise ValueError(f"it tells {', '.join(ASKED)}, with commas between, not {one!r}")
        kind = Tells(name)
        watch = Watch(kind, after or ASKED[kind])
        units = "smhdx" if kind is Tells.LONG else "smhd" if ASKED[kind] else ""
        if watch.after and (watch.after[-1] not in units or not _sensible(watch)):
            form = f"{name}:{ASKED[kind]}" if units else name
            raise ValueError(f"write {form!r}, not {one!r}" + (f"; {LEAST_WATCH:g}s is the least" if units else ""))
        found.append(watch)
    if not found:
        raise ValueError(f"it tells {', '.join(ASKED)}, with commas between")
    return tuple({watch.kind: watch for watch in found}.values())


def _sensible(watch: Watch) -> bool:
    try:
        return (watch.times or 0) > 1 if watch.times is not None else LEAST_WATCH <= (watch.seconds or 0) <= 31_536_000
    except ValueError:
        return False


def _amount(after: str) -> float:
    return float(after[:-1]) if after else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Who is told what of a deployment."""

    id: str
    deployment: str | None  #: None: of all
    secret: str  #: the name of one, whose value is the address
    on: tuple[Watch, ...]
    created: datetime  #: what ended before is not told

    def __str__(self) -> str:
        what = ", ".join(map(str, self.on))
        return f"{what} of {self.deployment or 'all deployments'} to secret:{self.secret}"

    def watch(self, kind: Tells) -> Watch | None:
        return next((one for one in self.on if one.kind is kind), None)

    def tells(self, kind: Tells) -> bool:
        return self.watch(Tells.RECOVERY if kind in ENDS.values() else kind) is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "deployment": self.deployment,
            "address": f"secret:{self.secret}",
            "on": [str(one) for one in self.on],
            "created": iso(self.created),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What an alert has told, or has to."""

    alert: str
    secret: str  #: the alert's
    subject: str  #: the deployment's name; of what is stuck, or moves again, the queue's
    run: str  #: its id; of a firing that became no run its key; of a test a number of its own
    kind: Tells
    reason: str | None  #: one line, and what to do in a second; of a failure the run's error
    of: datetime  #: UTC; when it happened
    tries: int = 0
    due: datetime | None = None  #: UTC; when it is sent, or tried again; None: never (any more)
    sent: datetime | None = None
    error: str | None = None  #: of the last try to send it

    @property
    def about_queue(self) -> bool:
        return self.kind in (Tells.STUCK, Tells.MOVING)

    @property
    def of_run(self) -> str | None:
        """The id of a run, if it is about one."""
        return None if "@" in self.run or self.kind is Tells.TEST else self.run

    @property
    def state(self) -> str:
        if self.sent:
            return "delivered"
        if self.due is None:
            return "failed"
        return "trying" if self.tries else "waiting"

    @property
    def said(self) -> str:
        return (self.reason or "").partition("\n")[0]

    @property
    def remedy(self) -> str:
        return "" if self.kind is Tells.FAILURE else (self.reason or "").partition("\n")[2]

    def __str__(self) -> str:
        how = "sent" if self.sent else f"not sent ({self.error})" if self.error else "to be sent"
        return f"{self.kind} of {self.subject}, {how}"

    def to_json(self) -> dict[str, Any]:
        return {
            "alert": self.alert,
            "address": f"secret:{self.secret}",
            "deployment": None if self.about_queue else self.subject,
            "queue": self.subject if self.about_queue else None,
            "run": self.of_run,
            "kind": self.kind.value,
            "reason": self.said,
            "at": iso(self.of),
            "state": self.state,
            "tries": self.tries,
            "sent": iso(self.sent),
            "error": self.error,
        }
