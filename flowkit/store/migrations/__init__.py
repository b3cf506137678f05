"""From any older schema to this one, by Alembic, inside the caller's transaction.

``versions/`` holds one file for each step, written by hand; ``revision`` counts up. ``schema.VERSION`` names the last.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from flowkit.errors import Unavailable
from flowkit.store import schema

#: Any number, the same in every process: whoever holds PostgreSQL's lock of this number migrates.
LOCK = 7_305_808_869_230_274


def migrate(connection: sa.Connection, *, shown: str) -> None:
    """Bring the database to ``schema.VERSION``: all of it or nothing. Others that come meanwhile wait.

    Args:
        shown: the database's URL for messages.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
    found = _version(connection)
    if found == schema.VERSION:
        return
    from alembic import command  # heavy, and rarely needed
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known and found < schema.VERSION:
        raise Unavailable(
            f"the database {shown} has schema {found}, of before the first release, which is not carried over; "
            "name another in FLOWKIT_DATABASE_URL, or another FLOWKIT_HOME"
        )
    if found is not None and found not in known:
        raise Unavailable(
            f"the database {shown} has schema {found}, newer than this flowkit's {schema.VERSION}; upgrade flowkit"
        )
    command.upgrade(config, schema.VERSION)


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    table = sa.table(schema.VERSION_TABLE, sa.column("version_num", sa.String()))
    return connection.execute(sa.select(table.c.version_num)).scalar()
