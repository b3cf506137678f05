"""The first tables.

A migration is frozen: it names its own types, and never changes with ``schema``.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0002"  # 0001 was this one as it stood before it had all its tables: not to be taken for it
down_revision = None

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)

SQLITE_TRIGGERS = (
    """CREATE TRIGGER runs_new AFTER INSERT ON runs BEGIN
         INSERT INTO changes (xid, run, attempt, state, at)
         VALUES (0, NEW.id, NEW.attempt, NEW.state, strftime('%s', 'now') + 0);
       END""",
    """CREATE TRIGGER runs_moved AFTER UPDATE OF state, cancelling, attempt ON runs
       WHEN OLD.state IS NOT NEW.state OR OLD.cancelling IS NOT NEW.cancelling OR OLD.attempt IS NOT NEW.attempt BEGIN
         INSERT INTO changes (xid, run, attempt, state, at)
         VALUES (0, NEW.id, NEW.attempt, NEW.state, strftime('%s', 'now') + 0);
       END""",
    """CREATE TRIGGER events_new AFTER INSERT ON events WHEN NOT NEW.output BEGIN
         INSERT INTO changes (xid, run, attempt, seq, at)
         VALUES (0, NEW.run, NEW.attempt, NEW.seq, strftime('%s', 'now') + 0);
       END""",
)
POSTGRES_TRIGGERS = (
    """CREATE FUNCTION flowkit_run_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO changes (xid, run, attempt, state, at) VALUES (
           pg_current_xact_id()::text::bigint, NEW.id, NEW.attempt, NEW.state, extract(epoch FROM clock_timestamp()));
         RETURN NULL;
       END $$""",
    """CREATE FUNCTION flowkit_events_recorded() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO changes (xid, run, attempt, seq, at) VALUES (
           pg_current_xact_id()::text::bigint, NEW.run, NEW.attempt, NEW.seq, extract(epoch FROM clock_timestamp()));
         RETURN NULL;
       END $$""",
    """CREATE TRIGGER runs_new AFTER INSERT ON runs FOR EACH ROW EXECUTE FUNCTION flowkit_run_changed()""",
    """CREATE TRIGGER runs_moved AFTER UPDATE OF state, cancelling, attempt ON runs FOR EACH ROW
       WHEN (OLD.state <> NEW.state OR OLD.cancelling <> NEW.cancelling OR OLD.attempt <> NEW.attempt)
       EXECUTE FUNCTION flowkit_run_changed()""",
    """CREATE TRIGGER events_new AFTER INSERT ON events FOR EACH ROW WHEN (NOT NEW.output)
       EXECUTE FUNCTION flowkit_events_recorded()""",
)


def upgrade() -> None:
    op.create_table(
        "snapshots",
        sa.Column("digest", NAME, primary_key=True),
        sa.Column("notebook", sa.Text, nullable=False),
    )
    op.create_table(
        "packages",
        sa.Column("digest", NAME, primary_key=True),
        sa.Column("packages", sa.Text, nullable=False),
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
        sa.Column("commit", sa.Text),
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
        sa.Column("commit", sa.Text),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("queue", NAME, nullable=False),
        sa.Column("lane", NAME, nullable=False, server_default=""),
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
    _index("runs_of_deployment", "runs", ["deployment", "state", "created", "id", "series", "scheduled_for"])
    _index("runs_of_notebook", "runs", ["notebook", "state", "created", "id"], where="deployment IS NULL")
    _index("runs_of_snapshot", "runs", ["snapshot"])
    best_first: list[str | sa.TextClause] = ["queue", "lane", sa.text("priority DESC"), "created", "id", "available"]
    _index("runs_pending", "runs", best_first, where="state = 'pending' AND place IS NULL")
    _index("runs_waiting", "runs", ["queue", "created"], where="state = 'pending'")
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
    op.create_table(
        "tokens",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("name", NAME, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("digest", NAME, nullable=False),
        sa.Column("created", INSTANT, nullable=False),
        sa.Column("expires", INSTANT, nullable=False),
        sa.UniqueConstraint("digest", name="tokens_digest"),
    )
    op.create_table(
        "acts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("role", sa.Text),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
    )
    _index("acts_at", "acts", ["at"])
    op.create_table(
        "changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("xid", sa.BigInteger, nullable=False),
        sa.Column("run", NAME, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.Text),
        sa.Column("seq", sa.Integer),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    _index("changes_in_order", "changes", ["xid", "id"])
    connection = op.get_bind()
    for trigger in SQLITE_TRIGGERS if connection.dialect.name == "sqlite" else POSTGRES_TRIGGERS:
        connection.exec_driver_sql(trigger)


def _index(name: str, table: str, columns: Sequence[str | sa.TextClause], where: str | None = None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, columns, postgresql_where=condition, sqlite_where=condition)
