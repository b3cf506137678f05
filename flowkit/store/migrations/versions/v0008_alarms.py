"""What lasts of what alerts tell, in which order it happened, and which runs ought to have started."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # An index of very many runs takes longer than a question may; others cannot write to them meanwhile.
        op.execute("SET LOCAL statement_timeout = 0")
    op.add_column("notices", sa.Column("open", sa.Boolean))
    _index("alerts_of_deployment", "alerts", "deployment")
    _index("notices_open", "notices", "alert", where="open IS NOT NULL")
    _index("notices_last", "notices", "alert", "deployment", "kind", "of")
    _index("notices_newest", "notices", "of", "alert", "run", "kind")
    _index("notices_of_deployment", "notices", "deployment", "of", "alert", "run", "kind")
    pending = "state = 'pending' AND attempt = 0 AND deployment IS NOT NULL"
    whose = f"{pending} AND (place IS NULL OR scheduled_for IS NOT NULL)"
    _index("runs_unstarted", "runs", "deployment", "created", where=whose)


def _index(name: str, table: str, *columns: str, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, list(columns), postgresql_where=condition, sqlite_where=condition)
