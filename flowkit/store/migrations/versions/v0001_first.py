"""The first tables.

A migration is frozen: it names its own types, and never changes with ``schema``.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "snapshots",
        sa.Column("digest", NAME, primary_key=True),
        sa.Column("notebook", sa.Text, nullable=False),
    )
    op.create_table(
        "deployments",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("changed", INSTANT, nullable=False),
        sa.Column("cron", sa.Text),
        sa.Column("every", sa.Float(53)),
        sa.Column("zone", sa.Text),
        sa.Column("anchor", INSTANT),
        sa.Column("start", INSTANT),
        sa.Column("end", INSTANT),
        sa.Column("catch_up", sa.Text),
        sa.Column("catch_up_limit", sa.Integer),
        sa.Column("grace", sa.Float(53)),
        sa.Column("overlap", sa.Text),
        sa.Column("jitter", sa.Float(53)),
        sa.Column("next", INSTANT),
    )
    _index("deployments_due", "deployments", ["next", "name"], where="next IS NOT NULL")
    op.create_table(
        "versions",
        sa.Column("name", NAME, sa.ForeignKey("deployments.name", name="versions_name", ondelete="CASCADE")),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("notebook", sa.Text, nullable=False),
        sa.Column("snapshot", NAME, sa.ForeignKey("snapshots.digest", name="versions_snapshot"), nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("keep_succeeded", sa.Integer, nullable=False),
        sa.Column("keep_failed", sa.Integer, nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name="versions_pkey"),
    )
    _index("versions_of_snapshot", "versions", ["snapshot"])
    op.create_table(
        "skips",
        sa.Column("deployment", NAME, nullable=False),
        sa.Column("first", INSTANT, nullable=False),
        sa.Column("last", INSTANT, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("deployment", "first", name="skips_pkey"),
    )
    _index("skips_at", "skips", ["at"])
    op.create_table(
        "series",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("deployment", NAME, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("parameter", sa.Text),
        sa.Column("created", INSTANT, nullable=False),
    )
    _index("series_newest", "series", ["created", "id"])
    op.create_table(
        "runs",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("key", NAME, nullable=False),
        sa.Column("deployment", NAME),
        sa.Column("version", sa.Integer),
        sa.Column("notebook", NAME, nullable=False),
        sa.Column("snapshot", NAME, sa.ForeignKey("snapshots.digest", name="runs_snapshot"), nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("scheduled_for", INSTANT),
        sa.Column("zone", sa.Text, nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("cause", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("last_attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
        sa.Column("cancelling", sa.Boolean, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("available", INSTANT),
        sa.Column("started", INSTANT),
        sa.Column("finished", INSTANT),
        sa.Column("output", sa.Text),
        sa.Column("digest", sa.Text),
        sa.Column("series", NAME, sa.ForeignKey("series.id", name="runs_series")),
        sa.Column("name", sa.Text),
        sa.Column("place", sa.Integer),
        sa.UniqueConstraint("key", name="runs_key"),
        sa.UniqueConstraint("deployment", "scheduled_for", name="runs_firing"),
        sa.CheckConstraint("state IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')", name="runs_state"),
        sa.CheckConstraint("NOT cancelling OR state = 'running'", name="runs_cancelling"),
    )
    _index("runs_newest", "runs", ["created", "id"])
    _index("runs_of_state", "runs", ["state", "created", "id"])
    _index("runs_of_deployment", "runs", ["deployment", "created", "id", "state"])
    _index("runs_of_snapshot", "runs", ["snapshot"])
    best_first: list[str | sa.TextClause] = ["queue", sa.text("priority DESC"), "created", "id"]
    _index("runs_pending", "runs", best_first, where="state = 'pending' AND place IS NULL")
    scheduled = ["deployment", "state", "scheduled_for"]
    _index("runs_of_schedule", "runs", scheduled, where="scheduled_for IS NOT NULL")
    _index("runs_of_series", "runs", ["series", "state", "place"], where="series IS NOT NULL")
    _index("runs_running", "runs", ["deployment", "queue"], where="state = 'running'")
    op.create_table(
        "events",
        sa.Column("run", NAME, sa.ForeignKey("runs.id", name="events_run", ondelete="CASCADE"), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("output", sa.Boolean, nullable=False),
        sa.Column("chunk", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run", "attempt", "seq", name="events_pkey"),
    )
    op.create_table(
        "limits",
        sa.Column("kind", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("width", sa.Integer),
        sa.Column("many", sa.Integer),
        sa.Column("seconds", sa.Integer),
        sa.Column("taken", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer),
        sa.Column("within", sa.Float(53)),
        sa.Column("close_for", sa.Float(53)),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("closed", INSTANT),
        sa.Column("trial", INSTANT),
        sa.Column("error", sa.Text),
        sa.Column("declared", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name="limits_pkey"),
    )
    op.create_table(
        "grants",
        sa.Column("kind", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "slot", name="grants_pkey"),
    )
    op.create_table(
        "workers",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("queues", sa.Text, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("started", INSTANT, nullable=False),
        sa.Column("seen", INSTANT, nullable=False),
        sa.Column("dropped", sa.Integer, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("name", NAME, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _index(name: str, table: str, columns: Sequence[str | sa.TextClause], where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, columns, postgresql_where=condition, sqlite_where=condition)
