"""Who is there, as people see it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from flowkit.model import Worker
from flowkit.store import Store
from tests.store.given import T0, at

W1 = Worker(id="host-1-abc", host="host", pid=1, queues=("default", "big"), concurrency=2, started=T0, seen=T0)
W2 = replace(W1, id="host-2-def", pid=2, started=at(-1))


def test_a_worker_is_known_from_enrolling_to_leaving(store: Store) -> None:
    store.enrol(W1)
    store.enrol(W2)
    assert store.workers(since=T0) == [W2, W1]

    store.leave(W2.id)
    store.leave("unknown")
    assert store.workers(since=T0) == [W1]


def test_a_worker_that_is_not_seen_drops_out_until_it_is(store: Store) -> None:
    store.enrol(W1)
    assert store.workers(since=at(1)) == []

    assert store.seen(W1.id, now=at(5))

    assert store.workers(since=at(1)) == [replace(W1, seen=at(5))]
    assert not store.seen("unknown", now=at(5))


def test_enrolling_again_replaces_what_was_known(store: Store) -> None:
    store.enrol(W1)
    store.enrol(replace(W1, queues=(), concurrency=8))

    assert store.workers(since=T0) == [replace(W1, queues=(), concurrency=8)]


def test_a_worker_that_died_is_forgotten_after_a_day(store: Store) -> None:
    store.enrol(W1)
    store.enrol(replace(W2, seen=T0 + timedelta(hours=23)))
    assert len(store.workers(since=T0)) == 2

    later = replace(W2, seen=T0 + timedelta(hours=25))
    store.enrol(later)

    assert store.workers(since=T0) == [later]
