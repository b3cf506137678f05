"""What Alembic runs to migrate: always over the connection that ``migrate`` holds, in its transaction."""

from alembic import context

from flowkit.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
