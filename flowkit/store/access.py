"""Who may come in by HTTP, and what they did."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from flowkit.errors import Conflict, NotFound, did_you_mean
from flowkit.model import Act, Role, Token
from flowkit.store.database import Database
from flowkit.store.schema import acts, tokens

#: How long a token is listed that lets nobody in any more.
EXPIRED_KEPT = timedelta(days=30)

#: By what a leaked token is recognised.
PREFIX = "fk_"


class Access(Database):
    def create_token(self, name: str, role: Role, *, expires: datetime, now: datetime) -> tuple[Token, str]:
        """A new token, and its secret, which nobody can be told again.

        Raises: Conflict if another that is valid has that name.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        token = Token(id=secrets.token_hex(4), name=name, role=role, created=now, expires=expires)
        with self.writing() as connection:
            connection.execute(sa.delete(tokens).where(tokens.c.expires < now - EXPIRED_KEPT))
            same = sa.select(tokens.c.id).where(tokens.c.name == name, tokens.c.expires > now)
            if connection.execute(same).first() is not None:
                raise Conflict(f"there is a token {name!r} already; revoke it, or name this one otherwise")
            connection.execute(sa.insert(tokens).values(asdict(token) | {"digest": _digest(secret)}))
        return token, secret

    def tokens(self) -> list[Token]:
        """Also those that have expired lately; the newest first."""
        query = sa.select(tokens).order_by(tokens.c.created.desc(), tokens.c.id)
        with self.reading() as connection:
            return [_to_token(row) for row in connection.execute(query)]

    def token(self, secret: str, *, now: datetime) -> Token | None:
        """Whose secret it is; None if nobody's, any more."""
        return self._valid(tokens.c.digest == _digest(secret), now)

    def token_of(self, id: str, *, now: datetime) -> Token | None:
        """None: it was revoked, or has expired."""
        return self._valid(tokens.c.id == id, now)

    def revoke_token(self, name: str) -> Token:
        """By its id or its name; it lets nobody in from now on."""
        with self.writing() as connection:
            found = connection.execute(
                sa.delete(tokens).where(sa.or_(tokens.c.id == name, tokens.c.name == name)).returning(tokens)
            ).first()
            known = connection.execute(sa.select(tokens.c.name)).scalars().all()
        if found is None:
            raise NotFound(f"no token {name!r}{did_you_mean(name, known) or '; `flowkit token list` lists them'}")
        return _to_token(found)

    def note(self, act: Act) -> None:
        row = asdict(act)
        del row["id"]
        with self.writing() as connection:
            connection.execute(sa.insert(acts).values(row))

    def acts(self, *, limit: int = 100, before: int | None = None, who: str | None = None) -> list[Act]:
        """Newest first; *before*: go on after the one with that id; *who*: only theirs."""
        query = sa.select(acts).order_by(acts.c.id.desc()).limit(limit)
        if who is not None:
            query = query.where(acts.c.who == who)
        if before is not None:
            query = query.where(acts.c.id < before)
        with self.reading() as connection:
            return [Act(**row._mapping) for row in connection.execute(query)]

    def actors(self, *, limit: int = 200) -> list[str]:
        """Whoever did something that is on record, by name."""
        first = sa.select(sa.func.min(acts.c.who).label("name")).cte("actors", recursive=True)
        after = sa.select(acts.c.who).where(acts.c.who > first.c.name).order_by(acts.c.who).limit(1)
        each = first.union_all(sa.select(after.correlate(first).scalar_subquery()).where(first.c.name.is_not(None)))
        with self.reading() as connection:
            found = sa.select(each.c.name).where(each.c.name.is_not(None)).limit(limit)
            return list(connection.execute(found).scalars())

    def forget_acts(self, *, before: datetime) -> None:
        with self.writing() as connection:
            connection.execute(sa.delete(acts).where(acts.c.at < before))

    def _valid(self, which: sa.ColumnElement[bool], now: datetime) -> Token | None:
        with self.reading() as connection:
            row = connection.execute(sa.select(tokens).where(which, tokens.c.expires > now)).first()
        return None if row is None else _to_token(row)


def _digest(secret: str) -> str:
    # Not a password's slow hash: 256 random bits are not guessed.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _to_token(row: sa.Row[Any]) -> Token:
    pairs = dict(row._mapping)
    del pairs["digest"]
    return Token(**pairs | {"role": Role(pairs["role"])})
