"""What the server can have done, handed in by who starts it: it knows no worker, no queue and no notebook itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from flowkit.model import Backfill, Deployment, Finding, Limit, Notice, Policy, Queue, Run, Schedule


class Actions(Protocol):
    """A part of ``flowkit.client.Client``; see there."""

    def deploy_text(
        self,
        text: str,
        path: str,
        *,
        name: str | None,
        parameters: Mapping[str, Any],
        schedule: Schedule | None,
        policy: Policy,
        keep_succeeded: int,
        keep_failed: int,
        commit: str | None,
    ) -> tuple[Deployment, bool]: ...

    def delete(self, name: str, *, cancel: bool) -> None: ...

    def pause(self, name: str) -> Deployment: ...

    def resume(self, name: str) -> Deployment: ...

    def upcoming(self, target: str, *, tz: str | None, count: int) -> tuple[Schedule, list[datetime]]: ...

    def submit_deployment(
        self,
        name: str,
        *,
        parameters: Mapping[str, Any],
        key: str | None,
        policy: Mapping[str, Any],
        traceparent: str | None = None,
    ) -> Run: ...

    def submit_text(
        self,
        text: str,
        path: str,
        *,
        parameters: Mapping[str, Any],
        key: str | None,
        policy: Mapping[str, Any],
        commit: str | None,
        traceparent: str | None = None,
    ) -> Run: ...

    def retry(self, run: str, *, forget: str | None) -> Run: ...

    def cancel(self, run: str) -> Run: ...

    def cancel_backfill(self, id: str) -> Backfill: ...

    def backfill(
        self, name: str, parameter: str, values: Sequence[str], *, concurrency: int, only_failed: bool
    ) -> Backfill: ...

    def firings(self, schedule: Schedule, *, count: int) -> tuple[Schedule, list[datetime]]: ...

    def parameters(self, name: str) -> list[dict[str, Any]]: ...

    def queues(self) -> list[Queue]: ...

    def limit_queue(self, name: str, at_once: int | None) -> None: ...

    def set_limit(self, name: str, rate: str, *, failures: int | None, within: float, close_for: float) -> Limit: ...

    def typed(self, name: str, pairs: Mapping[str, str]) -> dict[str, Any]: ...

    def test_alerts(self, name: str) -> list[Notice]: ...

    def remarks(self) -> list[Finding]: ...

    def redis(self) -> Mapping[str, float] | None:
        """Figures of Redis; None: there is none."""
        ...
