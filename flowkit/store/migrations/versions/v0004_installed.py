"""Which runs have told which packages."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "installed",
        sa.Column("run", NAME, sa.ForeignKey("runs.id", name="installed_run", ondelete="CASCADE"), nullable=False),
        sa.Column("digest", NAME, nullable=False),
        sa.PrimaryKeyConstraint("run", "digest", name="installed_pkey"),
    )
    op.create_index("installed_by", "installed", ["digest"])
