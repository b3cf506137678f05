"""What the processes of one store know and nobody else: made once, by whoever needs it first."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from flowkit.store.database import Database
from flowkit.store.schema import secrets as table


class Secrets(Database):
    def secret(self, name: str) -> bytes:
        """32 random bytes, the same for everybody who ever asks this store for that name."""
        query = sa.select(table.c.value).where(table.c.name == name)
        with self.reading() as connection:
            found: str | None = connection.execute(query).scalar()
        if found is None:
            new = self.insert(table).values(name=name, value=secrets.token_hex(32)).on_conflict_do_nothing()
            with self.writing() as connection:
                connection.execute(new)
                found = connection.execute(query).scalar_one()  # of those who came together, the first one's
        return bytes.fromhex(found)
