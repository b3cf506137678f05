"""What a run was submitted from: the span of its caller's trace."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("runs", sa.Column("traceparent", sa.Text))
