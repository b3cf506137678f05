"""The runs of a queue, newest first."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # An index of very many runs takes longer than a question may; others cannot write to them meanwhile.
        op.execute(sa.text("SET LOCAL statement_timeout = 0"))
    op.create_index("runs_of_queue", "runs", ["queue", "created", "id"])
