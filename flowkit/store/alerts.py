"""Who is told when a deployment fails and recovers, and what they were told.

What is due to be told follows from the runs and from what was told before: any number of processes come to the same,
and a row's key, which is alert, run and kind, lets one of them store it.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from flowkit.errors import NotFound
from flowkit.model import Alert, Notice, Run, State, Tells
from flowkit.store.deployments import Deployments
from flowkit.store.runs import Runs
from flowkit.store.schema import alerts, is_in, notices, runs

#: Of a deployment's newest ended runs, so many are looked at.
_NEWEST = 100

#: An alert of all deployments looks at those of which a run has ended since.
LATELY = timedelta(hours=1)

#: After so many failed tries a notice is given up.
TRIES = 8


class Alerts(Deployments, Runs):
    def add_alert(self, deployment: str | None, secret: str, on: tuple[Tells, ...], *, now: datetime) -> Alert:
        """*deployment*: None for all, also those to come. *secret*: the name of one, whose value is the URL."""
        if deployment is not None:
            self.deployment(deployment)
        made = Alert(id=secrets.token_hex(4), deployment=deployment, secret=secret, on=on, created=now)
        row = {"id": made.id, "deployment": deployment, "secret": secret, "on": ",".join(on), "created": now}
        with self.writing() as connection:
            connection.execute(sa.insert(alerts).values(row))
        return made

    def alerts(self) -> list[Alert]:
        with self.reading() as connection:
            return [_to_alert(row) for row in connection.execute(sa.select(alerts).order_by(alerts.c.created))]

    def remove_alert(self, id: str) -> None:
        with self.writing() as connection:
            connection.execute(sa.delete(notices).where(notices.c.alert == id))
            if not connection.execute(sa.delete(alerts).where(alerts.c.id == id)).rowcount:
                raise NotFound(f"no alert {id!r}; `flowkit alert list` lists them")

    def notices(self, alert: str) -> list[Notice]:
        """What it told, and what it could not; newest first."""
        query = sa.select(notices).where(notices.c.alert == alert).order_by(notices.c.of.desc()).limit(100)
        with self.reading() as connection:
            return [_to_notice(row) for row in connection.execute(query)]

    def notice_due(self, alert: Alert, *, now: datetime) -> None:
        """Store what this alert has to tell: the first of like failures of a deployment, and that it recovered."""
        for name in self._lately(now) if alert.deployment is None else [alert.deployment]:
            told = self._told(alert, name)
            for run in self._ended(name, since=told.of if told else alert.created):
                failed, failing = run.state is State.FAILED, told is not None and told.kind is Tells.FAILURE
                if failed and failing and told is not None and told.reason == run.error:
                    continue
                if not failed and not failing:
                    continue
                assert run.finished is not None
                kind = Tells.FAILURE if failed else Tells.RECOVERY
                told = Notice(alert.id, name, run.id, kind, run.error, run.finished)
                self._store_notice(told, now=now, silent=kind not in alert.on)

    def take_notice(self, *, now: datetime, lease: timedelta) -> Notice | None:
        """One that is to be sent now, by the caller alone for as long as *lease*."""
        query = sa.select(notices).where(notices.c.due <= now).order_by(notices.c.due).limit(1)
        with self.writing() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            mine = sa.update(notices).where(
                *_is(_to_notice(row)), notices.c.due == row.due, notices.c.tries == row.tries
            )
            taken = connection.execute(mine.values(due=now + lease, tries=row.tries + 1)).rowcount
        return _to_notice(row) if taken else None

    def notice_sent(self, notice: Notice, *, now: datetime) -> None:
        with self.writing() as connection:
            connection.execute(sa.update(notices).where(*_is(notice)).values(sent=now, due=None, error=None))

    def notice_failed(self, notice: Notice, error: str, *, now: datetime) -> None:
        """It is tried again after 10 s, 20 s, 40 s … until it was tried for the last time."""
        tries = notice.tries + 1
        due = None if tries >= TRIES else now + timedelta(seconds=10 * 2 ** (tries - 1))
        with self.writing() as connection:
            connection.execute(sa.update(notices).where(*_is(notice)).values(due=due, error=error))

    def _lately(self, now: datetime) -> list[str]:
        """Deployments of which a run has ended in the last hour: nobody goes through all of them every two seconds."""
        ended = (
            sa.or_(is_in(State.FAILED), is_in(State.SUCCEEDED)),
            runs.c.finished > now - LATELY,
            runs.c.deployment.is_not(None),
        )
        with self.reading() as connection:
            return list(connection.execute(sa.select(runs.c.deployment).where(*ended).distinct()).scalars())

    def _told(self, alert: Alert, deployment: str) -> Notice | None:
        which = notices.c.alert == alert.id, notices.c.deployment == deployment
        with self.reading() as connection:
            row = connection.execute(sa.select(notices).where(*which).order_by(notices.c.of.desc()).limit(1)).first()
        return None if row is None else _to_notice(row)

    def _ended(self, deployment: str, *, since: datetime) -> list[Run]:
        found = self.runs(deployment=deployment, states=[State.FAILED, State.SUCCEEDED], limit=_NEWEST)
        new = [run for run in found if run.finished is not None and run.finished > since]
        return sorted(new, key=lambda run: (run.finished, run.id))

    def _store_notice(self, notice: Notice, *, now: datetime, silent: bool) -> None:
        row = {name: getattr(notice, name) for name in ("alert", "deployment", "run", "reason", "of")}
        row |= {"kind": notice.kind.value, "tries": 0, "due": None if silent else now}
        with self.writing() as connection:
            connection.execute(self.insert(notices).values(row).on_conflict_do_nothing())


def _is(notice: Notice) -> tuple[sa.ColumnElement[bool], ...]:
    return notices.c.alert == notice.alert, notices.c.run == notice.run, notices.c.kind == notice.kind.value


def _to_alert(row: sa.Row[Any]) -> Alert:
    return Alert(**dict(row._mapping) | {"on": tuple(map(Tells, row.on.split(",")))})


def _to_notice(row: sa.Row[Any]) -> Notice:
    pairs = dict(row._mapping)
    del pairs["due"]
    return Notice(**pairs | {"kind": Tells(row.kind)})
