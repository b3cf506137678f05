"""Figures for Prometheus: what is, asked of the store; and what has happened since this server started.

Every server of a store counts all runs, whoever was asked to run them: take the figures of one, never their sum.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from flowkit.errors import FlowkitError
from flowkit.model import LIVE, Cause, Run, State, now
from flowkit.server.actions import Actions
from flowkit.store import Store
from flowkit.store.changes import Change

#: Seconds for which what the store has told is told again: two that ask at once cost it one question.
FRESH = 5.0

#: Runs that have ended are counted again when so many times as long has gone by as the last count took: of a million
#: that is two minutes, and a thousandth of the database's time whatever their number.
REST = 1_000.0

DURATIONS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200)
WAITS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

REDIS = {
    "used_memory": "flowkit_redis_memory_used_bytes",
    "maxmemory": "flowkit_redis_memory_limit_bytes",
    "connected_clients": "flowkit_redis_clients",
    "evicted_keys": "flowkit_redis_evicted_keys",
    "keyspace_hits": "flowkit_redis_keyspace_hits",
    "keyspace_misses": "flowkit_redis_keyspace_misses",
    "total_commands_processed": "flowkit_redis_commands",
}


class Metrics:
    def __init__(self, store: Store, actions: Actions) -> None:
        self._store = store
        self._actions = actions
        self._lock = threading.Lock()
        self._told: tuple[float, list[Metric]] = (0.0, [])
        self._ended: dict[tuple[str | None, State], int] = {}
        self._count_again = 0.0  #: by the monotonic clock
        self._registry = registry = CollectorRegistry()
        self._finished = Counter(
            "flowkit_runs_finished", "Runs that ended for good.", ["deployment", "state"], registry=registry
        )
        self._durations = Histogram(
            "flowkit_run_duration_seconds",
            "Of the attempt with which a run ended.",
            ["deployment"],
            buckets=DURATIONS,
            registry=registry,
        )
        self._waits = Histogram(
            "flowkit_run_wait_seconds",
            "From submitting a run until a worker claimed it.",
            ["queue"],
            buckets=WAITS,
            registry=registry,
        )
        self._retries = Counter(
            "flowkit_run_retries", "Attempts after a run's first.", ["deployment"], registry=registry
        )
        self._losses = Counter(
            "flowkit_lease_losses", "Attempts lost with their worker.", ["deployment"], registry=registry
        )
        registry.register(self)

    def count(self, changes: Sequence[Change]) -> None:
        """What has just happened."""
        for change in changes:
            run = change.now
            if change.state is None or run is None or run.attempt != change.attempt:
                continue
            deployment = run.deployment or ""
            if change.state is State.RUNNING and not run.cancelling and run.started is not None:
                if run.attempt > 1:
                    self._retries.labels(deployment).inc()
                else:
                    self._waits.labels(run.policy.queue).observe(_seconds(run, "created", "started"))
            elif change.state is State.PENDING and run.cause is Cause.CRASHED and run.crashes:
                self._losses.labels(deployment).inc()
            elif change.state.final:
                self._finished.labels(deployment, change.state.value).inc()
                if run.started is not None and run.finished is not None:
                    self._durations.labels(deployment).observe(_seconds(run, "started", "finished"))

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []  # asked when this is registered, before the store need answer

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            asked, told = self._told
            if not told or monotonic() - asked > FRESH:
                told = list(self._ask())
                self._told = (monotonic(), told)
        yield from told

    def _ask(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("flowkit_store_up", "1 if the store answers.")
        try:
            yield from self._of_the_store()
            up.add_metric([], 1)
        except FlowkitError:
            up.add_metric([], 0)
        yield up
        yield from self._of_redis()

    def _of_the_store(self) -> list[Metric]:
        at = now()
        runs = GaugeMetricFamily("flowkit_runs", "Runs that are kept.", labels=["deployment", "state"])
        for (deployment, state), many in (self._tally_ended() | self._store.tally(under_way=True)).items():
            runs.add_metric([deployment or "", state.value], many)
        waiting = GaugeMetricFamily("flowkit_queue_depth", "Runs that wait.", labels=["queue"])
        running = GaugeMetricFamily("flowkit_queue_running", "Runs under way.", labels=["queue"])
        oldest = GaugeMetricFamily(
            "flowkit_queue_oldest_age_seconds", "Since the longest waiting was submitted.", labels=["queue"]
        )
        for queue in self._actions.queues():
            waiting.add_metric([queue.name], queue.waiting)
            running.add_metric([queue.name], queue.running)
            oldest.add_metric([queue.name], (at - queue.oldest).total_seconds() if queue.oldest else 0)
        workers = GaugeMetricFamily("flowkit_workers", "Workers that are alive.", labels=["queue"])
        slots = GaugeMetricFamily("flowkit_worker_slots", "Runs that they can have under way.", labels=["queue"])
        alive = self._store.workers(since=at - LIVE)
        for name in sorted({queue for worker in alive for queue in worker.queues}):
            there = [worker for worker in alive if name in worker.queues]
            workers.add_metric([name], len(there))
            slots.add_metric([name], sum(worker.concurrency for worker in there))
        late = GaugeMetricFamily("flowkit_schedule_lag_seconds", "By which the longest overdue firing is late.")
        due = self._store.due(now=at, limit=1)
        overdue = due[0].schedule.next if due and due[0].schedule else None
        late.add_metric([], (at - overdue).total_seconds() if overdue else 0)
        return [runs, waiting, running, oldest, workers, slots, late]

    def _tally_ended(self) -> dict[tuple[str | None, State], int]:
        began = monotonic()
        if began >= self._count_again:
            self._ended = {key: many for key, many in self._store.tally().items() if key[1].final}
            self._count_again = monotonic() + REST * (monotonic() - began)
        return self._ended

    def _of_redis(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("flowkit_redis_up", "1 if Redis answers; without Redis there is no such figure.")
        try:
            figures = self._actions.redis()
            if figures is None:
                return
            up.add_metric([], 1)
            for theirs, ours in REDIS.items():
                yield GaugeMetricFamily(ours, f"Redis's own {theirs}.", value=figures[theirs])
        except FlowkitError:
            up.add_metric([], 0)
        yield up


def _seconds(run: Run, first: str, last: str) -> float:
    spent: float = (getattr(run, last) - getattr(run, first)).total_seconds()
    return max(0.0, spent)
