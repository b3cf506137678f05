"""What is amiss with the parts that all processes of a store share; for the doctor, and for the dashboard."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

from flowkit.errors import Unavailable
from flowkit.model import LIVE, Finding, Health
from flowkit.store import Store
from flowkit.worker.broker import Broker

#: Seconds by which this machine's clock and the database's may differ: schedules fire by either.
SKEW = 2.0
#: By which a firing is not late yet: workers look each second.
LATE = timedelta(minutes=1)


def remarks(of: Store, by: Broker, now: datetime, *, embedded: bool) -> list[Finding]:
    """All that is not good. Raises: Unavailable, if the store does not answer."""
    found = [*store(of, now), *workers(of, now)]
    try:
        by.check()
        found += broker(by, embedded=embedded)
    except Unavailable as error:
        late = "start it; until then workers find a run when they next look, a second later"
        found.append(Finding("broker", Health.PROBLEM, str(error), late))
    order = list(Health)
    return sorted((one for one in found if one.remedy), key=lambda one: order.index(one.health), reverse=True)


def store(of: Store, now: datetime) -> Iterator[Finding]:
    yield Finding("store", Health.GOOD, of.shown)
    skew = abs((of.clock() - now).total_seconds())
    if skew > SKEW:
        yield Finding(
            "clock",
            Health.WARNING,
            f"this machine's clock and the database's differ by {skew:.0f} s",
            "set both by NTP: schedules fire by the clock of whichever worker looks first",
        )


def broker(of: Broker, *, embedded: bool) -> Iterator[Finding]:
    of.check()
    facts = of.facts()
    if facts is None:
        yield Finding("broker", Health.GOOD, f"SQLite, {of.address}")
        if not embedded:
            yield Finding(
                "broker",
                Health.WARNING,
                "the store is a server, but runs are announced in a file of this machine alone",
                "set FLOWKIT_REDIS_URL: workers elsewhere find a run only when they next look, a second later",
            )
        return
    yield Finding("broker", Health.GOOD, f"Redis {facts['version']}, {of.address}")
    if int(facts["version"].split(".")[0]) < 5:
        yield Finding("broker", Health.PROBLEM, "Redis before 5.0 has no priorities", "install a newer Redis")
    if facts["policy"] != "noeviction":
        yield Finding(
            "broker",
            Health.PROBLEM,
            f"Redis may throw messages away when its memory is full: maxmemory-policy is {facts['policy']}",
            "redis-cli config set maxmemory-policy noeviction, and the same in redis.conf",
        )


def workers(of: Store, now: datetime) -> Iterator[Finding]:
    alive = of.workers(since=now - LIVE)
    heard = {queue for worker in alive for queue in worker.queues}
    if alive:
        yield Finding("workers", Health.GOOD, f"{len(alive)} alive, on {', '.join(sorted(heard))}")
    if dropped := sum(worker.dropped for worker in alive):
        yield Finding(
            "messages",
            Health.WARNING,
            f"workers dropped {dropped} messages that no flowkit of this store has sent",
            "see who else writes there: protect Redis by a password, and give each store a database of its own",
        )
    waiting = of.depth(now)
    deployed = {one.policy.queue for one in of.deployments() if not one.paused and one.schedule}
    for queue in sorted((set(waiting) | deployed) - heard):
        runs = waiting.get(queue, 0)
        yield Finding(
            "workers",
            Health.PROBLEM,
            f"no worker is alive on queue {queue!r}"
            + (f", where {runs} run{' waits' if runs == 1 else 's wait'}" if runs else ""),
            f"flowkit worker --queue {shlex.quote(queue)}",
        )
    for overdue in of.due(now=now - LATE, limit=1):
        assert overdue.schedule is not None
        assert overdue.schedule.next is not None
        late = (now - overdue.schedule.next).total_seconds() / 60
        yield Finding(
            "schedules",
            Health.PROBLEM,
            f"{overdue.name} should have fired {late:.0f} minutes ago, and nobody has looked",
            "start a worker, of whichever queue: each starts what is due; flowkit worker",
        )
