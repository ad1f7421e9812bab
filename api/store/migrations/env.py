"""Run by Alembic; the connection comes from `api.store.database.upgrade`."""

from alembic import context

from api.store.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
