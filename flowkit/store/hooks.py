"""Deployments that a program runs by signing what it sends.

A signature can be checked only by who knows the secret, so a digest of it, as of tokens, would not do. What is kept of
a hook is a random number, from which its secret follows with one of the store's own.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime

import sqlalchemy as sa

from flowkit.errors import Conflict, NotFound
from flowkit.model import Hook
from flowkit.store.deployments import HOOK, Deployments
from flowkit.store.schema import secrets as table
from flowkit.store.secrets import Secrets

#: By what a leaked secret is recognised.
PREFIX = "fkh_"


class Hooks(Deployments, Secrets):
    def make_hook(self, deployment: str, *, rotate: bool = False, now: datetime) -> tuple[Hook, str]:
        """The hook and its secret. What was signed with the one before is refused from now on.

        Raises: NotFound without the deployment, or with nothing to rotate; Conflict if there is one already.
        """
        self.deployment(deployment)
        value = f"{int(now.timestamp())} {secrets.token_hex(16)}"
        this = table.c.name == HOOK + deployment
        with self.writing() as connection:
            found = connection.execute(sa.select(table.c.value).where(this)).first() is not None
            if found and not rotate:
                raise Conflict(f"{deployment} has a hook; flowkit hook rotate {deployment} gives it another secret")
            if not found and rotate:
                raise _none(deployment)
            connection.execute(sa.delete(table).where(this))
            connection.execute(sa.insert(table).values(name=HOOK + deployment, value=value))
        return _to_hook(deployment, value), self._secret_of(deployment, value)

    def hooks(self) -> list[Hook]:
        query = sa.select(table).where(table.c.name.startswith(HOOK, autoescape=True)).order_by(table.c.name)
        with self.reading() as connection:
            return [_to_hook(row.name.removeprefix(HOOK), row.value) for row in connection.execute(query)]

    def hook_secret(self, deployment: str) -> str | None:
        """None: there is no such hook."""
        query = sa.select(table.c.value).where(table.c.name == HOOK + deployment)
        with self.reading() as connection:
            value: str | None = connection.execute(query).scalar()
        return None if value is None else self._secret_of(deployment, value)

    def remove_hook(self, deployment: str) -> None:
        with self.writing() as connection:
            gone = connection.execute(sa.delete(table).where(table.c.name == HOOK + deployment)).rowcount
        if not gone:
            raise _none(deployment)

    def _secret_of(self, deployment: str, value: str) -> str:
        return PREFIX + hmac.new(self.secret("hooks"), f"{deployment} {value}".encode(), "sha256").hexdigest()


def _to_hook(deployment: str, value: str) -> Hook:
    return Hook(deployment=deployment, created=datetime.fromtimestamp(int(value.split()[0]), UTC))


def _none(deployment: str) -> NotFound:
    return NotFound(f"{deployment!r} has no hook; `flowkit hook list` lists them")
