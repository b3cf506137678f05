"""The tables as they are now.

A change here comes with a migration in ``migrations/versions`` and its number in ``VERSION``; a test compares a
migrated database with these tables. Old and new workers use one database for a while, so first add, later remove.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    literal_column,
    text,
)

from flowkit.errors import UsageError
from flowkit.model import State

#: The newest migration. ``Store.open`` brings a database to it.
VERSION = "0009"

#: Not Alembic's own name: a database may be shared with a program that uses Alembic too.
VERSION_TABLE = "flowkit_version"


class String(TypeDecorator[str]):
    """Any text. What PostgreSQL or UTF-8 cannot hold (NUL, half a surrogate pair) is stored as U+FFFD."""

    impl: Any = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        value = str(value).replace("\0", "\ufffd")
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Name(String):
    """A text that is sorted and cut into prefixes: by code point on every database, whatever its locale."""

    impl = Text().with_variant(Text(collation="C"), "postgresql")
    cache_ok = True


class Number(TypeDecorator[int]):
    """A whole number that every database can hold."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        if value is not None and not -(2**31) <= value < 2**31:
            raise UsageError(f"{value} is out of range; flowkit stores whole numbers from -{2**31} to {2**31 - 1}")
        return value


class Json(TypeDecorator[Any]):
    """Any JSON value, NaN included, in ASCII: PostgreSQL's own JSON refuses NaN, its text refuses NUL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Instant(TypeDecorator[datetime]):
    """An aware datetime, to the microsecond, that comes back in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value.isoformat()}; flowkit stores aware UTC only")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

# Of ``changes``, below.
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

snapshots = Table(
    "snapshots",
    metadata,
    Column("digest", Name, primary_key=True),
    Column("notebook", Text, nullable=False),
)

# The child notebooks of notebooks, and theirs: see ``flowkit.family``. They go with the last run or version of theirs.
families = Table(
    "families",
    metadata,
    Column("digest", Name, primary_key=True),
    Column("tree", Json, nullable=False),
)
members = Table(
    "members",
    metadata,
    Column("family", Name, ForeignKey("families.digest", name="members_family", ondelete="CASCADE"), nullable=False),
    Column("snapshot", Name, ForeignKey("snapshots.digest", name="members_snapshot"), nullable=False),
    PrimaryKeyConstraint("family", "snapshot", name="members_pkey"),
    Index("members_of_snapshot", "snapshot"),
)

# What a kernel's environment had installed, each kind of it once.
packages = Table(
    "packages",
    metadata,
    Column("digest", Name, primary_key=True),
    Column("packages", Json, nullable=False),  # a list of NAME==VERSION
)

deployments = Table(
    "deployments",
    metadata,
    Column("name", Name, primary_key=True),
    Column("version", Number, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("created", Instant, nullable=False),
    Column("changed", Instant, nullable=False),  # when somebody last deployed, paused or resumed it
    # The schedule: all null if it has none.
    Column("cron", String),
    Column("every", Float(53)),
    Column("zone", String),
    Column("anchor", Instant),
    Column("start", Instant),
    Column("end", Instant),
    Column("catch_up", String),
    Column("catch_up_limit", Number),
    Column("grace", Float(53)),
    Column("overlap", String),
    Column("jitter", Float(53)),
    Column("next", Instant),
    Index(
        "deployments_due",
        "next",
        "name",
        postgresql_where=text("next IS NOT NULL"),
        sqlite_where=text("next IS NOT NULL"),
    ),
)

versions = Table(
    "versions",
    metadata,
    Column("name", Name, ForeignKey("deployments.name", name="versions_name", ondelete="CASCADE"), nullable=False),
    Column("version", Number, nullable=False),
    Column("notebook", String, nullable=False),
    Column("snapshot", Name, ForeignKey("snapshots.digest", name="versions_snapshot"), nullable=False),
    Column("commit", String),
    Column("parameters", Json, nullable=False),
    Column("policy", Json, nullable=False),
    Column("keep_succeeded", Number, nullable=False),
    Column("keep_failed", Number, nullable=False),
    Column("created", Instant, nullable=False),
    Column("family", Name, ForeignKey("families.digest")),
    PrimaryKeyConstraint("name", "version", name="versions_pkey"),
    Index("versions_of_snapshot", "snapshot"),
)

skips = Table(
    "skips",
    metadata,
    Column("deployment", Name, nullable=False),
    Column("first", Instant, nullable=False),
    Column("last", Instant, nullable=False),
    Column("count", Number, nullable=False),
    Column("reason", String, nullable=False),
    Column("at", Instant, nullable=False),
    PrimaryKeyConstraint("deployment", "first", name="skips_pkey"),
    Index("skips_at", "at"),
)

# Runs that take turns: of a schedule that queues what overlaps, or of a backfill.
series = Table(
    "series",
    metadata,
    Column("id", Name, primary_key=True),
    Column("deployment", Name, nullable=False),
    Column("width", Number, nullable=False),  # how many of its runs may wait for a worker or run at once
    Column("parameter", String),  # of a backfill: what differs between its runs
    Column("created", Instant, nullable=False),
    Index("series_newest", "created", "id"),
)

UNSTARTED = text(
    "state = 'pending' AND attempt = 0 AND deployment IS NOT NULL AND (place IS NULL OR scheduled_for IS NOT NULL)"
)

runs = Table(
    "runs",
    metadata,
    Column("id", Name, primary_key=True),
    Column("key", Name, nullable=False),
    Column("deployment", Name),
    Column("version", Number),
    Column("notebook", Name, nullable=False),
    Column("snapshot", Name, ForeignKey("snapshots.digest", name="runs_snapshot"), nullable=False),
    Column("commit", String),
    Column("parameters", Json, nullable=False),
    Column("policy", Json, nullable=False),
    Column("queue", Name, nullable=False),  # these two are the policy's, for the claim's index
    # Of its queue: the deployment's, if that is limited; else empty, as a worker leaves it that does not know of lanes.
    Column("lane", Name, nullable=False, server_default=""),
    Column("priority", Number, nullable=False),
    Column("created", Instant, nullable=False),
    Column("scheduled_for", Instant),
    Column("zone", String, nullable=False),
    Column("state", Name, nullable=False),
    Column("cause", String),
    Column("error", String),
    Column("attempt", Number, nullable=False),
    Column("last_attempt", Number, nullable=False),
    Column("crashes", Number, nullable=False),
    Column("beat", Number, nullable=False),
    Column("cancelling", Boolean, nullable=False),
    Column("worker", String),
    Column("available", Instant),
    Column("started", Instant),
    Column("finished", Instant),
    Column("output", String),
    Column("digest", String),
    Column("series", Name, ForeignKey("series.id", name="runs_series")),
    Column("name", String),
    # In the line of its series; null: its turn has come, or there is no series; below 0: it waits for its children.
    Column("place", Number),
    Column("family", Name, ForeignKey("families.digest")),
    Column("parent", Name),  # not a foreign key: a parent is forgotten with its children, files first
    Column("traceparent", String),
    UniqueConstraint("key", name="runs_key"),
    UniqueConstraint("deployment", "scheduled_for", name="runs_firing"),
    CheckConstraint("state IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')", name="runs_state"),
    CheckConstraint("NOT cancelling OR state = 'running'", name="runs_cancelling"),
    Index("runs_newest", "created", "id"),
    Index("runs_of_state", "state", "created", "id"),
    Index("runs_of_queue", "queue", "created", "id"),
    # The last two: what is kept of a deployment, and which of its schedule are under way, is told without the rows.
    Index("runs_of_deployment", "deployment", "state", "created", "id", "series", "scheduled_for"),
    Index(
        "runs_of_notebook",
        "notebook",
        "state",
        "created",
        "id",
        postgresql_where=text("deployment IS NULL"),
        sqlite_where=text("deployment IS NULL"),
    ),
    Index("runs_of_snapshot", "snapshot"),
    Index(
        "runs_pending",
        "queue",
        "lane",
        text("priority DESC"),
        "created",
        "id",
        "available",
        postgresql_where=text("state = 'pending' AND place IS NULL"),
        sqlite_where=text("state = 'pending' AND place IS NULL"),
    ),
    Index(
        "runs_waiting",
        "queue",
        "created",
        postgresql_where=text("state = 'pending'"),
        sqlite_where=text("state = 'pending'"),
    ),
    Index(
        "runs_of_series",
        "series",
        "state",
        "place",
        postgresql_where=text("series IS NOT NULL"),
        sqlite_where=text("series IS NOT NULL"),
    ),
    # Of those that wait or run it has nothing: what ended lately is found without them.
    Index(
        "runs_ended",
        "state",
        "finished",
        postgresql_where=text("finished IS NOT NULL"),
        sqlite_where=text("finished IS NOT NULL"),
    ),
    Index(
        "runs_of_parent",
        "parent",
        "state",
        postgresql_where=text("parent IS NOT NULL"),
        sqlite_where=text("parent IS NOT NULL"),
    ),
    Index(
        "runs_of_family",
        "family",
        postgresql_where=text("family IS NOT NULL"),
        sqlite_where=text("family IS NOT NULL"),
    ),
    # That ought to have started: what stands in line for its turn is late only if its schedule says when it is due.
    Index("runs_unstarted", "deployment", "created", postgresql_where=UNSTARTED, sqlite_where=UNSTARTED),
    Index("runs_parked", "id", postgresql_where=text("place < 0"), sqlite_where=text("place < 0")),
    Index(
        "runs_running",
        "deployment",
        "queue",
        postgresql_where=text("state = 'running'"),
        sqlite_where=text("state = 'running'"),
    ),
)


# How many runs there were that have been pruned, of a deployment and a day in its zone.
days = Table(
    "days",
    metadata,
    Column("deployment", Name, nullable=False),
    Column("day", Name, nullable=False),  # YYYY-MM-DD
    Column("state", Name, nullable=False),  # how they ended
    Column("count", Number, nullable=False),
    PrimaryKeyConstraint("deployment", "day", "state", name="days_pkey"),
    Index("days_in_order", "day"),
)


def is_in(state: State, of: FromClause = runs) -> ColumnElement[bool]:
    """That a run is in this state; as part of the text, since an index of such runs is not considered for a value."""
    return of.c.state == literal_column(f"'{state.value}'")


events = Table(
    "events",
    metadata,
    Column("run", Name, ForeignKey("runs.id", name="events_run", ondelete="CASCADE"), nullable=False),
    Column("attempt", Number, nullable=False),
    Column("seq", Number, nullable=False),  # how many events of the attempt there are, with those of this chunk
    Column("output", Boolean, nullable=False),  # all of the chunk is what the notebook printed, or none of it is
    Column("chunk", Text, nullable=False),  # a JSON list of events
    PrimaryKeyConstraint("run", "attempt", "seq", name="events_pkey"),
)

# Which runs have told which packages: a list that none names goes with the last one.
installed = Table(
    "installed",
    metadata,
    Column("run", Name, ForeignKey("runs.id", name="installed_run", ondelete="CASCADE"), nullable=False),
    Column("digest", Name, nullable=False),  # of packages; no foreign key, as whoever adds to a run waits for nobody
    PrimaryKeyConstraint("run", "digest", name="installed_pkey"),
    Index("installed_by", "digest"),
)

# How much of something may be done: by the runs of a queue or a deployment, or by all nodes that name it.
limits = Table(
    "limits",
    metadata,
    Column("kind", Name, nullable=False),
    Column("name", Name, nullable=False),
    Column("width", Number),  # so many at once
    Column("many", Number),  # so many in any span of
    Column("seconds", Number),  # so many seconds
    Column("taken", Number, nullable=False),  # how many of that rate, modulo its count
    # Of one that nodes name: it closes for a while after so many failures within so many seconds. Null: it never does.
    Column("failures", Number),
    Column("within", Float(53)),
    Column("close_for", Float(53)),
    Column("failed", Number, nullable=False),  # how many so far, modulo their count
    Column("closed", Instant),  # until then; in the past: one call may try it
    Column("trial", Instant),  # such a call was let pass, and is given up then
    Column("error", String),  # of the newest failure
    Column("declared", Boolean, nullable=False),  # by a notebook, and by nobody else
    PrimaryKeyConstraint("kind", "name", name="limits_pkey"),
)

# The newest of what a rate has let pass, or of failures: a ring, in which the next one takes the place of the oldest.
grants = Table(
    "grants",
    metadata,
    Column("kind", Name, nullable=False),
    Column("name", Name, nullable=False),
    Column("slot", Number, nullable=False),
    Column("at", Instant, nullable=False),
    PrimaryKeyConstraint("kind", "name", "slot", name="grants_pkey"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Name, primary_key=True),
    Column("host", String, nullable=False),
    Column("pid", Number, nullable=False),
    Column("queues", Json, nullable=False),
    Column("concurrency", Number, nullable=False),
    Column("started", Instant, nullable=False),
    Column("seen", Instant, nullable=False),
    Column("dropped", Number, nullable=False),  # messages it heard that no flowkit of this store has sent
)

# Of the store's own processes; no API shows one, and no kernel can reach it.
secrets = Table(
    "secrets",
    metadata,
    Column("name", Name, primary_key=True),
    Column("value", String, nullable=False),
)

# Who is told what of deployments: ``secret`` names the address.
alerts = Table(
    "alerts",
    metadata,
    Column("id", Name, primary_key=True),
    Column("deployment", Name),  # null: all
    Column("secret", String, nullable=False),
    Column("on", String, nullable=False),
    Column("created", Instant, nullable=False),
    Index("alerts_of_deployment", "deployment"),
)

# What was told, or is to be.
notices = Table(
    "notices",
    metadata,
    Column("alert", Name, ForeignKey("alerts.id", name="notices_alert", ondelete="CASCADE"), nullable=False),
    Column("deployment", Name, nullable=False),  # of what is stuck, or moves again: the queue
    Column("run", Name, nullable=False),  # the key of a firing that became none
    Column("kind", String, nullable=False),
    Column("reason", String),
    Column("of", Instant, nullable=False),  # when it happened
    Column("tries", Number, nullable=False),
    Column("due", Instant),  # null: sent, given up, or not to be sent
    Column("sent", Instant),
    Column("error", String),
    Column("open", Boolean),  # it lasts; null: it is over, or is nothing that lasts
    PrimaryKeyConstraint("alert", "run", "kind", name="notices_pkey"),
    Index("notices_due", "due", postgresql_where=text("due IS NOT NULL"), sqlite_where=text("due IS NOT NULL")),
    Index("notices_open", "alert", postgresql_where=text("open IS NOT NULL"), sqlite_where=text("open IS NOT NULL")),
    Index("notices_last", "alert", "deployment", "kind", "of"),
    Index("notices_newest", "of", "alert", "run", "kind"),
    Index("notices_of_deployment", "deployment", "of", "alert", "run", "kind"),
)

# Who may come in by HTTP.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Name, primary_key=True),
    Column("name", Name, nullable=False),
    Column("role", String, nullable=False),
    Column("digest", Name, nullable=False),  # SHA-256 of the secret
    Column("created", Instant, nullable=False),
    Column("expires", Instant, nullable=False),
    UniqueConstraint("digest", name="tokens_digest"),
)

# What was done by HTTP, and by whom.
acts = Table(
    "acts",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Instant, nullable=False),
    Column("who", String, nullable=False),
    Column("role", String),
    Column("what", String, nullable=False),
    Column("status", Number, nullable=False),
    Column("address", String, nullable=False),
    Index("acts_at", "at"),
    Index("acts_of", "who", "id"),
)

# That something happened, in the transaction in which it did: written by triggers, so no statement can forget it.
changes = Table(
    "changes",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("xid", BigInteger, nullable=False),  # PostgreSQL's transaction: ids are given before commits, see changes.py
    Column("run", Name, nullable=False),
    Column("attempt", Number, nullable=False),
    Column("state", String),  # what the run became; null: events were recorded
    Column("seq", Number),  # of those events
    Column("at", BigInteger, nullable=False),  # seconds since 1970, by the database's clock
    Index("changes_in_order", "xid", "id"),
)

TRIGGERS = {"sqlite": SQLITE_TRIGGERS, "postgresql": POSTGRES_TRIGGERS}
