"""Runs that are nodes of other runs, and what is kept of their notebooks."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "families",
        sa.Column("digest", NAME, primary_key=True),
        sa.Column("tree", sa.Text, nullable=False),
    )
    op.create_table(
        "members",
        sa.Column(
            "family", NAME, sa.ForeignKey("families.digest", name="members_family", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("snapshot", NAME, sa.ForeignKey("snapshots.digest", name="members_snapshot"), nullable=False),
        sa.PrimaryKeyConstraint("family", "snapshot", name="members_pkey"),
    )
    _index("members_of_snapshot", "members", "snapshot")
    # Written out: Alembic does not add a column with a foreign key to SQLite.
    name = "TEXT" if op.get_bind().dialect.name == "sqlite" else 'TEXT COLLATE "C"'
    for table in ("versions", "runs"):
        op.execute(f"ALTER TABLE {table} ADD COLUMN family {name} REFERENCES families (digest)")
    op.execute(f"ALTER TABLE runs ADD COLUMN parent {name}")
    _index("runs_of_parent", "runs", "parent", "state", where="parent IS NOT NULL")
    _index("runs_of_family", "runs", "family", where="family IS NOT NULL")
    _index("runs_parked", "runs", "id", where="place < 0")


def _index(name: str, table: str, *columns: str, where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, list(columns), postgresql_where=condition, sqlite_where=condition)
