"""Which runs are old enough to go, and their removal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import sqlalchemy as sa

from flowkit.model import Deployment, Run, State
from flowkit.store.database import Database
from flowkit.store.runs import to_run
from flowkit.store.schema import deployments, runs, snapshots, versions

#: A run that has ended is one of these.
SUCCEEDED = runs.c.state == State.SUCCEEDED.value
FAILED = runs.c.state.in_([State.FAILED.value, State.CANCELLED.value])

#: A run of a backfill is kept: that it is there says that its value is done.
BACKFILLED = sa.and_(runs.c.series.is_not(None), runs.c.scheduled_for.is_(None))

#: The conditions that a group of runs fulfils.
Group = tuple[sa.ColumnElement[bool], ...]


class Retention(Database):
    def prunable(self, *, limit: int = 100) -> list[Run]:
        """Ended runs beyond what their deployment keeps: its newest succeeded ones, and its newest others.

        A run without a deployment counts with those of the same notebook, and the defaults apply.
        """
        beyond: list[Run] = []
        with self.reading() as connection:
            for group, keep in _overfull(connection):
                newest = sa.select(runs).where(*group, ~BACKFILLED).order_by(runs.c.created.desc(), runs.c.id.desc())
                rows = connection.execute(newest.offset(keep).limit(limit - len(beyond)))
                beyond += [to_run(row) for row in rows]
                if len(beyond) == limit:
                    break
        return beyond

    def forget(self, ids: Sequence[str]) -> None:
        """Delete the runs with their events; those that have not ended (any more) stay. Artifacts go before.

        Notebooks that no run and no version needs go too.
        """
        ended = sa.select(runs.c.id).where(runs.c.id.in_(ids), sa.or_(SUCCEEDED, FAILED))
        unused = sa.select(snapshots.c.digest).where(
            ~sa.exists().where(runs.c.snapshot == snapshots.c.digest),
            ~sa.exists().where(versions.c.snapshot == snapshots.c.digest),
        )
        # What another process is at, it is welcome to: waiting for each other in two orders would be a deadlock.
        with self.writing() as connection:
            connection.execute(sa.delete(runs).where(runs.c.id.in_(ended.with_for_update(skip_locked=True))))
        with suppress(sa.exc.IntegrityError), self.writing() as connection:  # used again at this very moment
            theirs = unused.with_for_update(skip_locked=True)
            connection.execute(sa.delete(snapshots).where(snapshots.c.digest.in_(theirs)))


def _overfull(connection: sa.Connection) -> Iterator[tuple[Group, int]]:
    """Every group of ended runs with more than are kept of it, and how many those are.

    First counted: ranking every run by a window function takes ten times as long where little is to be pruned.
    """
    current = sa.and_(versions.c.name == deployments.c.name, versions.c.version == deployments.c.version)
    kept = sa.select(versions.c.name, versions.c.keep_succeeded, versions.c.keep_failed)
    keeps = {row.name: row for row in connection.execute(kept.join_from(deployments, versions, current))}
    deployed = runs.c.deployment.is_not(None)
    for owner, owned in ((runs.c.deployment, deployed), (runs.c.notebook, ~deployed)):
        for ended, keep in ((SUCCEEDED, "keep_succeeded"), (FAILED, "keep_failed")):
            count = sa.select(owner, sa.func.count()).where(owned, ended).group_by(owner)
            for name, found in connection.execute(count).all():
                limit = getattr(keeps.get(name), keep, getattr(_DEFAULTS, keep))
                if found > limit:
                    yield (owner == name, owned, ended), limit


_DEFAULTS = Deployment(name="", notebook="", snapshot="")
