"""Deployments and their versions, and the snapshots of the notebooks they run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from flowkit.errors import Conflict, NotFound, did_you_mean
from flowkit.family import Family
from flowkit.model import CatchUp, Deployment, Overlap, Schedule, State
from flowkit.store.database import Database
from flowkit.store.limits import DEPLOYMENT, keep_limit
from flowkit.store.moves import cancel_runs
from flowkit.store.runs import to_policy
from flowkit.store.schema import days, deployments, families, is_in, runs, secrets, series, skips, snapshots, versions
from flowkit.store.series import BEGUN, OPEN, hold
from flowkit.store.snapshots import keep_family, keep_snapshot
from flowkit.store.submissions import lane_of

#: Of the secrets' names: the deployment's follows.
HOOK = "hook "


class Deployments(Database):
    def deploy(
        self, deployment: Deployment, snapshot: str, *, now: datetime, family: Family | None = None
    ) -> tuple[Deployment, bool]:
        """Make the deployment be as given; False if it already was.

        A changed snapshot, family, parameters, policy or retention makes a new version; a moved notebook, another
        commit or a changed schedule does not. A schedule that fires as before keeps its place (``next``, ``anchor``)
        whatever is given, a paused deployment stays paused.

        Args:
            snapshot: the notebook's text, whose digest is ``deployment.snapshot``.
            family: whose digest is ``deployment.family``, with texts.
        """
        name = deployment.name
        with self.writing() as connection:
            keep_snapshot(self, connection, deployment.snapshot, snapshot)
            if family is not None:
                keep_family(self, connection, family)
            # A row without a version, which no reader sees, so that deploys of one name take turns at it.
            empty = {"name": name, "version": 0, "paused": False, "created": now, "changed": now}
            connection.execute(self.insert(deployments).values(empty).on_conflict_do_nothing())
            connection.execute(sa.select(deployments.c.name).where(deployments.c.name == name).with_for_update())
            before = find_deployment(connection, name)
            after = _deployed(before, deployment, now)
            policy = after.policy
            keep_limit(self, connection, DEPLOYMENT, name, width=policy.max_concurrent, rate=policy.rate)
            if after == before:
                return after, False
            # What waits already changes lanes when its deployment becomes limited, or is no longer. Not what is just
            # being claimed: whoever does that may wait for the limit that we hold.
            lane = lane_of(name, policy)
            waiting = runs.c.deployment == name, is_in(State.PENDING), runs.c.lane != lane
            others = sa.select(runs.c.id).where(*waiting).with_for_update(skip_locked=True)
            connection.execute(sa.update(runs).where(runs.c.id.in_(others)).values(lane=lane))
            if before is None or after.version > before.version:
                connection.execute(sa.insert(versions).values(_version_row(after)))
            else:
                current = versions.c.name == name, versions.c.version == after.version
                connection.execute(
                    sa.update(versions).where(*current).values(notebook=after.notebook, commit=after.commit)
                )
            row = {"version": after.version, "changed": now} | _schedule_row(after.schedule)
            connection.execute(sa.update(deployments).where(deployments.c.name == name).values(row))
            return after, True

    def deployment(self, name: str) -> Deployment:
        with self.reading() as connection:
            found = find_deployment(connection, name)
            if found is not None:
                return found
            known = connection.execute(sa.select(deployments.c.name)).scalars().all()
        raise _no_deployment(name, known)

    def deployments(
        self, *, like: str | None = None, after: str | None = None, limit: int | None = None
    ) -> list[Deployment]:
        """By name; all, or those in whose name *like* stands, from behind *after* on."""
        query = select_deployments().order_by(deployments.c.name).limit(limit)
        if like is not None:
            query = query.where(deployments.c.name.icontains(like, autoescape=True))
        if after is not None:
            query = query.where(deployments.c.name > after)
        with self.reading() as connection:
            rows = connection.execute(query)
            return [to_deployment(row) for row in rows]

    def deployment_names(self) -> list[str]:
        """In order."""
        query = sa.select(deployments.c.name).where(deployments.c.version > 0).order_by(deployments.c.name)
        with self.reading() as connection:
            return list(connection.execute(query).scalars())

    def versions(self, name: str) -> list[Deployment]:
        """All it ever had, newest first, each with the schedule of today."""
        query = select_deployments(current=False).where(deployments.c.name == name)
        with self.reading() as connection:
            found = [to_deployment(row) for row in connection.execute(query.order_by(versions.c.version.desc()))]
        return found or [self.deployment(name)]  # which raises

    def snapshot(self, digest: str) -> str:
        """The notebook's text."""
        with self.reading() as connection:
            query = sa.select(snapshots.c.notebook).where(snapshots.c.digest == digest)
            found: str | None = connection.execute(query).scalar()
        if found is None:
            raise NotFound(f"the store has no notebook {digest!r}; it goes with the last run or version that needs it")
        return found

    def family(self, digest: str) -> Family:
        """Without the texts of its notebooks, each of which is a ``snapshot``."""
        with self.reading() as connection:
            tree = connection.execute(sa.select(families.c.tree).where(families.c.digest == digest)).scalar()
        if tree is None:
            raise NotFound(f"the store has no family {digest!r}; it goes with the last run or version that needs it")
        return Family(tree)

    def pause(self, name: str, *, now: datetime) -> Deployment:
        """It fires nothing until it is resumed. Runs that wait already, and those submitted by hand, still run."""
        return self._pause(name, {"paused": True, "next": None, "changed": now}, when=False)

    def resume(self, name: str, *, next: datetime | None, now: datetime) -> Deployment:
        """It fires again, first at *next*: what was missed meanwhile is not made up for."""
        return self._pause(name, {"paused": False, "next": next, "changed": now}, when=True)

    def delete(self, name: str, *, cancel: bool, now: datetime) -> None:
        """Forget the deployment with its versions, its schedule and its skips. Its runs stay until they are pruned.

        Args:
            cancel: its runs that wait are cancelled, and those that run are going to be.

        Raises:
            Conflict: there are such runs, and they are not to be cancelled.
        """
        under_way = sa.and_(runs.c.deployment == name, OPEN)
        if cancel:
            with self.writing() as connection:  # nobody's turn comes before all that stand in line are cancelled
                lines = sa.select(series.c.id).where(series.c.deployment == name).order_by(series.c.id)
                for line in connection.execute(lines).scalars().all():
                    hold(connection, line)
                cancel_runs(connection, sa.and_(under_way, ~BEGUN), now=now)
        with self.writing() as connection:
            # Held: no schedule fires and nobody deploys it until it is gone.
            held = sa.select(deployments.c.name).where(deployments.c.name == name).with_for_update()
            found = connection.execute(held).first() is not None
            if found and cancel:
                cancel_runs(connection, sa.and_(under_way, BEGUN), now=now)
            elif found:
                count = connection.execute(sa.select(sa.func.count()).select_from(runs).where(under_way)).scalar_one()
                if count:
                    what = "1 run of it is" if count == 1 else f"{count} runs of it are"
                    raise Conflict(f"{name} cannot be deleted: {what} under way; cancel them, or wait for their end")
            for table in (skips, days):
                connection.execute(sa.delete(table).where(table.c.deployment == name))
            keep_limit(self, connection, DEPLOYMENT, name, width=None)
            # Lest another of that name be run by who knew the secret of this one's.
            connection.execute(sa.delete(secrets).where(secrets.c.name == HOOK + name))
            connection.execute(sa.delete(deployments).where(deployments.c.name == name))  # and so its versions
        if not found:
            self.deployment(name)  # which raises

    def _pause(self, name: str, values: dict[str, Any], *, when: bool) -> Deployment:
        """Change the deployment, unless it is so already: resuming what runs must not move its next firing."""
        this = deployments.c.name == name, deployments.c.paused.is_(when)
        with self.writing() as connection:
            connection.execute(sa.update(deployments).where(*this).values(values))
        return self.deployment(name)


def select_deployments(*, current: bool = True) -> sa.Select[Any]:
    """Rows for ``to_deployment``: each deployment in its current version, or in every version it had."""
    same = versions.c.name == deployments.c.name
    if current:
        same = sa.and_(same, versions.c.version == deployments.c.version)
    schedule = [deployments.c[name] for name in Schedule.__slots__]
    return sa.select(
        versions, *schedule, deployments.c.paused, deployments.c.created.label("first_deployed")
    ).join_from(deployments, versions, same)


def find_deployment(connection: sa.Connection, name: str) -> Deployment | None:
    row = connection.execute(select_deployments().where(deployments.c.name == name)).first()
    return None if row is None else to_deployment(row)


def to_deployment(row: sa.Row[Any]) -> Deployment:
    pairs = dict(row._mapping)
    schedule = {name: pairs.pop(name) for name in Schedule.__slots__}
    return Deployment(
        **pairs
        | {
            "policy": to_policy(pairs["policy"]),
            "schedule": _to_schedule(schedule),
            "created": pairs.pop("first_deployed"),
            "updated": pairs["created"],
        }
    )


def _to_schedule(pairs: dict[str, Any]) -> Schedule | None:
    if pairs["cron"] is None and pairs["every"] is None:
        return None
    policies = {"catch_up": CatchUp(pairs["catch_up"]), "overlap": Overlap(pairs["overlap"])}
    return Schedule(**pairs | policies)


def _deployed(before: Deployment | None, wanted: Deployment, now: datetime) -> Deployment:
    """What the deployment becomes; equal to *before* if nothing changes."""
    if before is None:
        return replace(wanted, version=1, paused=False, created=now, updated=now)
    schedule = _rescheduled(before, wanted.schedule)
    after = replace(before, notebook=wanted.notebook, commit=wanted.commit, schedule=schedule)
    if _content(wanted) == _content(before):
        return after
    return replace(
        wanted,
        schedule=after.schedule,
        paused=before.paused,
        version=before.version + 1,
        created=before.created,
        updated=now,
    )


def _content(deployment: Deployment) -> str:
    """What makes a version, as text: NaN equals itself there, and 1 is neither 1.0 nor True."""
    parameters = dict(sorted(deployment.parameters.items()))
    keep = deployment.keep_succeeded, deployment.keep_failed
    return json.dumps([deployment.snapshot, deployment.family, parameters, asdict(deployment.policy), keep])


def _rescheduled(before: Deployment, wanted: Schedule | None) -> Schedule | None:
    old = before.schedule
    if wanted is None:
        return None
    if old is not None and all(getattr(old, name) == getattr(wanted, name) for name in _FIRES):
        return replace(wanted, anchor=old.anchor, next=old.next)
    return replace(wanted, next=None) if before.paused else wanted


#: What decides when a schedule fires; the rest decides what a firing does.
_FIRES = ("cron", "every", "zone", "start", "end")


def _version_row(deployment: Deployment) -> dict[str, Any]:
    names = ("name", "version", "notebook", "snapshot", "family", "commit", "keep_succeeded", "keep_failed")
    row = {name: getattr(deployment, name) for name in names}
    parameters, policy = dict(deployment.parameters), asdict(deployment.policy)
    return row | {"parameters": parameters, "policy": policy, "created": deployment.updated}


def _schedule_row(schedule: Schedule | None) -> dict[str, Any]:
    return dict.fromkeys(Schedule.__slots__) if schedule is None else asdict(schedule)


def _no_deployment(name: str, known: Sequence[str]) -> NotFound:
    hint = did_you_mean(name, known) or "; `flowkit deployments` lists them"
    return NotFound(f"no deployment {name!r}{hint}")
