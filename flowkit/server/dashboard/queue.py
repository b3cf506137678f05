"""The page Queue & Redis: how deep, how long, how fast; and how Redis is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.now import QUEUES, Lanes
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import cut, seconds
from flowkit.server.pulse import Sample
from flowkit.store.figures import Brief, percentiles

#: Points of a line: of more samples, those that lie between two points are one.
POINTS = 240
#: Lines of one chart; what is in other queues is one more.
LINES = 4
#: Of which runs it is told how long they waited and took; the newest so many of each ending.
LATELY, RUNS = timedelta(hours=1), 2_000


@dataclass(frozen=True, slots=True)
class Felt:
    since: datetime  #: when this server began to look
    samples: Sequence[Sample]
    silent: str | None


@dataclass(frozen=True, slots=True)
class Pulses:
    def read(self, look: Look, before: Felt | None) -> Felt:
        if look.pulse is None:
            return Felt(look.at, [], None)
        found = look.pulse.samples
        if before is not None and found and before.samples and before.samples[-1] is found[-1]:
            return before
        return Felt(look.pulse.since, found, look.pulse.silent)

    def tell(self, found: Felt) -> dict[str, Any]:
        points = _thinned(found.samples)
        totals: dict[str, int] = {}
        for one in found.samples:
            for name, many in one.waiting.items():
                totals[name] = max(totals.get(name, 0), many)
        lines = sorted(totals, key=lambda name: -totals[name])[:LINES]
        newest = found.samples[-1] if found.samples else None
        return {
            "times": [seconds(some[-1].at) for some in points],
            "since": seconds(found.since),
            "depth": {name: [max(one.waiting.get(name, 0) for one in some) for some in points] for name in lines},
            "others": [
                max(sum(many for name, many in one.waiting.items() if name not in lines) for one in some)
                for some in points
            ]
            if len(totals) > LINES
            else [],
            "running": [max(one.running for one in some) for some in points],
            "latency": [_highest(one.latency for one in some) for some in points],
            "redis": None if newest is None or newest.redis is None else dict(newest.redis),
            "silent": cut(found.silent or ""),
            "ping": [_highest(one.redis and one.redis["latency"] for one in some) for some in points],
            "memory": [_highest(one.redis and one.redis["used_memory"] for one in some) for some in points],
            "clients": [_highest(one.redis and one.redis["connected_clients"] for one in some) for some in points],
            "hits": _hits(found.samples),
        }


@dataclass(frozen=True, slots=True)
class Times:
    """How long runs waited and took lately, by queue."""

    def read(self, look: Look, before: Any) -> list[Brief]:
        return look.seldom("times", 2.0, lambda: look.store.ended(since=look.at - LATELY, limit=RUNS))

    def tell(self, found: list[Brief]) -> dict[str, Any]:
        queues: dict[str, list[Brief]] = {}
        for run in found:
            queues.setdefault(run.queue, []).append(run)
        told = {
            name: {
                "runs": len(runs),
                "waited": percentiles([run.waited for run in runs if run.waited is not None], 0.5, 0.95, 0.99),
                "took": percentiles([run.took for run in runs if run.took is not None], 0.5, 0.95, 0.99),
            }
            for name, runs in sorted(queues.items())[:QUEUES]
        }
        oldest = min((run.finished or run.created for run in found), default=None)
        return {"spans": {"queues": told, "capped": len(found) >= RUNS, "oldest": seconds(oldest)}}


def _thinned(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """The newest is a point by itself, so that the lines end now."""
    width = max(1, -(-len(samples) // POINTS))
    return [samples[max(0, end - width) : end] for end in range(len(samples), 0, -width)][::-1]


def _highest(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _hits(samples: Sequence[Sample]) -> list[float]:
    """Of what was looked for in Redis since the first sample: found, and not. It counts anew when it starts anew."""
    found = [0.0, 0.0]
    for before, after in pairwise(samples):
        if before.redis and after.redis:
            for place, name in enumerate(("keyspace_hits", "keyspace_misses")):
                found[place] += max(0.0, after.redis[name] - before.redis[name])
    return found


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {
    "pulse": lambda said: Pulses(),
    "times": lambda said: Times(),
    "lanes": lambda said: Lanes(),
}

ACTS: dict[str, Act] = {}
