"""How Alembic runs Headway's migrations: on the connection that ``runner`` hands over, never by itself."""

from alembic import context

from headway.migrations.runner import METADATA, is_ours

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    include_object=is_ours,
    compare_type=True,
    compare_server_default=True,
    # one transaction for all of them: a failed upgrade leaves nothing behind
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
