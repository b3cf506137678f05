"""How many runs of a queue or a deployment may be under way at once, and how many of a deployment may start in a while.

Counted is what is there, not what was noted of it: a number at which every crash must turn would drift. Whoever claims
a run that falls under a limit holds the limit's row until its commit, so that no two see the same free place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from flowkit.errors import NotFound, did_you_mean
from flowkit.model import Limit, Pass, Queue, Run, State, Wait
from flowkit.rates import Rate
from flowkit.store.database import Database
from flowkit.store.schema import grants, is_in, limits, runs
from flowkit.store.tree import OPEN

#: Kinds of limit: of a queue's runs, of a deployment's runs, of the calls of nodes that name it.
QUEUE, DEPLOYMENT, NODES = "queue", "deployment", "nodes"

#: In place of a kind: when calls of nodes that name a limit failed.
FAILURES = "failures"

_RUNNING = is_in(State.RUNNING)


@dataclass(frozen=True, slots=True)
class Shut:
    """What takes no run at the moment, and why."""

    queues: Mapping[str, Wait] = field(default_factory=dict)
    deployments: Mapping[str, Wait] = field(default_factory=dict)

    @property
    def names(self) -> Closed:
        return Closed(tuple(sorted(self.queues)), tuple(sorted(self.deployments)))


class Closed(NamedTuple):
    """Of what is shut the names alone."""

    queues: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ()

    def free(self, deployment: sa.Column[Any]) -> Iterable[sa.ColumnElement[bool]]:
        if self.deployments:
            yield sa.or_(deployment.is_(None), deployment.not_in(self.deployments))


class Limits(Database):
    def limit_queue(self, name: str, width: int | None) -> None:
        """So many of the queue's runs at once, from the next claim on; None: no limit. What runs already goes on."""
        with self.writing() as connection:
            keep_limit(self, connection, QUEUE, name, width=width)

    def queues(self) -> list[Queue]:
        """Those in which runs wait or run, or that have a limit; by name."""
        with self.reading() as connection:
            waiting = _by_queue(connection, State.PENDING)
            running = _by_queue(connection, State.RUNNING)
            widths = dict(
                connection.execute(sa.select(limits.c.name, limits.c.width).where(limits.c.kind == QUEUE)).all()
            )
        return [
            Queue(
                name=name,
                waiting=waiting[name][0] if name in waiting else 0,
                running=running[name][0] if name in running else 0,
                max_concurrent=widths.get(name),
                oldest=waiting[name][1] if name in waiting else None,
            )
            for name in sorted(waiting.keys() | running.keys() | widths.keys())
        ]

    def set_limit(self, limit: Limit) -> None:
        """Define what nodes share that name it, or define it anew: then it is open. ``declared``: unless one is set."""
        rate = Rate.parse(limit.rate)
        breaks = {name: getattr(limit, name) for name in ("failures", "within", "close_for")}
        this = limits.c.kind == NODES, limits.c.name == limit.name
        with self.writing() as connection:
            if limit.declared:
                found = connection.execute(sa.select(limits).where(*this)).first()
                if found is not None and not found.declared:
                    return
            values = {**breaks, "declared": limit.declared, "failed": 0, "closed": None, "trial": None, "error": None}
            keep_limit(self, connection, NODES, limit.name, width=None, rate=str(rate))
            connection.execute(sa.update(limits).where(*this).values(values))
            connection.execute(sa.delete(grants).where(grants.c.kind == FAILURES, grants.c.name == limit.name))

    def remove_limit(self, name: str) -> None:
        with self.writing() as connection:
            kinds = [NODES, FAILURES]
            connection.execute(sa.delete(grants).where(grants.c.kind.in_(kinds), grants.c.name == name))
            gone = connection.execute(sa.delete(limits).where(limits.c.kind == NODES, limits.c.name == name))
            found = gone.rowcount
            known = connection.execute(sa.select(limits.c.name).where(limits.c.kind == NODES)).scalars().all()
        if not found:
            raise NotFound(f"no limit {name!r}{did_you_mean(name, known) or '; `flowkit limits` lists them'}")

    def limits(self, name: str | None = None) -> list[Limit]:
        """Those that nodes name, or that one if it is there; by name."""
        query = sa.select(limits).where(limits.c.kind == NODES).order_by(limits.c.name)
        if name is not None:
            query = query.where(limits.c.name == name)
        with self.reading() as connection:
            return [_to_limit(row) for row in connection.execute(query)]

    def admit(self, name: str, *, counting: bool, now: datetime) -> Pass | None:
        """Let one call of a node pass, or say what stands in its way. None: there is no such limit.

        Args:
            counting: by its rate as well; False: somebody else counts that.
        """
        this = limits.c.kind == NODES, limits.c.name == name
        with self.writing() as connection:
            row = connection.execute(sa.select(limits).where(*this).with_for_update()).first()
            if row is None:
                return None
            for until, trying in ((row.closed, False), (row.closed and row.trial, True)):
                if until is not None and until > now:
                    left = (until - now).total_seconds()
                    return Pass(closed=left, trying=trying, failures=row.failures, error=row.error)
            if counting:
                wait = _too_soon(row, _oldest(connection, row), now)
                if wait is not None and wait.until is not None:
                    return Pass(wait=(wait.until - now).total_seconds())
                take(self, connection, [row], now)
            if row.closed is not None:
                given_up = now + timedelta(seconds=row.close_for)
                connection.execute(sa.update(limits).where(*this).values(trial=given_up))
            return Pass(failures=row.failures)

    def tell(self, name: str, error: str | None, *, now: datetime) -> None:
        """How a call went that was let pass; *error*: why it failed, on one line."""
        this = limits.c.kind == NODES, limits.c.name == name
        with self.writing() as connection:
            row = connection.execute(sa.select(limits).where(*this).with_for_update()).first()
            if row is None or row.failures is None:
                return
            closed = row.closed is not None
            if closed and row.trial is None:  # a call that began before it closed
                return
            if error is None and not closed:
                return
            values: dict[str, Any] = {"trial": None, "error": error, "closed": None}
            if error is None:
                connection.execute(sa.delete(grants).where(grants.c.kind == FAILURES, grants.c.name == name))
            else:
                slot = row.failed
                stamp = {"kind": FAILURES, "name": name, "slot": slot, "at": now}
                kept = self.insert(grants).values(stamp)
                connection.execute(
                    kept.on_conflict_do_update(index_elements=["kind", "name", "slot"], set_={"at": now})
                )
                values["failed"] = next = (slot + 1) % row.failures
                last = sa.select(grants.c.at).where(
                    grants.c.kind == FAILURES, grants.c.name == name, grants.c.slot == next
                )
                oldest = connection.execute(last).scalar()
                many = oldest is not None and now - oldest < timedelta(seconds=row.within)
                if closed or many:
                    values["closed"] = now + timedelta(seconds=row.close_for)
            connection.execute(sa.update(limits).where(*this).values(values))

    def wait(self, run: Run, *, now: datetime) -> Wait | None:
        """Why the run is not claimed now; None: it is not pending, or nothing is in its way but a free worker."""
        if run.state is not State.PENDING:
            return None
        with self.reading() as connection:
            line = sa.select(runs.c.series, runs.c.place).where(runs.c.id == run.id)
            standing = connection.execute(line).first()
            if standing is not None and standing.place is not None and standing.place < 0:
                theirs = sa.select(sa.func.count()).where(runs.c.parent == run.id)
                total = connection.execute(theirs).scalar_one()
                left = connection.execute(theirs.where(OPEN)).scalar_one()
                return Wait(f"for its children, {left} of {total} have not ended")
            if standing is not None and standing.place is not None:
                before = sa.select(sa.func.count()).where(runs.c.series == standing.series, runs.c.place > 0)
                ahead = connection.execute(before.where(runs.c.place < standing.place)).scalar_one()
                return Wait(f"for its turn in {standing.series}, {ahead} stand in line before it")
            if run.available is not None and run.available > now:
                return Wait("for its time", run.available)
            _, shut = find_shut(connection, now)
        return shut.deployments.get(run.deployment or "") or shut.queues.get(run.policy.queue)


def keep_limit(
    database: Database, connection: sa.Connection, kind: str, name: str, *, width: int | None, rate: str | None = None
) -> None:
    """Have the limit, or none if it limits nothing. What a rate has let pass is forgotten when the rate changes."""
    this = limits.c.kind == kind, limits.c.name == name
    wanted = None if rate is None else Rate.parse(rate)
    many, seconds = (wanted.count, wanted.seconds) if wanted else (None, None)
    found = connection.execute(sa.select(limits).where(*this).with_for_update()).first()
    if found is not None and (found.many, found.seconds) != (many, seconds):
        connection.execute(sa.delete(grants).where(grants.c.kind == kind, grants.c.name == name))
        connection.execute(sa.update(limits).where(*this).values(taken=0))
    if width is None and many is None:
        connection.execute(sa.delete(limits).where(*this))
        return
    row = {"width": width, "many": many, "seconds": seconds}
    new = database.insert(limits).values(kind=kind, name=name, taken=0, failed=0, declared=False, **row)
    connection.execute(new.on_conflict_do_update(index_elements=["kind", "name"], set_=row))


#: The limits for runs, each with when that was let pass whose place the next one takes.
_OF_RUNS = (
    sa.select(limits, grants.c.at)
    .outerjoin(
        grants, sa.and_(grants.c.kind == limits.c.kind, grants.c.name == limits.c.name, grants.c.slot == limits.c.taken)
    )
    .where(limits.c.kind.in_([QUEUE, DEPLOYMENT]))
)


def find_shut(connection: sa.Connection, now: datetime) -> tuple[bool, Shut]:
    """Whether there is any limit for runs, and what is shut by one."""
    rows = connection.execute(_OF_RUNS).all()
    if not rows:
        return False, Shut()
    counts: dict[str, dict[str, int]] = {QUEUE: {}, DEPLOYMENT: {}}
    both = runs.c.queue, runs.c.deployment
    for queue, deployment, count in connection.execute(
        sa.select(*both, sa.func.count()).where(_RUNNING).group_by(*both)
    ):
        for kind, name in ((QUEUE, queue), (DEPLOYMENT, deployment)):
            counts[kind][name] = counts[kind].get(name, 0) + count
    found: dict[str, dict[str, Wait]] = {QUEUE: {}, DEPLOYMENT: {}}
    for row in rows:
        wait = _full(row, counts[row.kind].get(row.name, 0)) or _too_soon(row, row.at, now)
        if wait is not None:
            found[row.kind][row.name] = wait
    return True, Shut(found[QUEUE], found[DEPLOYMENT])


def hold_limits(
    connection: sa.Connection, queue: str, deployment: str | None, now: datetime
) -> tuple[list[sa.Row[Any]], list[sa.ColumnElement[bool]]] | None:
    """The limits under which a run falls, held until the commit, and what must still be so in the statement after this.

    None: a rate has been used up meanwhile.
    """
    theirs = [sa.and_(limits.c.kind == QUEUE, limits.c.name == queue)]
    if deployment is not None:
        theirs.append(sa.and_(limits.c.kind == DEPLOYMENT, limits.c.name == deployment))
    # In one order, so that nobody waits in a circle.
    held = connection.execute(sa.select(limits).where(sa.or_(*theirs)).order_by(limits.c.kind).with_for_update()).all()
    room = []
    for row in held:
        if row.many is not None and _too_soon(row, _oldest(connection, row), now) is not None:
            return None
        if row.width is not None:
            others = runs.alias()
            counted = others.c.queue if row.kind == QUEUE else others.c.deployment
            running = sa.select(sa.func.count()).where(counted == row.name, is_in(State.RUNNING, others))
            room.append(running.scalar_subquery() < row.width)
    return list(held), room


def take(database: Database, connection: sa.Connection, held: Iterable[sa.Row[Any]], now: datetime) -> None:
    """Let one more pass, for each of these limits that has a rate."""
    for row in held:
        if row.many is not None:
            values = {"kind": row.kind, "name": row.name, "slot": row.taken, "at": now}
            new = database.insert(grants).values(values)
            kept = new.on_conflict_do_update(index_elements=["kind", "name", "slot"], set_={"at": now})
            connection.execute(kept)
            this = limits.c.kind == row.kind, limits.c.name == row.name
            connection.execute(sa.update(limits).where(*this).values(taken=(row.taken + 1) % row.many))


def _oldest(connection: sa.Connection, row: sa.Row[Any]) -> datetime | None:
    """When that was let pass whose place the next one takes; None if that place is free."""
    this = grants.c.kind == row.kind, grants.c.name == row.name, grants.c.slot == row.taken
    found: datetime | None = connection.execute(sa.select(grants.c.at).where(*this)).scalar()
    return found


def _full(row: sa.Row[Any], running: int) -> Wait | None:
    if row.width is None or running < row.width:
        return None
    return Wait(f"{running} of {row.width} of {row.kind} {row.name} are under way")


def _too_soon(row: sa.Row[Any], oldest: datetime | None, now: datetime) -> Wait | None:
    """A clock that is a little behind does not let more pass; what one far ahead has written stops nobody."""
    if row.many is None or oldest is None:
        return None
    span = timedelta(seconds=row.seconds)
    if not -span < now - oldest < span:
        return None
    return Wait(f"{row.kind} {row.name} starts {Rate(row.many, row.seconds)}, and has done so", oldest + span)


def _to_limit(row: sa.Row[Any]) -> Limit:
    names = ("name", "failures", "within", "close_for", "closed", "error", "declared")
    return Limit(rate=str(Rate(row.many, row.seconds)), **{name: getattr(row, name) for name in names})


def _by_queue(connection: sa.Connection, state: State) -> dict[str, tuple[int, datetime]]:
    query = sa.select(runs.c.queue, sa.func.count(), sa.func.min(runs.c.created)).where(is_in(state))
    return {name: (count, oldest) for name, count, oldest in connection.execute(query.group_by(runs.c.queue))}
