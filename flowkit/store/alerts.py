"""Who is told what of deployments, and what they were told.

Any number of processes look for what is to be told and come to the same: a notice is stored while its alert is held,
and only if it says something new.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from flowkit.errors import NotFound
from flowkit.model import ENDS, Alert, Notice, Run, State, Tells, Watch, watches
from flowkit.store.deployments import Deployments
from flowkit.store.runs import Runs
from flowkit.store.schema import alerts, notices
from flowkit.store.troubles import Troubles

#: Of a deployment's newest ended runs, so many are looked at.
_NEWEST = 100

#: After so many failed tries a notice is given up.
TRIES = 8

#: More than so many of one kind that are due at once are one message, of so many at most.
FEW, TOGETHER = 3, 100

#: Names in one statement.
_NAMES = 500


class After(NamedTuple):
    """A place in the list of what was told."""

    of: datetime
    alert: str
    run: str
    kind: str


class Alerts(Deployments, Runs, Troubles):
    def add_alert(self, deployment: str | None, secret: str, on: tuple[Watch, ...], *, now: datetime) -> Alert:
        """*deployment*: None for all, also those to come. *secret*: the name of one, whose value is the URL."""
        if deployment is not None:
            self.deployment(deployment)
        made = Alert(id=secrets.token_hex(4), deployment=deployment, secret=secret, on=on, created=now)
        row = {"id": made.id, "deployment": deployment, "secret": secret, "on": ",".join(map(str, on)), "created": now}
        with self.writing() as connection:
            connection.execute(sa.insert(alerts).values(row))
        return made

    def alerts(self) -> list[Alert]:
        with self.reading() as connection:
            return [_to_alert(row) for row in connection.execute(sa.select(alerts).order_by(alerts.c.created))]

    def has_alerts(self) -> bool:
        with self.reading() as connection:
            return connection.execute(sa.select(alerts.c.id).limit(1)).first() is not None

    def alerts_for(self, names: Iterable[str]) -> list[Alert]:
        """Those of these deployments, and those of all."""
        wanted = sorted(set(names))
        parts = [wanted[start : start + _NAMES] for start in range(0, len(wanted), _NAMES)]
        found = []
        with self.reading() as connection:
            for which in (alerts.c.deployment.is_(None), *(alerts.c.deployment.in_(part) for part in parts)):
                found += [_to_alert(row) for row in connection.execute(sa.select(alerts).where(which))]
        return found

    def remove_alert(self, id: str) -> None:
        with self.writing() as connection:
            connection.execute(sa.delete(notices).where(notices.c.alert == id))
            if not connection.execute(sa.delete(alerts).where(alerts.c.id == id)).rowcount:
                raise NotFound(f"no alert {id!r}; `flowkit alert list` lists them")

    # What was told.

    def notices(
        self,
        *,
        alert: str | None = None,
        deployment: str | None = None,
        before: After | None = None,
        limit: int = 100,
    ) -> list[Notice]:
        """What was told, could not be, or is to be; newest first."""
        order = notices.c.of, notices.c.alert, notices.c.run, notices.c.kind
        query = _NOTICES.where(_TOLD).order_by(*(column.desc() for column in order)).limit(limit)
        if alert is not None:
            query = query.where(notices.c.alert == alert)
        if deployment is not None:
            ours = notices.c.kind.not_in([Tells.STUCK.value, Tells.MOVING.value])  # a queue may bear its name
            query = query.where(notices.c.deployment == deployment, ours)
        if before is not None:
            place = sa.tuple_(*(sa.literal(one, column.type) for one, column in zip(before, order, strict=True)))
            query = query.where(notices.c.of <= before.of, sa.tuple_(*order) < place)
        with self.reading() as connection:
            return [_to_notice(row) for row in connection.execute(query)]

    def forget_notices(self, *, before: datetime) -> None:
        """Those from before then; what lasts stays, and the last of each kind, which says what need not be told."""
        newer = notices.alias()
        same = (newer.c[name] == notices.c[name] for name in ("alert", "deployment", "kind"))
        later = sa.select(newer.c.run).where(*same, newer.c.of > notices.c.of).limit(1).correlate(notices)
        old = notices.c.of < before, notices.c.open.is_(None), notices.c.due.is_(None)
        with self.writing() as connection:
            connection.execute(sa.delete(notices).where(*old, sa.exists(later)))

    # What is to be told.

    def notice_failures(self, alert: Alert, deployment: str, *, now: datetime) -> None:
        """Store what it has to tell of how runs ended: the first of like failures, and that it recovered."""
        told = self.last_notice(alert.id, deployment, Tells.FAILURE, Tells.RECOVERY)
        for run in self._ended(deployment, since=told.of if told else alert.created):
            failed, failing = run.state is State.FAILED, told is not None and told.kind is Tells.FAILURE
            if failed and failing and told is not None and told.reason == run.error:
                continue
            if not failed and not failing:
                continue
            assert run.finished is not None
            kind = Tells.FAILURE if failed else Tells.RECOVERY
            told = _notice(alert, kind, deployment, run.id, run.error, run.finished)
            with self.writing() as connection:
                self._store_notice(connection, told, now=now, silent=not alert.tells(kind))

    def notice_trouble(
        self, alert: Alert, kind: Tells, subject: str, *, run: str, reason: str, now: datetime, lasts: bool = True
    ) -> None:
        """Store that it is to tell this, unless it has told so of the same run, or of one of this subject that lasts.

        Args:
            reason: one line, and what to do about it in a second.
            lasts: until ``notice_end``.
        """
        ours = notices.c.alert == alert.id, notices.c.kind == kind.value, notices.c.deployment == subject
        with self.writing() as connection:
            # Held: others that look at the same moment come to the same, if need be of another run.
            if connection.execute(sa.select(alerts.c.id).where(alerts.c.id == alert.id).with_for_update()).first():
                if connection.execute(sa.select(notices.c.run).where(*ours, _OPEN).limit(1)).first():
                    return
                notice = _notice(alert, kind, subject, run, reason, now)
                self._store_notice(connection, notice, now=now, silent=False, lasts=lasts)

    def notice_end(self, notice: Notice, reason: str | None, *, now: datetime) -> None:
        """What it told lasts no longer. *reason*: how it ended; None: that is only remembered."""
        with self.writing() as connection:
            over = sa.update(notices).where(*_is(notice), _OPEN).values(open=None)
            row = connection.execute(sa.select(alerts).where(alerts.c.id == notice.alert)).first()
            if not connection.execute(over).rowcount or row is None:
                return
            alert = _to_alert(row)
            end = _notice(alert, ENDS[notice.kind], notice.subject, notice.run, reason, now)
            self._store_notice(connection, end, now=now, silent=reason is None or not alert.tells(end.kind))

    def lasting(self) -> list[Notice]:
        """What was told and is not over."""
        with self.reading() as connection:
            return [_to_notice(row) for row in connection.execute(_NOTICES.where(_OPEN))]

    def last_notice(self, alert: str, subject: str, *kinds: Tells) -> Notice | None:
        """The newest of these kinds, told or only remembered; by one jump in the index for each kind."""
        found = []
        which = notices.c.alert == alert, notices.c.deployment == subject
        with self.reading() as connection:
            for kind in kinds:
                query = _NOTICES.where(*which, notices.c.kind == kind.value).order_by(notices.c.of.desc()).limit(1)
                found += [_to_notice(row) for row in connection.execute(query)]
        return max(found, key=lambda notice: notice.of, default=None)

    def test_alerts(self, chosen: Sequence[Alert], *, now: datetime) -> list[Notice]:
        """Have a message sent by each of these that tells nothing, once."""
        made = []
        for alert in chosen:
            subject = alert.deployment or "all deployments"
            made.append(_notice(alert, Tells.TEST, subject, secrets.token_hex(8), None, now))
        with self.writing() as connection:
            for notice in made:
                self._store_notice(connection, notice, now=now, silent=False)
        return made

    # Sending it.

    def take_notices(
        self, *, now: datetime, lease: timedelta, addresses: Collection[str] | None = None
    ) -> list[Notice]:
        """What is to be sent now as one message, by the caller alone for as long as *lease*: one notice, or many of a
        kind. Nothing comes back if there is none, or others took it.

        Args:
            addresses: only what goes to these secrets; None: whatever is due.
        """
        query = _NOTICES.where(notices.c.due <= now).order_by(notices.c.due)
        if addresses is not None:
            query = query.where(alerts.c.secret.in_(sorted(addresses)))
        with self.reading() as connection:  # nearly always nothing, for which nobody waits for the writer's turn
            first = connection.execute(query.limit(1)).first()
        if first is None:
            return []
        like = query.where(notices.c.alert == first.alert, notices.c.kind == first.kind)
        with self.writing() as connection:
            rows = connection.execute(like.limit(TOGETHER)).all()
            taken = []
            for row in rows if len(rows) > FEW else rows[:1]:
                mine = (*_is(_to_notice(row)), notices.c.due == row.due, notices.c.tries == row.tries)
                held = sa.update(notices).where(*mine).values(due=now + lease, tries=row.tries + 1)
                if connection.execute(held).rowcount:
                    taken.append(_to_notice(row))
        return taken

    def due_addresses(self, *, now: datetime) -> set[str]:
        """The secrets to which something is to be sent now."""
        query = sa.select(alerts.c.secret).join(notices, notices.c.alert == alerts.c.id).where(notices.c.due <= now)
        with self.reading() as connection:
            return set(connection.execute(query.distinct()).scalars())

    def notices_sent(self, told: Iterable[Notice], *, now: datetime) -> None:
        with self.writing() as connection:
            for notice in told:
                connection.execute(sa.update(notices).where(*_is(notice)).values(sent=now, due=None, error=None))

    def notices_failed(self, told: Iterable[Notice], error: str, *, now: datetime) -> None:
        """They are tried again after 10 s, 20 s, 40 s … until they were tried for the last time; a test is not."""
        with self.writing() as connection:
            for notice in told:
                tries = notice.tries + 1
                last = tries >= TRIES or notice.kind is Tells.TEST
                due = None if last else now + timedelta(seconds=10 * 2 ** (tries - 1))
                connection.execute(sa.update(notices).where(*_is(notice)).values(due=due, error=error))

    def _ended(self, deployment: str, *, since: datetime) -> list[Run]:
        found = self.runs(deployment=deployment, states=[State.FAILED, State.SUCCEEDED], limit=_NEWEST)
        new = [run for run in found if run.finished is not None and run.finished > since]
        return sorted(new, key=lambda run: (run.finished, run.id))

    def _store_notice(
        self, connection: sa.Connection, notice: Notice, *, now: datetime, silent: bool, lasts: bool = False
    ) -> None:
        """*silent*: only remembered. One of the same alert, run and kind is there already: nothing."""
        row = {name: getattr(notice, name) for name in ("alert", "run", "reason", "of")}
        row |= {"deployment": notice.subject, "kind": notice.kind.value, "tries": 0, "due": None if silent else now}
        row |= {"open": True if lasts else None}
        connection.execute(self.insert(notices).values(row).on_conflict_do_nothing())


_NOTICES = sa.select(notices, alerts.c.secret).join(alerts, alerts.c.id == notices.c.alert)

#: It was sent, or was to be: it is not only remembered.
_TOLD = sa.or_(notices.c.due.is_not(None), notices.c.tries > 0)
_OPEN = notices.c.open.is_not(None)


def _notice(alert: Alert, kind: Tells, subject: str, run: str, reason: str | None, of: datetime) -> Notice:
    return Notice(alert=alert.id, secret=alert.secret, subject=subject, run=run, kind=kind, reason=reason, of=of)


def _is(notice: Notice) -> tuple[sa.ColumnElement[bool], ...]:
    return notices.c.alert == notice.alert, notices.c.run == notice.run, notices.c.kind == notice.kind.value


def _to_alert(row: sa.Row[Any]) -> Alert:
    return Alert(**dict(row._mapping) | {"on": watches(row.on)})


def _to_notice(row: sa.Row[Any]) -> Notice:
    pairs = {name: value for name, value in row._mapping.items() if name not in ("open", "deployment")}
    return Notice(**pairs | {"subject": row.deployment, "kind": Tells(row.kind)})
