"""What the dashboard's pages ask: what ended lately, how a year went, what somebody did."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # An index of very many runs takes longer than a question may; others cannot write to them meanwhile.
        op.execute("SET LOCAL statement_timeout = 0")
    ended = sa.text("finished IS NOT NULL")
    op.create_index("runs_ended", "runs", ["state", "finished"], postgresql_where=ended, sqlite_where=ended)
    op.create_index("acts_of", "acts", ["who", "id"])
    op.create_table(
        "days",
        sa.Column("deployment", NAME, nullable=False),
        sa.Column("day", NAME, nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("deployment", "day", "state", name="days_pkey"),
    )
    op.create_index("days_in_order", "days", ["day"])
