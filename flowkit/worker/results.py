"""What a worker has to do with kept results, which it never reads: say where they go, and see that they go again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from flowkit.artifacts import Artifacts
from flowkit.model import Run
from flowkit.shelf import CACHE, KEEP, Shelf, kept_path
from flowkit.store import Store

#: Runs of a deployment that are looked at. More are not kept unless somebody raised the retention.
_RUNS = 200


class Results:
    def __init__(self, artifacts: Artifacts, *, limit: int) -> None:
        """*limit*: bytes that may be kept of one deployment; 0: nothing is."""
        self._artifacts = artifacts
        self._limit = limit
        self._ended: set[str] = set()

    def order(self, folder: Path) -> None:
        """Have the kernel of this run folder keep its results."""
        if self._limit:
            told = {"url": self._artifacts.locate("").rstrip("/"), "limit": self._limit}
            (folder / KEEP).write_text(json.dumps(told), encoding="utf-8")

    def ended(self, run: Run) -> None:
        """A run has left results behind, which may be too many now."""
        if run.deployment is not None:
            self._ended.add(run.deployment)

    def trim(self, store: Store) -> list[Run]:
        """Forget the results of the oldest ended runs of deployments that have too many; whose those were."""
        trimmed = []
        while self._ended:
            total = 0
            for run in store.runs(deployment=self._ended.pop(), limit=_RUNS):
                size = Shelf(self._artifacts, kept_path(run.id)).size()
                total += size
                if size and total > self._limit and run.state.final:
                    self._artifacts.remove(kept_path(run.id))
                    total -= size
                    trimmed.append(run)
        return trimmed

    def expire(self, at: datetime) -> int:
        """Forget what nobody may take from the cache any more; how many results that were."""
        cache = Shelf(self._artifacts, CACHE)
        past = [
            name for name, facts in cache.described() if facts["created"] + (facts["lifetime"] or 0) < at.timestamp()
        ]
        for name in past:
            cache.drop(name)
        return len(past)
