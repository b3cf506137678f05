"""The page Now: what waits, who works, and what is wrong at this moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flowkit.model import LIVE, Limit, State, Worker
from flowkit.server.dashboard.acts import Act
from flowkit.server.dashboard.reading import Look, Question
from flowkit.server.dashboard.telling import cut, seconds

#: So many runs of a state are counted at each look; of more, the page says that there are more.
MOST = 10_000

STATES = [state for state in State if state is not State.SKIPPED]


@dataclass(frozen=True, slots=True)
class Overview:
    counts: dict[State, int]  #: no state's is more than ``MOST``
    depth: dict[str, int]  #: runs waiting, by queue
    workers: list[Worker]  #: alive
    deployments: list[str]  #: names
    closed: list[Limit]  #: limits that nodes share, after too many failures


@dataclass(frozen=True, slots=True)
class Now:
    def read(self, look: Look, before: Overview | None) -> Overview:
        store = look.store
        workers = store.workers(since=look.at - LIVE)
        closed = [limit for limit in store.limits() if limit.closed]
        return Overview(store.counts(most=MOST), store.depth(look.at), workers, store.deployment_names(), closed)

    def tell(self, found: Overview) -> dict[str, Any]:
        served = {queue for worker in found.workers for queue in worker.queues}
        depth = found.depth
        overview = {
            "counts": {state.value: found.counts.get(state, 0) for state in STATES},
            "most": MOST,
            "queues": [[queue, depth.get(queue, 0)] for queue in sorted(depth.keys() | served)],
            "unserved": [[queue, waiting] for queue, waiting in depth.items() if waiting and queue not in served],
            "closed": [[limit.name, seconds(limit.closed), cut(limit.error or "")] for limit in found.closed],
            "workers": len(found.workers),
            "deployments": found.deployments,
        }
        return {"overview": overview}


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], Question]] = {"now": lambda said: Now()}
ACTS: dict[str, Act] = {}
