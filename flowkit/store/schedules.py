"""From a schedule's cursor to runs and skips, each firing exactly once, however many processes try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from flowkit.model import Deployment, Overlap, Plan, Reason, Run, Skip
from flowkit.store.database import Database
from flowkit.store.deployments import select_deployments, to_deployment
from flowkit.store.moves import cancel_runs
from flowkit.store.schema import deployments, runs, skips
from flowkit.store.series import BEGUN, OPEN, begin_series, hold, places
from flowkit.store.submissions import insert_runs


class Schedules(Database):
    def due(self, *, now: datetime, limit: int = 100) -> list[Deployment]:
        """Deployments that should have fired by now, the longest overdue first. A paused one has no next firing."""
        with self.reading() as connection:
            return [to_deployment(row) for row in connection.execute(_due(now, limit))]

    def fire(
        self, plan: Callable[[Deployment], Plan | None], *, now: datetime, limit: int = 100
    ) -> tuple[list[Run], list[Skip]]:
        """Store what becomes of the firings of the longest overdue deployments, and move them on: all or nothing.

        Others that fire at this moment take other deployments. Nothing comes back if there are none left.

        Args:
            plan: what becomes of the deployment's firings that are due, before it is known what overlaps; None to
                leave them.
        """
        with self.writing() as connection:
            held = _due(now, limit).with_for_update(of=deployments, skip_locked=True)
            found = [to_deployment(row) for row in connection.execute(held)]
            plans = [(one, planned) for one in found if (planned := plan(one)) is not None]
            if not plans:
                return [], []
            busy = _busy(connection, [one.name for one, _ in plans])
            new: list[tuple[Run, int | None]] = []
            skipped: list[Skip] = []
            for deployment, planned in plans:
                skipped += planned.skips
                started, overlapping = self._overlapped(connection, deployment, planned.runs, busy, now)
                new += started
                skipped += overlapping
            added = insert_runs(self, connection, new)
            if skipped:
                rows = [asdict(skip) for skip in skipped]
                connection.execute(self.insert(skips).on_conflict_do_nothing(), rows)
            moved = sa.update(deployments).where(deployments.c.name == sa.bindparam("of"))
            connection.execute(
                moved.values(next=sa.bindparam("then")), [{"of": one.name, "then": its.next} for one, its in plans]
            )
            return [run for run, _ in new if run.id in added], skipped

    def skips(self, deployment: str, *, limit: int = 100) -> list[Skip]:
        """Which of its firings did not become runs, newest first."""
        query = sa.select(skips).where(skips.c.deployment == deployment).order_by(skips.c.first.desc()).limit(limit)
        with self.reading() as connection:
            return [to_skip(row) for row in connection.execute(query)]

    def forget_skips(self, *, before: datetime) -> None:
        """Those that were decided before then."""
        with self.writing() as connection:
            connection.execute(sa.delete(skips).where(skips.c.at < before))

    def _overlapped(
        self, connection: sa.Connection, deployment: Deployment, due: Sequence[Run], busy: set[str], now: datetime
    ) -> tuple[list[tuple[Run, int | None]], list[Skip]]:
        """Which of these runs there will be, each with its place in line, and the firings that are skipped instead."""
        assert deployment.schedule is not None
        name, overlap = deployment.name, deployment.schedule.overlap
        if not due or overlap is Overlap.ALLOW:
            return [(run, None) for run in due], []
        if overlap in (Overlap.QUEUE, Overlap.CANCEL_RUNNING):
            series = f"{name}:"  # as that of a backfill, without the parameter
            begin_series(self, connection, series, name, now=now)
            if name in busy:
                if overlap is Overlap.CANCEL_RUNNING:
                    # Those in line after the others and after the series: in the order in which they wait for it.
                    cancel_runs(connection, sa.and_(_open(name), BEGUN), now=now)
                    hold(connection, series)
                    cancel_runs(connection, _open(name), now=now)
                # Also those from before they took turns; what is being cancelled has its turn until it has ended.
                connection.execute(sa.update(runs).where(_open(name), runs.c.series.is_(None)).values(series=series))
            line = places(connection, series, len(due))
            return [(replace(run, series=series), place) for run, place in zip(due, line, strict=True)], []
        begins, over = (due[:0], due) if name in busy else (due[:1], due[1:])
        return [(run, None) for run in begins], _skips(over, Reason.OVERLAP, now)


def _due(now: datetime, limit: int) -> sa.Select[Any]:
    longest = deployments.c.next, deployments.c.name
    return select_deployments().where(deployments.c.next <= now).order_by(*longest).limit(limit)


def _busy(connection: sa.Connection, names: Sequence[str]) -> set[str]:
    """Those with a run of their schedule that has not ended."""
    query = sa.select(runs.c.deployment).where(runs.c.deployment.in_(names), runs.c.scheduled_for.is_not(None), OPEN)
    return set(connection.execute(query.distinct()).scalars())


def _open(name: str) -> sa.ColumnElement[bool]:
    return sa.and_(runs.c.deployment == name, runs.c.scheduled_for.is_not(None), OPEN)


def _skips(due: Sequence[Run], reason: Reason, now: datetime) -> list[Skip]:
    """These firings, which follow each other, as one entry."""
    if not due:
        return []
    first, last, deployment = due[0].scheduled_for, due[-1].scheduled_for, due[0].deployment
    assert first is not None
    assert last is not None
    assert deployment is not None
    return [Skip(deployment=deployment, first=first, last=last, count=len(due), reason=reason, at=now)]


def to_skip(row: sa.Row[Any]) -> Skip:
    return Skip(**dict(row._mapping) | {"reason": Reason(row.reason)})
