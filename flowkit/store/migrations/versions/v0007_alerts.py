"""Who is told when deployments fail and recover, and what they were told."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("deployment", NAME),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("on", sa.Text, nullable=False),
        sa.Column("created", INSTANT, nullable=False),
    )
    op.create_table(
        "notices",
        sa.Column("alert", NAME, sa.ForeignKey("alerts.id", name="notices_alert", ondelete="CASCADE"), nullable=False),
        sa.Column("deployment", NAME, nullable=False),
        sa.Column("run", NAME, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("of", INSTANT, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due", INSTANT),
        sa.Column("sent", INSTANT),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("alert", "run", "kind", name="notices_pkey"),
    )
    condition = sa.text("due IS NOT NULL")
    op.create_index("notices_due", "notices", ["due"], postgresql_where=condition, sqlite_where=condition)
