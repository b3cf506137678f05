"""Which runs are old enough to go, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import sqlalchemy as sa

from flowkit.model import Deployment, Run, State
from flowkit.store.database import Database
from flowkit.store.figures import count_days
from flowkit.store.runs import newest, to_run
from flowkit.store.schema import (
    deployments,
    families,
    installed,
    is_in,
    members,
    packages,
    runs,
    snapshots,
    versions,
)
from flowkit.store.tree import ended_below

#: What is kept of a deployment, and of runs in which states.
KEPT = {"keep_succeeded": (State.SUCCEEDED,), "keep_failed": (State.FAILED, State.CANCELLED)}

#: A run of a backfill is kept: that it is there says that its value is done.
BACKFILLED = sa.and_(runs.c.series.is_not(None), runs.c.scheduled_for.is_(None))

#: What is counted and goes by itself: a child goes with its parent.
COUNTS = sa.and_(~BACKFILLED, runs.c.parent.is_(None))


class Retention(Database):
    def prunable(self, *, like: Iterable[Run] | None = None, limit: int = 100) -> list[Run]:
        """Ended runs beyond what their deployment keeps: its newest succeeded ones, and its newest others.

        A run without a deployment counts with those of the same notebook, and the defaults apply.

        Args:
            like: only of these runs' deployments and notebooks. None: of all, which counts every run that is kept.
        """
        beyond: list[Run] = []
        with self.reading() as connection:
            for theirs, states, keep in _overfull(connection) if like is None else _of(connection, like):
                rows = newest(theirs, COUNTS, states=states, offset=keep, limit=limit - len(beyond))
                beyond += [to_run(row) for row in connection.execute(rows)]
                if len(beyond) == limit:
                    break
        return beyond

    def forget(self, ids: Sequence[str]) -> None:
        """Delete the runs with their events, and all below them; those that have not ended (any more) stay, and those
        below which something has not. Artifacts go before.

        Notebooks that no run and no version needs go too, and lists of packages that no run has told. How many runs
        there were is kept by the day, see ``Figures``.
        """
        final = sa.or_(*(runs.c.state.in_(states) for states in KEPT.values()))
        unused = sa.select(snapshots.c.digest).where(
            ~sa.exists().where(runs.c.snapshot == snapshots.c.digest),
            ~sa.exists().where(versions.c.snapshot == snapshots.c.digest),
            ~sa.exists().where(members.c.snapshot == snapshots.c.digest),
        )
        unneeded = sa.select(families.c.digest).where(
            ~sa.exists().where(runs.c.family == families.c.digest),
            ~sa.exists().where(versions.c.family == families.c.digest),
        )
        # What another process is at, it is welcome to: waiting for each other in two orders would be a deadlock.
        with self.writing() as connection:
            whole = ended_below(connection, ids)
            digests = _told(connection, [id for root, theirs in whole.items() for id in (root, *theirs)])
            ended = sa.select(runs.c.id).where(runs.c.id.in_(whole), final).with_for_update(skip_locked=True)
            of = [runs.c[name] for name in ("id", "deployment", "state", "created", "scheduled_for", "zone")]
            deleted = list(connection.execute(sa.delete(runs).where(runs.c.id.in_(ended)).returning(*of)))
            for some in _in_statements([child for row in deleted for child in whole[row.id]]):
                deleted += connection.execute(sa.delete(runs).where(runs.c.id.in_(some)).returning(*of)).all()
            count_days(self, connection, deleted)
        with suppress(sa.exc.IntegrityError), self.writing() as connection:  # used again at this very moment
            mine = unneeded.with_for_update(skip_locked=True)
            connection.execute(sa.delete(families).where(families.c.digest.in_(mine)))
        with suppress(sa.exc.IntegrityError), self.writing() as connection:  # that too
            mine = unused.with_for_update(skip_locked=True)
            connection.execute(sa.delete(snapshots).where(snapshots.c.digest.in_(mine)))
        if digests:
            # One that is told again at this very moment may go: unknown for that run, and there again with the next.
            nobody = ~sa.exists().where(installed.c.digest == packages.c.digest)
            with self.writing() as connection:
                connection.execute(sa.delete(packages).where(packages.c.digest.in_(digests), nobody))

    def whole(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """Those of these runs below which all has ended, each with what is below it: what goes with it."""
        with self.reading() as connection:
            return ended_below(connection, ids)


def _told(connection: sa.Connection, ids: Sequence[str]) -> list[str]:
    """The lists of packages that these runs have told."""
    found: set[str] = set()
    for some in _in_statements(ids):
        query = sa.select(installed.c.digest).where(installed.c.run.in_(some)).distinct()
        found.update(connection.execute(query).scalars())
    return sorted(found)


def _in_statements(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """No database takes any number of values in one statement."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


#: Whose runs, in which states, and how many of them are kept.
Group = tuple[sa.ColumnElement[bool], Sequence[State], int]


def _of(connection: sa.Connection, like: Iterable[Run]) -> Iterator[Group]:
    """Those with which any of these runs counts."""
    owners = {(run.deployment, None if run.deployment is not None else run.notebook) for run in like}
    for deployment, notebook in sorted(owners, key=str):
        mine = runs.c.deployment == deployment
        if deployment is None:
            mine = sa.and_(runs.c.deployment.is_(None), runs.c.notebook == notebook)
        keeps = connection.execute(_KEEPS.where(versions.c.name == deployment)).first() or _DEFAULTS
        for kind, states in KEPT.items():
            yield mine, states, getattr(keeps, kind)


def _overfull(connection: sa.Connection) -> Iterator[Group]:
    """All with more runs than are kept of them. No more are counted of anyone than are kept, and one."""
    keeps = _KEEPS.cte("keeps")
    for owner, which in ((runs.c.deployment, sa.true()), (runs.c.notebook, runs.c.deployment.is_(None))):
        owners = _owners(owner, which)
        known = keeps.c.name == owners.c.name if owner is runs.c.deployment else sa.false()
        for kind, states in KEPT.items():
            default = getattr(_DEFAULTS, kind)
            keep = sa.func.coalesce(keeps.c[kind], default)
            for limit in {default, *connection.execute(sa.select(keeps.c[kind]).distinct()).scalars()}:
                counts = [_count(owner == owners.c.name, which, is_in(state), most=limit + 1) for state in states]
                # Not an AND: there a database may well count first.
                many = sa.case((keep == limit, sum(counts[1:], counts[0])), else_=0) > limit
                found = sa.select(owners.c.name).outerjoin_from(owners, keeps, known)
                for name in connection.execute(found.where(owners.c.name.is_not(None), many)).scalars():
                    yield sa.and_(owner == name, which), states, limit


def _owners(owner: sa.Column[str], which: sa.ColumnElement[bool]) -> sa.CTE:
    """All whose runs there are, by one jump in the index of runs each, deleted deployments too; and a null."""
    first = sa.select(owner).where(which, owner.is_not(None)).order_by(owner).limit(1)
    owners = sa.select(first.scalar_subquery().label("name")).cte("owners", recursive=True)
    after = sa.select(owner).where(which, owner > owners.c.name).order_by(owner).limit(1).correlate(owners)
    return owners.union_all(sa.select(after.scalar_subquery()).where(owners.c.name.is_not(None)))


def _count(*conditions: sa.ColumnElement[bool], most: int) -> sa.ScalarSelect[int]:
    some = sa.select(runs.c.id).where(*conditions, COUNTS).limit(most).correlate_except(runs).subquery()
    return sa.select(sa.func.count()).select_from(some).scalar_subquery()


_CURRENT = sa.and_(versions.c.name == deployments.c.name, versions.c.version == deployments.c.version)
_KEEPS = sa.select(versions.c.name, *(versions.c[kind] for kind in KEPT)).join_from(deployments, versions, _CURRENT)
_DEFAULTS = Deployment(name="", notebook="", snapshot="")
