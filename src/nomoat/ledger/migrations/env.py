"""What Alembic runs for every upgrade. `ledger.migrate` gives the connection and owns the transaction."""

from alembic import context

from nomoat.ledger.schema import METADATA, REVISION_TABLE

context.configure(
    connection=context.config.attributes.get("connection"),
    # Without a connection: the same migrations as SQL text for that database (`alembic upgrade --sql`).
    dialect_name=context.config.attributes.get("dialect_name"),
    target_metadata=METADATA,
    version_table=REVISION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
