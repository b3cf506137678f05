"""One of each noun, as it is answered: the description of the API is made from these."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flowkit.changes import Change, Comparison
from flowkit.model import (
    Act,
    Backfill,
    Deployment,
    Hook,
    Limit,
    NodeRun,
    Notice,
    Queue,
    Reason,
    Role,
    Run,
    Schedule,
    Skip,
    State,
    Tells,
    Token,
    Worker,
)

_AT = datetime(2013, 7, 1, 10, tzinfo=UTC)

DEPLOYMENT = Deployment(
    name="flight_delays",
    notebook="/srv/notebooks/flight_delays.ipynb",
    snapshot="5f1d…",
    parameters={"min_delay": 30},
    schedule=Schedule(cron="0 6 * * *", zone="America/New_York", next=_AT + timedelta(days=1)),
    version=3,
    created=_AT,
    updated=_AT,
)
_RUN = Run(
    id="1a2b3c4d-0000-4000-8000-000000000000",
    key="flight_delays@2013-07-01T10:00:00Z",
    deployment="flight_delays",
    version=3,
    notebook="/srv/notebooks/flight_delays.ipynb",
    snapshot="5f1d…",
    parameters={"min_delay": 30},
    policy=DEPLOYMENT.policy,
    created=_AT,
    scheduled_for=_AT,
    state=State.SUCCEEDED,
    attempt=1,
    started=_AT,
    finished=_AT + timedelta(seconds=21),
    output="/srv/flowkit/artifacts/runs/1a2b3c4d-0000-4000-8000-000000000000/1/notebook.ipynb",
    digest="9b74…",
)
RUN = _RUN.to_json() | {
    "key": _RUN.key,
    "worker": "lab-3:4711",
    "last_attempt": 1,
    "trace": "0af7651916cd43dd8448eb211c80319c",
    "available": None,
    "policy": {},
}
_CHANGE = Change("parameter", "min_delay", before="15", after="30")
COMPARISON = Comparison(before=_RUN, after=_RUN, changes=(_CHANGE,), same=("packages",), unknown=("host",)).to_json()
NODE = NodeRun("late", "flight delays", State.SUCCEEDED, _AT, _AT + timedelta(seconds=2)).to_json()
EVENTS = {"attempt": 1, "position": 12, "state": "running", "events": [{"kind": "output", "at": _AT.timestamp()}]}
ARTIFACT = {"path": "1/notebook.ipynb", "bytes": 48_210}
BOOK = {
    "cells": [{"cell_type": "code", "source": ["import flowkit as fk\n", "run = fk.load_run('1a2b3c4d')"]}],
    "metadata": {"kernelspec": {"name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
WORKER = Worker(
    id="lab-3:4711", host="lab-3", pid=4711, queues=("default",), concurrency=4, started=_AT, seen=_AT
).to_json()
QUEUE = Queue(name="default", waiting=2, running=1, max_concurrent=None, oldest=_AT).to_json()
LIMIT = Limit(name="weather api", rate="30/minute").to_json()
SKIP = Skip(deployment="flight_delays", first=_AT, last=_AT, count=1, reason=Reason.OVERLAP, at=_AT).to_json()
BACKFILL = Backfill(
    id="flight_delays:day",
    deployment="flight_delays",
    parameter="day",
    concurrency=2,
    created=_AT,
    counts={State.SUCCEEDED: 3},
).to_json()
PARAMETER = {"name": "min_delay", "type": "int", "default": "30", "help": "minutes"}
FIRING = {"utc": "2013-07-02T10:00:00Z", "local": "2013-07-02T06:00:00-04:00"}
TOKEN = Token(id="0a1b2c3d", name="ci", role=Role.OPERATOR, created=_AT, expires=_AT + timedelta(days=90)).to_json()
HOOK = Hook(deployment="flight_delays", created=_AT).to_json()
NOTICE = Notice(
    alert="9f8e7d6c",
    secret="ops",
    subject="flight_delays",
    run=_RUN.id,
    kind=Tells.FAILURE,
    reason="ValueError: no flights on that day",
    of=_AT,
    tries=1,
    sent=_AT,
).to_json()
ACT = Act(id=7, at=_AT, who="ci", role="operator", what="POST /api/v1/runs", status=202, address="10.0.0.7").to_json()
