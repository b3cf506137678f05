"""Notebooks as they were when they were deployed or submitted, each once; and families of them: ``flowkit.family``."""

from __future__ import annotations

import sqlalchemy as sa

from flowkit.family import Family
from flowkit.store.database import Database
from flowkit.store.schema import families, members, snapshots


def keep_snapshot(database: Database, connection: sa.Connection, digest: str, notebook: str) -> None:
    """Have the notebook's text in the store, and hold it there until this transaction has referred to it."""
    new = database.insert(snapshots).values(digest=digest, notebook=notebook).on_conflict_do_nothing()
    held = sa.select(snapshots.c.digest).where(snapshots.c.digest == digest).with_for_update(read=True, key_share=True)
    while connection.execute(held).first() is None:  # again if it is forgotten between these two
        connection.execute(new)


def keep_family(database: Database, connection: sa.Connection, family: Family) -> None:
    """Have it and its notebooks in the store, and hold it there until this transaction has referred to it."""
    for digest in sorted(family.texts.keys() & family.snapshots):
        keep_snapshot(database, connection, digest, family.texts[digest])
    new = database.insert(families).values(digest=family.digest, tree=dict(family.tree)).on_conflict_do_nothing()
    this = sa.select(families.c.digest).where(families.c.digest == family.digest)
    held = this.with_for_update(read=True, key_share=True)
    while connection.execute(held).first() is None:  # again if it is forgotten between these two
        connection.execute(new)
    rows = [{"family": family.digest, "snapshot": snapshot} for snapshot in sorted(family.snapshots)]
    if rows:
        connection.execute(database.insert(members).on_conflict_do_nothing(), rows)
